"""All towns by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from drivetrain.sim.road.map import RoadMap, load
from drivetrain.sim.towns.drafting import Draft
from drivetrain.sim.towns.highway import highway
from drivetrain.sim.towns.plans import grid, roundabout, rural
from drivetrain.sim.towns.random_town import random_town
from drivetrain.sim.towns.scenery import COUNTRYSIDE, TOWN, Thing, scenery
from drivetrain.sim.towns.writing import write

PLANS: dict[str, Callable[[], Draft]] = {"grid": grid, "roundabout": roundabout, "highway": highway, "rural": rural}
RANDOM = re.compile(r"Random-(\d+)")


class UnknownTown(ValueError):
    """A name that no town has."""

    def __init__(self, name: str):
        super().__init__(f"UnknownTown: there is no town called {name!r}; known: {', '.join(names())}, Random-<seed>")


@dataclass(frozen=True)
class Town:
    name: str
    xodr: str
    roads: RoadMap
    scenery: tuple[Thing, ...]


def names() -> list[str]:
    """Those with a name of their own; any Random-<seed> is a town as well."""
    return list(PLANS)


def draft(name: str) -> Draft:
    if name in PLANS:
        return PLANS[name]()
    if drawn := RANDOM.fullmatch(name):
        return random_town(int(drawn[1]))
    raise UnknownTown(name)


@functools.lru_cache(maxsize=4)
def town(name: str) -> Town:
    xodr = write(draft(name))
    roads = load(xodr)
    kind = COUNTRYSIDE if name in ("highway", "rural") else TOWN
    return Town(name, xodr, roads, tuple(scenery(name, roads, kind)))
