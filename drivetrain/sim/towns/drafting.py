"""Laying out roads: streets between places, junctions where they meet, and the signs, lights and crossings there.

A `Draft` holds what `writing.py` writes down. Streets are drawn first, then the junctions that join their ends: each
junction gets one connecting road for every lane that may lead into another, along one clothoid, and its outermost ones
carry the sidewalk or shoulder around the corner.

Traffic drives on the right. OpenDRIVE's frame throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from drivetrain.sim.road.planview import Geometry
from drivetrain.sim.towns.curves import Place, between, end_of, length_of, place_on, wrapped

KERB_M = 0.15
CROSSWALK_M = (1.5, 4.5)  # from the end of an approach
STOP_M = 5.5
BARE_STOP_M = 1.0  # where people do not cross
SIDE_M = 0.9  # from the edge of the roadway to a pole
TURN_RAD = math.radians(30)  # less than this is straight on


@dataclass(frozen=True)
class Profile:
    """The cross section of a street."""

    left: int = 1  # driving lanes that run against it
    right: int = 1
    lane_m: float = 3.5
    shoulder_m: float = 0.0
    sidewalk_m: float = 0.0
    speed_kmh: int = 50
    centre: str = "broken"
    centre_color: str = "yellow"

    @property
    def outer(self) -> tuple[tuple[str, float], ...]:
        """What lies beside the driving lanes, from them outwards."""
        strips = (("shoulder", self.shoulder_m), ("sidewalk", self.sidewalk_m))
        return tuple((kind, width) for kind, width in strips if width > 0)

    @property
    def half_m(self) -> float:
        return max(self.left, self.right) * self.lane_m + self.shoulder_m + self.sidewalk_m


@dataclass(frozen=True)
class LaneDraft:
    type: str
    width_m: float
    mark: str = "none"
    color: str = "white"
    lane_change: str = "none"
    height_m: float = 0.0
    predecessor: int | None = None
    successor: int | None = None
    last_width_m: float | None = None  # where it differs from the first


@dataclass(frozen=True)
class Sign:
    id: int
    s_m: float
    t_m: float
    orientation: str
    type: str
    lanes: tuple[int, int]
    name: str
    value: int = -1
    dynamic: bool = False


@dataclass(frozen=True)
class Crossing:
    id: int
    s_m: float
    across_m: float
    deep_m: float


@dataclass
class Road:
    id: int
    profile: Profile
    pieces: tuple[Geometry, ...]
    heights: tuple[tuple[float, float, float, float, float], ...]  # elevation
    lanes: dict[int, LaneDraft]
    junction: int = -1
    predecessor: tuple[str, int, str] | None = None  # road or junction, id, start or end
    successor: tuple[str, int, str] | None = None
    signs: list[Sign] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)

    @property
    def length_m(self) -> float:
        return length_of(self.pieces)

    def height_at(self, s_m: float) -> float:
        s, a, b, c, d = max((h for h in self.heights if h[0] <= s_m + 1e-9), key=lambda h: h[0])
        u = s_m - s
        return a + u * (b + u * (c + u * d))


@dataclass(frozen=True)
class Arm:
    """One end of a road, as whoever comes out of it sees the junction."""

    road: Road
    end: str  # start, end

    @property
    def place(self) -> Place:
        if self.end == "end":
            return end_of(self.road.pieces[-1])
        return place_on(self.road.pieces, 0.0).turned(math.pi)

    @property
    def height_m(self) -> float:
        return self.road.height_at(self.road.length_m if self.end == "end" else 0.0)

    @property
    def incoming(self) -> int:
        return self.road.profile.right if self.end == "end" else self.road.profile.left

    @property
    def outgoing(self) -> int:
        return self.road.profile.left if self.end == "end" else self.road.profile.right

    def lane_in(self, number: int) -> int:
        """The id of the incoming lane, counted from the middle from 1."""
        return -number if self.end == "end" else number

    def s_m(self, back_m: float) -> float:
        return self.road.length_m - back_m if self.end == "end" else back_m

    @property
    def side(self) -> int:
        """The sign of t at an arriving driver's right."""
        return -1 if self.end == "end" else 1


@dataclass
class Junction:
    id: int
    connections: list[tuple[int, int, tuple[tuple[int, int], ...]]] = field(default_factory=list)
    controllers: list[int] = field(default_factory=list)


class Draft:
    def __init__(self, name: str):
        self.name = name
        self.roads: list[Road] = []
        self.junctions: list[Junction] = []
        self.controllers: dict[int, list[int]] = {}
        self._last_id = 0

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def road(
        self,
        pieces: Sequence[Geometry],
        profile: Profile,
        heights: Sequence[tuple[float, float, float, float, float]] = ((0.0, 0.0, 0.0, 0.0, 0.0),),
    ) -> Road:
        road = Road(self.new_id(), profile, tuple(pieces), tuple(heights), dict(lanes_of(profile)))
        self.roads.append(road)
        return road

    def bend(self, arm: Arm, other: Arm) -> Road:
        """A plain road from one arm to another of the same profile."""
        assert arm.road.profile == other.road.profile, (arm.road.profile, other.road.profile)
        pieces = between(arm.place, other.place.turned(math.pi))
        road = self.road(pieces, arm.road.profile, rise(arm.height_m, other.height_m, length_of(pieces)))
        self.attach(road, "start", arm)
        self.attach(road, "end", other)
        return road

    def attach(self, road: Road, end: str, arm: Arm) -> None:
        """One end of a road meets an arm: lanes keep their ids where an end meets a start, and change sides elsewhere."""
        flip = -1 if end == arm.end else 1
        for one, at, other, its in ((road, end, arm.road, arm.end), (arm.road, arm.end, road, end)):
            link = ("road", other.id, its)
            if at == "end":
                one.successor = link
                one.lanes = {i: replace(lane, successor=flip * i if i else None) for i, lane in one.lanes.items()}
            else:
                one.predecessor = link
                one.lanes = {i: replace(lane, predecessor=flip * i if i else None) for i, lane in one.lanes.items()}

    def junction(self, arms: Sequence[Arm]) -> Junction:
        """Every lane leads to wherever a driver would take it: left from the left lane, right from the right one."""
        junction = self.empty_junction(arms)
        arms = sorted(arms, key=lambda arm: wrapped(arm.place.heading_rad + math.pi))
        for i, lane, j, onto in moves(arms):
            arm, other = arms[i], arms[j]
            corner = j == (i + 1) % len(arms) and lane == arm.incoming and onto == other.outgoing
            self.connect(junction, arm, lane, other, onto, 1, corner)
        return junction

    def empty_junction(self, arms: Iterable[Arm]) -> Junction:
        junction = Junction(self.new_id())
        self.junctions.append(junction)
        for arm in arms:
            link = ("junction", junction.id, "")
            if arm.end == "end":
                arm.road.successor = link
            else:
                arm.road.predecessor = link
        return junction

    def connect(self, junction: Junction, arm: Arm, lane: int, other: Arm, onto: int, count: int, edge: bool) -> Road:
        """A road through the junction, from `count` lanes that begin at `lane` to as many that begin at `onto`."""
        profile = replace(arm.road.profile, left=0, right=count, speed_kmh=min(40, arm.road.profile.speed_kmh))
        if arm.road.profile.speed_kmh > 60:
            profile = replace(profile, speed_kmh=other.road.profile.speed_kmh)
        if not edge:
            profile = replace(profile, shoulder_m=0.0, sidewalk_m=0.0)
        start = arm.place.moved(0.0, -(lane - 1) * arm.road.profile.lane_m)
        end = other.place.turned(math.pi).moved(0.0, -(onto - 1) * other.road.profile.lane_m)
        pieces = between(start, end)
        length = length_of(pieces)
        low, high = arm.height_m, other.height_m
        rise = (0.0, low, 0.0, 3 * (high - low) / length**2, -2 * (high - low) / length**3)
        road = Road(self.new_id(), profile, pieces, (rise,), {}, junction.id)
        road.predecessor, road.successor = ("road", arm.road.id, arm.end), ("road", other.road.id, other.end)
        into, out = arm.side, -other.side
        road.lanes = {0: LaneDraft("none", 0.0)}
        outer = profile.outer if edge else ()
        onward = dict(other.road.profile.outer)
        marked = count > 1
        for i in range(1, count + len(outer) + 1):
            driving = i <= count
            kind, width = ("driving", profile.lane_m) if driving else outer[i - count - 1]
            before = into * (lane - 1 + i if driving else arm.incoming + i - count)
            after = out * (onto - 1 + i if driving else other.outgoing + i - count)
            broken = marked and i < count
            solid = marked and i == count
            road.lanes[-i] = LaneDraft(
                kind,
                width,
                "broken" if broken else "solid" if solid else "none",
                lane_change="both" if broken else "none",
                height_m=KERB_M if kind == "sidewalk" else 0.0,
                predecessor=before,
                successor=after,
                last_width_m=other.road.profile.lane_m if driving else onward.get(kind, width),
            )
        self.roads.append(road)
        links = tuple((into * (lane - 1 + i), -i) for i in range(1, count + 1))
        junction.connections.append((arm.road.id, road.id, links))
        return road

    def lights(self, junction: Junction, arms: Sequence[Arm]) -> None:
        """A light for every arm that leads in; those on one axis are green together."""
        groups: list[list[Arm]] = []
        for arm in arms:
            axis = next(
                (g for g in groups if abs(math.cos(arm.place.heading_rad - g[0].place.heading_rad)) > 0.7), None
            )
            if axis is None:
                groups.append([arm])
            else:
                axis.append(arm)
        for group in groups:
            signs = [self.sign(arm, "1000001", "Signal_3Light_Post01").id for arm in group if arm.incoming]
            if signs:
                controller = self.new_id()
                self.controllers[controller] = signs
                junction.controllers.append(controller)

    def sign(self, arm: Arm, kind: str, name: str, value: int = -1) -> Sign:
        """Beside the road, where an arriving driver has to stop."""
        profile = arm.road.profile
        back = STOP_M if profile.sidewalk_m else BARE_STOP_M
        t = arm.side * (arm.incoming * profile.lane_m + profile.shoulder_m + SIDE_M)
        lanes = (arm.lane_in(1), arm.lane_in(arm.incoming))
        sign = Sign(
            self.new_id(),
            arm.s_m(back),
            t,
            "+" if arm.end == "end" else "-",
            kind,
            (min(lanes), max(lanes)),
            name,
            value,
            kind == "1000001",
        )
        arm.road.signs.append(sign)
        return sign

    def speed_signs(self, road: Road, after_m: float = 8.0) -> None:
        """For both ways, a little after where one enters."""
        profile = road.profile
        for count, orientation, side, s in (
            (profile.right, "+", -1, after_m),
            (profile.left, "-", 1, road.length_m - after_m),
        ):
            if count and road.length_m > 40.0:
                t = side * (count * profile.lane_m + profile.shoulder_m + SIDE_M)
                lanes = (-count, -1) if side < 0 else (1, count)
                name = f"Speed_{profile.speed_kmh}"
                road.signs.append(Sign(self.new_id(), s, t, orientation, "274", lanes, name, profile.speed_kmh))

    def crosswalk(self, arm: Arm) -> None:
        near, far = CROSSWALK_M
        across = (arm.road.profile.left + arm.road.profile.right) * arm.road.profile.lane_m
        arm.road.crossings.append(Crossing(self.new_id(), arm.s_m((near + far) / 2), across, far - near))


Move = tuple[int, int, int, int]  # from an arm's lane onto another arm's lane, each counted from the middle


def moves(arms: Sequence[Arm]) -> list[Move]:
    """Where every lane leads; a lane that would be left out joins the move that lies nearest beside it."""
    found: list[Move] = []
    for i, arm in enumerate(arms):
        for j, other in enumerate(arms):
            if i != j and arm.incoming and other.outgoing:
                found += [(i, lane, j, onto) for lane, onto in turns(arm, other)]
    for i, arm in enumerate(arms):
        for lane in range(1, arm.incoming + 1):
            if not any(move[:2] == (i, lane) for move in found):
                _, _, j, onto = min((m for m in found if m[0] == i), key=lambda m: abs(m[1] - lane))
                found.append((i, lane, j, onto))
        for onto in range(1, arm.outgoing + 1):
            if not any(move[2:] == (i, onto) for move in found):
                j, lane, _, _ = min((m for m in found if m[2] == i), key=lambda m: abs(m[3] - onto))
                found.append((j, lane, i, onto))
    return sorted(found)


def turns(arm: Arm, other: Arm) -> list[tuple[int, int]]:
    turn = wrapped(other.place.heading_rad + math.pi - arm.place.heading_rad)
    if turn > TURN_RAD:
        return [(1, 1)]
    if turn < -TURN_RAD:
        return [(arm.incoming, other.outgoing)]
    return [(lane, min(lane, other.outgoing)) for lane in range(1, arm.incoming + 1)]


def lanes_of(profile: Profile) -> Iterable[tuple[int, LaneDraft]]:
    both = profile.left > 0 and profile.right > 0
    change = "both" if both and profile.centre == "broken" else "none"
    yield 0, LaneDraft("none", 0.0, profile.centre if both else "solid", profile.centre_color, change)
    for count, side in ((profile.left, 1), (profile.right, -1)):
        if not count:
            continue
        for i in range(1, count + 1):
            last = i == count
            mark, across = ("solid", "none") if last else ("broken", "both")
            yield side * i, LaneDraft("driving", profile.lane_m, mark, "white", across)
        for i, (kind, width) in enumerate(profile.outer, count + 1):
            yield side * i, LaneDraft(kind, width, height_m=KERB_M if kind == "sidewalk" else 0.0)


def rise(low_m: float, high_m: float, length_m: float) -> tuple[tuple[float, float, float, float, float], ...]:
    """An elevation that is level at both ends."""
    return ((0.0, low_m, 0.0, 3 * (high_m - low_m) / length_m**2, -2 * (high_m - low_m) / length_m**3),)
