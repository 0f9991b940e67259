"""A data set by name, by folder or by file, or several as one.

open_dataset("fake", spec)                      a name of the catalog
open_dataset("data/carracing")                  a folder in the LeRobot format, as `drivetrain collect` writes it; or Minari's
open_dataset("hopper_medium-v2.hdf5")           a file of D4RL
open_dataset("data/medium,data/expert")         the episodes of both
"""

from __future__ import annotations

from pathlib import Path

from drivetrain import catalog
from drivetrain.data.episodes import Episodes, together
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.sample import Spec


def open_dataset(name_or_path: str, spec: Spec | None = None) -> Episodes:
    """The episodes; with a `spec`, only if they offer every feature it names."""
    if "," in name_or_path:
        return together([open_dataset(part.strip(), spec) for part in name_or_path.split(",") if part.strip()])
    folder = Path(name_or_path)
    if name_or_path in catalog.DATASETS:
        if spec is None:
            raise BadConfig(
                f"BadConfig: the data set {name_or_path!r} takes its shape from a spec, and none was given; "
                "name an env as well, or give the folder of a collected data set"
            )
        return catalog.find("datasets", name_or_path)(spec)
    if not folder.exists() and folder.name == name_or_path:
        raise UnknownName("data set", name_or_path, catalog.DATASETS)
    data = _read(folder, spec)
    if spec is not None:
        spec.require(data.spec, who="training", by=f"the data set {folder}")
    return data


def _read(place: Path, spec: Spec | None) -> Episodes:
    from drivetrain.data import minari
    from drivetrain.data.lerobot import open_lerobot

    if place.is_file():
        return minari.open_d4rl(place, spec)
    return minari.open_minari(place, spec) if minari.is_minari(place) else open_lerobot(place)
