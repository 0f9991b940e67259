"""A data set by name or by folder.

open_dataset("fake", spec)            a name of the catalog
open_dataset("data/carracing")        a folder in the LeRobot format, as `drivetrain collect` writes it
"""

from __future__ import annotations

from pathlib import Path

from drivetrain import catalog
from drivetrain.data.episodes import Episodes
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.sample import Spec


def open_dataset(name_or_path: str, spec: Spec | None = None) -> Episodes:
    """The episodes; with a `spec`, only if they offer every feature it names."""
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
    from drivetrain.data.lerobot import open_lerobot

    data = open_lerobot(folder)
    if spec is not None:
        spec.require(data.spec, who="training", by=f"the data set {folder}")
    return data
