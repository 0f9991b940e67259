"""An OpenDRIVE text, read into plain records: what is written there, checked, and nothing computed.

Everything here is in OpenDRIVE's own frame (see `frame.py`). Any 1.x file is read; elements that say nothing about
driving or looks (railroads, surfaces' CRG files, user data) are passed over.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from drivetrain.sim.road.cubics import Cubics
from drivetrain.sim.road.errors import BadMap
from drivetrain.sim.road.planview import Geometry, PlanView

FACTORS = {
    "line": (),
    "arc": ("curvature",),
    "spiral": ("curvStart", "curvEnd"),
    "poly3": ("a", "b", "c", "d"),
    "paramPoly3": ("aU", "bU", "cU", "dU", "aV", "bV", "cV", "dV"),
}
SPEED_MPS = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704}
LONGEST_M = 200_000.0  # of a road
MOST_TURN_RAD = 200.0  # of one element; a corkscrew of thirty turns is a slip of the pen
GAP_M = 0.5  # what real files leave between two elements is less; more is a mistake


@dataclass(frozen=True)
class Mark:
    """A road mark, valid from s_m (along the road) until the next one of its lane."""

    s_m: float
    type: str  # none, solid, broken, solid solid, broken solid, ...
    color: str = "standard"
    width_m: float = 0.15
    lane_change: str = "both"  # increase, decrease, both, none: across it, in terms of lane ids
    dash_m: float = 3.0
    gap_m: float = 6.0


NO_MARK = Mark(0.0, "none", width_m=0.0)


@dataclass(frozen=True)
class LaneRecord:
    id: int
    type: str
    widths: Cubics  # over s along the road
    borders: Cubics
    heights: tuple[tuple[float, float, float], ...]  # from s on: inner, outer height over the road
    marks: tuple[Mark, ...]
    speeds: tuple[tuple[float, float], ...]  # from s on: limit in m/s
    predecessor: int | None
    successor: int | None


@dataclass(frozen=True)
class SectionRecord:
    s_m: float
    end_m: float
    lanes: dict[int, LaneRecord]


@dataclass(frozen=True)
class Link:
    kind: str  # road, junction
    id: str
    contact: str  # start, end; empty for junctions


@dataclass(frozen=True)
class SignalRecord:
    id: str
    s_m: float
    t_m: float
    z_offset_m: float
    heading_offset_rad: float
    orientation: str  # +, -, none
    dynamic: bool
    type: str
    subtype: str
    name: str
    value: float | None
    unit: str
    lanes: tuple[tuple[int, int], ...]  # lane ids from, to; none: all of the orientation
    refers: bool = False  # it stands on another road; here it only holds


@dataclass(frozen=True)
class ObjectRecord:
    id: str
    type: str
    name: str
    s_m: float
    t_m: float
    z_offset_m: float
    heading_rad: float
    length_m: float
    width_m: float
    height_m: float
    outline: tuple[tuple[float, float, float], ...]  # corners as s, t, z along the road, or u, v, z about the object
    outline_is_local: bool = True


@dataclass(frozen=True)
class RoadRecord:
    id: str
    length_m: float
    junction: str  # empty for none
    is_rht: bool
    plan: PlanView
    elevation: Cubics
    superelevation: Cubics
    shape: tuple[tuple[float, Cubics], ...]  # at s: height over t
    offset: Cubics
    sections: tuple[SectionRecord, ...]
    speeds: tuple[tuple[float, float], ...]
    predecessor: Link | None
    successor: Link | None
    signals: tuple[SignalRecord, ...]
    objects: tuple[ObjectRecord, ...]


@dataclass(frozen=True)
class Connection:
    incoming: str
    connecting: str
    contact: str  # which end of the connecting road meets the incoming one
    lanes: tuple[tuple[int, int], ...]  # incoming lane id, connecting lane id


@dataclass(frozen=True)
class JunctionRecord:
    id: str
    connections: tuple[Connection, ...]
    controllers: tuple[str, ...]


@dataclass(frozen=True)
class OpenDrive:
    roads: dict[str, RoadRecord]
    junctions: dict[str, JunctionRecord]
    controllers: dict[str, tuple[str, ...]]  # signal ids, in order
    geo_reference: str


def read(text: str) -> OpenDrive:
    try:
        root = ET.fromstring(text.encode() if isinstance(text, str) else text)
    except ET.ParseError as error:
        raise BadMap("the file", str(error), "well-formed XML") from error
    for node in root.iter():
        if isinstance(node.tag, str):
            node.tag = node.tag.rpartition("}")[2]
    if root.tag != "OpenDRIVE":
        raise BadMap("the root element", root.tag, "OpenDRIVE")
    roads: dict[str, RoadRecord] = {}
    for node in root.findall("road"):
        road = read_road(node)
        if road.id in roads:
            raise BadMap(f"road {road.id}", "a second road of this id", "every id once")
        roads[road.id] = road
    if not roads:
        raise BadMap("OpenDRIVE", "no road", "at least one road")
    junctions = {_text(node, "id", "junction"): read_junction(node) for node in root.findall("junction")}
    controllers = {
        _text(node, "id", "controller"): tuple(c.get("signalId", "") for c in node.findall("control"))
        for node in root.findall("controller")
    }
    opened = OpenDrive(roads, junctions, controllers, (root.findtext("header/geoReference") or "").strip())
    check_links(opened)
    return opened


def read_road(node: ET.Element) -> RoadRecord:
    road_id = _text(node, "id", "road")
    where = f"road {road_id}"
    length = _number(node, "length", where)
    if not 0 < length <= LONGEST_M:
        raise BadMap(f"{where} length", length, f"more than 0 and at most {LONGEST_M}")
    lateral, junction = node.find("lateralProfile"), node.get("junction", "-1")
    shapes: dict[float, list[tuple[float, float, float, float, float]]] = {}
    for shape in node.findall("lateralProfile/shape"):
        place = f"{where} shape"
        row = (_number(shape, "t", place), *(_number(shape, key, place, 0.0) for key in "abcd"))
        shapes.setdefault(_number(shape, "s", place), []).append(row)  # type: ignore[arg-type]
    return RoadRecord(
        id=road_id,
        length_m=length,
        junction="" if junction == "-1" else junction,
        is_rht=node.get("rule", "RHT").upper() != "LHT",
        plan=read_plan(node, length, where),
        elevation=_cubics(node.findall("elevationProfile/elevation"), f"{where} elevation"),
        superelevation=_cubics([] if lateral is None else lateral.findall("superelevation"), f"{where} superelevation"),
        shape=tuple((s, Cubics.of(rows)) for s, rows in sorted(shapes.items())),
        offset=_cubics(node.findall("lanes/laneOffset"), f"{where} laneOffset"),
        sections=read_sections(node, length, where),
        speeds=tuple(
            (_number(kind, "s", f"{where} type"), _speed(speed, f"{where} speed"))
            for kind in node.findall("type")
            for speed in kind.findall("speed")
            if speed.get("max") not in ("no limit", "undefined")
        ),
        predecessor=read_link(node.find("link/predecessor"), f"{where} predecessor"),
        successor=read_link(node.find("link/successor"), f"{where} successor"),
        signals=tuple(
            read_signal(s, where) for s in node.findall("signals/*") if s.tag in ("signal", "signalReference")
        ),
        objects=tuple(read_object(o, where) for o in node.findall("objects/object")),
    )


def read_plan(road: ET.Element, length_m: float, where: str) -> PlanView:
    pieces: list[Geometry] = []
    for i, node in enumerate(road.findall("planView/geometry")):
        place = f"{where} geometry {i}"
        kinds = [child for child in node if child.tag in FACTORS]
        if len(kinds) != 1:
            raise BadMap(place, [child.tag for child in node], f"one of {', '.join(FACTORS)}")
        kind = kinds[0]
        s, x, y, heading, length = (_number(node, key, place) for key in ("s", "x", "y", "hdg", "length"))
        factors = tuple(_number(kind, key, f"{place} {kind.tag}") for key in FACTORS[kind.tag])
        normalized = kind.tag == "paramPoly3" and kind.get("pRange", "normalized") != "arcLength"
        piece = Geometry(kind.tag, s, x, y, heading, length, factors, normalized)
        if piece.length_m <= 0:
            raise BadMap(f"{place} length", piece.length_m, "more than 0")
        if kind.tag in ("arc", "spiral") and max(abs(c) for c in factors) * length > MOST_TURN_RAD:
            raise BadMap(f"{place} {kind.tag}", factors, f"a curve that turns less than {MOST_TURN_RAD} rad in all")
        pieces.append(piece)
    if not pieces:
        raise BadMap(f"{where} planView", "no geometry", "at least one geometry")
    for i, (before, after) in enumerate(pairwise(pieces)):
        place, end = f"{where} geometry {i + 1}", before.s_m + before.length_m
        if abs(after.s_m - end) > GAP_M:
            raise BadMap(f"{place} s", after.s_m, f"{end:.3f}, where geometry {i} ends")
    end = pieces[-1].s_m + pieces[-1].length_m
    if abs(end - length_m) > GAP_M:
        raise BadMap(f"{where} length", length_m, f"{end:.3f}, where its last geometry ends")
    return PlanView(tuple(pieces))


def read_sections(road: ET.Element, length_m: float, where: str) -> tuple[SectionRecord, ...]:
    nodes = road.findall("lanes/laneSection")
    if not nodes:
        raise BadMap(f"{where} lanes", "no laneSection", "at least one laneSection")
    starts = [_number(node, "s", f"{where} laneSection {i}") for i, node in enumerate(nodes)]
    for i, (before, after) in enumerate(zip([-math.inf, *starts], starts, strict=False)):
        if after <= before or after >= length_m:
            raise BadMap(f"{where} laneSection {i} s", after, f"more than {before} and less than the road's {length_m}")
    ends = [*starts[1:], length_m]
    return tuple(
        SectionRecord(s, end, read_lanes(node, s, f"{where} laneSection {i}"))
        for i, (node, s, end) in enumerate(zip(nodes, starts, ends, strict=True))
    )


def read_lanes(section: ET.Element, s_m: float, where: str) -> dict[int, LaneRecord]:
    lanes: dict[int, LaneRecord] = {}
    for node in (*section.findall("left/lane"), *section.findall("center/lane"), *section.findall("right/lane")):
        lane = read_lane(node, s_m, where)
        if lane.id in lanes:
            raise BadMap(f"{where} lane {lane.id}", "a second lane of this id", "every id once")
        lanes[lane.id] = lane
    for lane_id in lanes:
        inner = lane_id - (lane_id > 0) + (lane_id < 0)
        if inner and inner not in lanes:
            raise BadMap(f"{where} lane {lane_id}", f"no lane {inner}", "lane ids without holes")
    return lanes


def read_lane(node: ET.Element, s_m: float, where: str) -> LaneRecord:
    lane_id = int(_number(node, "id", f"{where} lane"))
    where = f"{where} lane {lane_id}"
    widths = _cubics(node.findall("width"), f"{where} width", "sOffset").shifted(s_m)
    borders = _cubics(node.findall("border"), f"{where} border", "sOffset").shifted(s_m)
    if lane_id and not widths and not borders:
        raise BadMap(where, "neither width nor border", "a width or a border")
    links = {
        side: None if (link := node.find(f"link/{side}")) is None else int(_number(link, "id", f"{where} {side}"))
        for side in ("predecessor", "successor")
    }
    heights = [
        (s_m + _number(h, "sOffset", place, 0.0), _number(h, "inner", place, 0.0), _number(h, "outer", place, 0.0))
        for h in node.findall("height")
        if (place := f"{where} height")
    ]
    speeds = [
        (s_m + _number(speed, "sOffset", f"{where} speed", 0.0), _speed(speed, f"{where} speed"))
        for speed in node.findall("speed")
        if speed.get("max") not in ("no limit", "undefined")
    ]
    marks = sorted(
        (read_mark(mark, s_m, f"{where} roadMark") for mark in node.findall("roadMark")), key=lambda m: m.s_m
    )
    return LaneRecord(
        lane_id,
        node.get("type", "none"),
        widths,
        borders,
        tuple(sorted(heights)),
        tuple(marks),
        tuple(sorted(speeds)),
        links["predecessor"],
        links["successor"],
    )


def read_mark(node: ET.Element, s_m: float, where: str) -> Mark:
    dashes = next((line for line in node.findall("type/line") if _number(line, "space", where, 0.0) > 0), None)
    bold = node.get("weight") == "bold"
    kind = node.get("type", "none")
    return Mark(
        s_m + _number(node, "sOffset", where, 0.0),
        kind,
        node.get("color", "standard"),
        0.0 if kind == "none" else _number(node, "width", where, 0.25 if bold else 0.15),
        node.get("laneChange", "both"),
        *(() if dashes is None else (_number(dashes, "length", where), _number(dashes, "space", where))),
    )


def read_link(node: ET.Element | None, where: str) -> Link | None:
    if node is None:
        return None
    kind, contact = node.get("elementType", "road"), node.get("contactPoint", "")
    if kind not in ("road", "junction"):
        raise BadMap(f"{where} elementType", kind, "road or junction")
    if kind == "road" and contact not in ("start", "end"):
        raise BadMap(f"{where} contactPoint", contact, "start or end")
    return Link(kind, _text(node, "elementId", where), contact)


def read_signal(node: ET.Element, where: str) -> SignalRecord:
    where = f"{where} {node.tag} {node.get('id')}"
    value = node.get("value")
    return SignalRecord(
        id=_text(node, "id", where),
        s_m=_number(node, "s", where),
        t_m=_number(node, "t", where),
        z_offset_m=_number(node, "zOffset", where, 0.0),
        heading_offset_rad=_number(node, "hOffset", where, 0.0),
        orientation=node.get("orientation", "none"),
        dynamic=node.get("dynamic", "no") == "yes",
        type=node.get("type", ""),
        subtype=node.get("subtype", ""),
        name=node.get("name", ""),
        value=None if value in (None, "", "-1") else _number(node, "value", where),
        unit=node.get("unit", "km/h"),
        lanes=tuple(
            (int(_number(v, "fromLane", where)), int(_number(v, "toLane", where))) for v in node.findall("validity")
        ),
        refers=node.tag == "signalReference",
    )


def read_object(node: ET.Element, where: str) -> ObjectRecord:
    where = f"{where} object {node.get('id')}"
    outline = node.find("outline") if node.find("outline") is not None else node.find("outlines/outline")
    corners = [] if outline is None else [c for c in outline if c.tag in ("cornerLocal", "cornerRoad")]
    local = not corners or corners[0].tag == "cornerLocal"
    keys = ("u", "v", "z") if local else ("s", "t", "dz")
    radius = _number(node, "radius", where, 0.0)
    return ObjectRecord(
        id=node.get("id", ""),
        type=node.get("type", "none"),
        name=node.get("name", ""),
        s_m=_number(node, "s", where),
        t_m=_number(node, "t", where),
        z_offset_m=_number(node, "zOffset", where, 0.0),
        heading_rad=_number(node, "hdg", where, 0.0),
        length_m=_number(node, "length", where, 2 * radius),
        width_m=_number(node, "width", where, 2 * radius),
        height_m=_number(node, "height", where, 0.0),
        outline=tuple(tuple(_number(c, key, where, 0.0) for key in keys) for c in corners),  # type: ignore[misc]
        outline_is_local=local,
    )


def read_junction(node: ET.Element) -> JunctionRecord:
    junction_id = _text(node, "id", "junction")
    connections = []
    for connection in node.findall("connection"):
        where = f"junction {junction_id} connection {connection.get('id')}"
        contact = connection.get("contactPoint", "start")
        if contact not in ("start", "end"):
            raise BadMap(f"{where} contactPoint", contact, "start or end")
        lanes = tuple(
            (int(_number(link, "from", where)), int(_number(link, "to", where)))
            for link in connection.findall("laneLink")
        )
        incoming, connecting = (_text(connection, key, where) for key in ("incomingRoad", "connectingRoad"))
        connections.append(Connection(incoming, connecting, contact, lanes))
    controllers = tuple(c.get("id", "") for c in node.findall("controller"))
    return JunctionRecord(junction_id, tuple(connections), controllers)


def check_links(opened: OpenDrive) -> None:
    """Every road, junction and lane that is pointed at must be there."""
    known = {"road": opened.roads.keys(), "junction": opened.junctions.keys()}
    for road in opened.roads.values():
        if road.junction and road.junction not in opened.junctions:
            raise BadMap(f"road {road.id} junction", road.junction, "the id of a junction in this file")
        for side, link in (("predecessor", road.predecessor), ("successor", road.successor)):
            if link and link.id not in known[link.kind]:
                raise BadMap(f"road {road.id} {side}", link.id, f"the id of a {link.kind} in this file")
    for junction in opened.junctions.values():
        for i, connection in enumerate(junction.connections):
            where = f"junction {junction.id} connection {i}"
            for key, road_id in (("incomingRoad", connection.incoming), ("connectingRoad", connection.connecting)):
                if road_id not in opened.roads:
                    raise BadMap(f"{where} {key}", road_id, "the id of a road in this file")
            sections = opened.roads[connection.connecting].sections
            lanes = sections[0 if connection.contact == "start" else -1].lanes
            for _, lane_id in connection.lanes:
                if lane_id not in lanes:
                    raise BadMap(f"{where} laneLink to", lane_id, f"a lane of road {connection.connecting}")


def _text(node: ET.Element, key: str, where: str) -> str:
    value = node.get(key)
    if not value:
        raise BadMap(f"{where} {key}", value, "a value")
    return value


def _number(node: ET.Element, key: str, where: str, default: float | None = None) -> float:
    text = node.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        raise BadMap(f"{where} {key}", text, "a number") from None
    if not math.isfinite(value):
        raise BadMap(f"{where} {key}", text, "a finite number")
    return value


def _cubics(nodes: Sequence[ET.Element], where: str, start: str = "s") -> Cubics:
    return Cubics.of(
        (_number(node, start, where), *(_number(node, key, where, 0.0) for key in "abcd"))  # type: ignore[misc]
        for node in nodes
    )


def _speed(node: ET.Element, where: str) -> float:
    unit = node.get("unit") or "m/s"
    if unit not in SPEED_MPS:
        raise BadMap(f"{where} unit", unit, f"one of {', '.join(SPEED_MPS)}")
    return _number(node, "max", where) * SPEED_MPS[unit]
