"""What the world asks of a map, and of whoever has maps. `road/` and `towns/` answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.structs import GenerationParameters, Transform
from drivetrain.sim.road.map import RoadMap
from drivetrain.sim.towns.scenery import Thing


class Map(Protocol):
    """One place. Transforms and coordinates are CARLA's: y is the negative of OpenDRIVE's."""

    name: str
    xodr: str

    @property
    def roads(self) -> RoadMap: ...
    @property
    def scenery(self) -> Sequence[Thing]: ...
    def spawn_points(self) -> list[Transform]: ...
    def heights_m(self, points: NDArray[np.float64], below_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ground under points [N, 2]: the highest that is not above below_m [N]."""

    def lights(self) -> list[LightPlace]: ...


class Maps(Protocol):
    """All places that can be loaded by name, or made from an OpenDRIVE text."""

    def names(self) -> list[str]: ...
    def load(self, name: str) -> Map: ...
    def from_xodr(self, xodr: str, parameters: GenerationParameters) -> Map: ...
