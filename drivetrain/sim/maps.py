"""What the world asks of a map, and of whoever has maps. `road/` and `towns/` answer it."""

from __future__ import annotations

from typing import Protocol

from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.structs import GenerationParameters, Transform


class Map(Protocol):
    """One place. Transforms and coordinates are CARLA's: y is the negative of OpenDRIVE's."""

    name: str
    xodr: str

    def spawn_points(self) -> list[Transform]: ...
    def height_m(self, x_m: float, y_m: float) -> float: ...
    def lights(self) -> list[LightPlace]: ...


class Maps(Protocol):
    """All places that can be loaded by name, or made from an OpenDRIVE text."""

    def names(self) -> list[str]: ...
    def load(self, name: str) -> Map: ...
    def from_xodr(self, xodr: str, parameters: GenerationParameters) -> Map: ...
