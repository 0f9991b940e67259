"""A road network, ready for questions: everything is computed when it is loaded.

    roads = load(xodr_text)
    roads.nearest_lane(12.0, -3.5)          one point: road, section, lane, s, lateral offset, marks, ...
    roads.nearest_lanes(points)             many points at once, as arrays
    roads.spawn_points()                    where a car may be put

All in CARLA's frame (see the package's docstring).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from drivetrain.sim.road.crossings import marks_crossed
from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.errors import BadMap
from drivetrain.sim.road.lanes import Lane, lanes_of, wrap
from drivetrain.sim.road.links import connect
from drivetrain.sim.road.nearest import Grid, LanePoints
from drivetrain.sim.road.opendrive import Mark, OpenDrive, read
from drivetrain.sim.road.signals import Box, Signal, StopLine, crosswalks_of, objects_of, signals_of, stop_lines_of
from drivetrain.sim.road.surfaces import Surfaces, surfaces_of

SPAWN_HEIGHT_M = 0.5
SPAWN_CLEARANCE_M = 4.0  # from either end of a lane


FARTHEST_M = 500_000.0  # from the origin
WIDEST_M = 200.0
JUMP_M = 25.0  # between neighbouring places along a lane, which are some metres apart


@dataclass(frozen=True)
class Pose:
    """What CARLA calls a Transform."""

    x_m: float
    y_m: float
    z_m: float
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0
    roll_deg: float = 0.0


@dataclass(frozen=True)
class LanePoint:
    """Where one point lies on its nearest lane."""

    lane: Lane
    s_m: float
    along_m: float
    lateral_m: float  # off the lane's middle, to the right
    width_m: float
    heading_rad: float
    pitch_rad: float
    height_m: float
    x_m: float  # the lane's middle
    y_m: float

    @property
    def inside(self) -> bool:
        return abs(self.lateral_m) <= self.width_m / 2 + 1e-6

    @property
    def marks(self) -> tuple[Mark, Mark]:
        return self.lane.marks_at(self.s_m)

    @property
    def lane_change(self) -> tuple[bool, bool]:
        return self.lane.lane_change_at(self.s_m)


def load(xodr: str) -> RoadMap:
    """`BadMap`, which names the element, where the text is no map."""
    return RoadMap(xodr, read(xodr))


def check_place(lane: Lane) -> None:
    """`BadMap` for a lane that no land has room for: a slip in a number, as a rule."""
    where = f"road {lane.road} lane {lane.id}"
    edges = np.stack([lane.left, lane.right])
    far = float(np.abs(edges).max())
    if not far <= FARTHEST_M:  # which is true of what is not a number too
        raise BadMap(where, f"a place {far:g} m from the origin", f"at most {FARTHEST_M:g} m")
    wide = float(np.abs(lane.width_m).max())
    if wide > WIDEST_M:
        raise BadMap(where, f"a width of {wide:g} m", f"at most {WIDEST_M:g} m")
    step = float(np.hypot(*np.diff(lane.centre[:, :2], axis=0).T).max())
    if step > JUMP_M:
        raise BadMap(
            f"road {lane.road} planView", f"a line that jumps by {step:g} m", "pieces that begin where the last ends"
        )


class RoadMap:
    def __init__(self, xodr: str, opened: OpenDrive):
        self.xodr, self.opened = xodr, opened
        self.lanes: list[Lane] = []
        for road in opened.roads.values():
            self.lanes.extend(lanes_of(road, len(self.lanes)))
        for lane in self.lanes:
            check_place(lane)
        connect(opened, self.lanes)
        self.at = {lane.key: lane for lane in self.lanes}
        wide = np.array([lane.width_m.max() > 1e-3 for lane in self.lanes])
        self.drivable = np.array([lane.is_drivable for lane in self.lanes], dtype=bool) & wide
        self.paved = np.array([lane.type != "none" for lane in self.lanes], dtype=bool) & wide
        if not self.drivable.any():
            raise BadMap("OpenDRIVE", "no driving lane", "a lane of type driving that is wider than nothing")
        self.grid = Grid(self.lanes)
        self.signals: list[Signal] = signals_of(opened, self.lanes)
        self.stop_lines: list[StopLine] = stop_lines_of(opened, self.lanes, self.signals)
        self.objects: list[Box] = objects_of(opened)
        self.crosswalks: list[Floats] = crosswalks_of(opened)  # [N, 3] each

    def is_junction(self, lane: int) -> bool:
        return bool(self.lanes[lane].junction)

    def lanes_of_type(self, *types: str) -> np.ndarray:
        """[lanes] true for the types named: what `nearest_lane` takes as `among`."""
        return np.array([lane.type in types for lane in self.lanes], dtype=bool)

    def nearest_lanes(self, points: Floats, among: np.ndarray | None = None, z_m: Floats | None = None) -> LanePoints:
        """`points` [N, 2]; `among` says of every lane whether it counts, by default the drivable ones."""
        allowed = self.drivable if among is None else among
        return self.grid.find(np.asarray(points, np.float64).reshape(-1, 2), z_m, allowed)

    def nearest_lane(
        self, x_m: float, y_m: float, among: np.ndarray | None = None, z_m: float | None = None
    ) -> LanePoint:
        heights = None if z_m is None else np.array([z_m])
        found = self.nearest_lanes(np.array([[x_m, y_m]]), among, heights)
        lane, *numbers = (getattr(found, name)[0].item() for name in LanePoint.__dataclass_fields__)
        return LanePoint(self.lanes[lane], *numbers)

    def lane_beneath(self, x_m: float, y_m: float, z_m: float) -> Lane:
        """What `nearest_lane` finds, in a third of the time."""
        return self.lanes[self.grid.beneath(x_m, y_m, z_m, self.drivable)]

    def heights_m(self, points: Floats, z_m: Floats | None = None) -> Floats:
        """The ground under points [N, 2]: of the lane they stand on or, off the road, of the nearest one."""
        return self.nearest_lanes(points, self.paved, z_m).height_m

    def height_m(self, x_m: float, y_m: float, z_m: float | None = None) -> float:
        """`z_m` tells storeys apart, where one road crosses over another."""
        heights = None if z_m is None else np.array([z_m])
        return float(self.heights_m(np.array([[x_m, y_m]]), heights)[0])

    def pose_at(self, lane: Lane, along_m: float, lift_m: float = 0.0) -> Pose:
        """The middle of a lane, so far along it, looking where it goes."""
        x, y, z = (float(np.interp(along_m, lane.along_m, axis)) for axis in lane.centre.T)
        heading = float(np.interp(along_m, lane.along_m, np.unwrap(lane.heading_rad)))
        pitch = float(np.interp(along_m, lane.along_m, lane.pitch_rad))
        return Pose(x, y, z + lift_m, math.degrees(pitch), math.degrees(float(wrap(np.array(heading)))))

    def ahead(self, lane: Lane, s_m: float, distance_m: float) -> list[tuple[Lane, float]]:
        """Every (lane, s) that lies so far ahead, measured along the road as CARLA does."""
        left = float(lane.s_m[-1] - s_m) * (1 if lane.runs_with_s else -1)
        if distance_m <= left:
            return [(lane, s_m + (distance_m if lane.runs_with_s else -distance_m))]
        found: list[tuple[Lane, float]] = []
        for after in (self.lanes[i] for i in lane.successors):
            found += self.ahead(after, float(after.s_m[0]), distance_m - left)
        return found

    def spawn_points(self, spacing_m: float = 25.0) -> list[Pose]:
        """In every driving lane outside of junctions, spacing_m apart and clear of its ends, half a metre up."""
        points = []
        for lane in self.lanes:
            room = lane.length_m - 2 * SPAWN_CLEARANCE_M
            if not lane.is_drivable or lane.junction or room <= 0 or lane.width_m.min() < 2.0:
                continue
            count = max(1, int(room // spacing_m))
            for along in SPAWN_CLEARANCE_M + (np.arange(count) + 0.5) * room / count:
                points.append(self.pose_at(lane, float(along), SPAWN_HEIGHT_M))
        return points

    @functools.cached_property
    def surfaces(self) -> Surfaces:
        return surfaces_of(self)

    def marks_crossed(self, before: Floats, after: Floats) -> list[Mark]:
        """The marks that a box came over when its corners moved from [4, 2] to [4, 2]."""
        return marks_crossed(self, before, after)
