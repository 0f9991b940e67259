"""A draft, written down as OpenDRIVE 1.4, which is what CARLA's client reads.

The package `scenariogeneration` writes OpenDRIVE too. It places roads by following links, where a town needs roads at
places; and its junctions hold spirals between two all but equal curvatures, of which the client makes not-a-number.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from drivetrain.sim.road.opendrive import FACTORS
from drivetrain.sim.road.planview import Geometry
from drivetrain.sim.towns.drafting import Crossing, Draft, Junction, LaneDraft, Road, Sign

GEO = "+proj=tmerc +lat_0=48.9986 +lon_0=8.0017 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +vunits=m +no_defs"
LIGHT_HEIGHT_M, SIGN_HEIGHT_M = 5.0, 2.2


def write(draft: Draft) -> str:
    root = ET.Element("OpenDRIVE")
    header = put(root, "header", revMajor=1, revMinor=4, name=draft.name, version=1, date="2026-01-01T00:00:00")
    for side, value in extent(draft).items():
        header.set(side, value)
    ET.SubElement(header, "geoReference").text = GEO
    for road in draft.roads:
        write_road(root, road)
    for controller, signs in draft.controllers.items():
        node = put(root, "controller", id=controller, name=f"ctrl{controller}", sequence=0)
        for sign in signs:
            put(node, "control", signalId=sign, type=0)
    for junction in draft.junctions:
        write_junction(root, junction)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def put(parent: ET.Element, tag: str, **values: object) -> ET.Element:
    return ET.SubElement(parent, tag, {key: text(value) for key, value in values.items()})


def text(value: object) -> str:
    return repr(round(value, 12) + 0.0) if isinstance(value, float) else str(value)


def extent(draft: Draft) -> dict[str, str]:
    xs = [piece.x_m for road in draft.roads for piece in road.pieces]
    ys = [piece.y_m for road in draft.roads for piece in road.pieces]
    return {"north": text(max(ys)), "south": text(min(ys)), "east": text(max(xs)), "west": text(min(xs))}


def write_road(root: ET.Element, road: Road) -> None:
    node = put(
        root, "road", name=f"Road {road.id}", length=road.length_m, id=road.id, junction=road.junction, rule="RHT"
    )
    link = put(node, "link")
    for side, target in (("predecessor", road.predecessor), ("successor", road.successor)):
        if target:
            kind, target_id, contact = target
            put(link, side, elementType=kind, elementId=target_id, **({"contactPoint": contact} if contact else {}))
    zone = put(node, "type", s=0.0, type="motorway" if road.profile.speed_kmh > 80 else "town")
    put(zone, "speed", max=road.profile.speed_kmh, unit="km/h")
    plan = put(node, "planView")
    for piece in road.pieces:
        write_geometry(plan, piece)
    profile = put(node, "elevationProfile")
    for s, a, b, c, d in road.heights:
        put(profile, "elevation", s=s, a=a, b=b, c=c, d=d)
    put(node, "lateralProfile")
    lanes = put(node, "lanes")
    put(lanes, "laneOffset", s=0.0, a=0.0, b=0.0, c=0.0, d=0.0)
    section = put(lanes, "laneSection", s=0.0)
    for name, ids in (("left", sorted(i for i in road.lanes if i > 0)[::-1]), ("center", [0]), ("right", below(road))):
        if ids:
            side_node = put(section, name)
            for lane_id in ids:
                write_lane(side_node, lane_id, road.lanes[lane_id], road.length_m)
    objects = put(node, "objects")
    for crossing in road.crossings:
        write_crossing(objects, crossing)
    signals = put(node, "signals")
    for sign in road.signs:
        write_sign(signals, sign)


def below(road: Road) -> list[int]:
    return sorted((i for i in road.lanes if i < 0), reverse=True)


def write_geometry(plan: ET.Element, piece: Geometry) -> None:
    node = put(plan, "geometry", s=piece.s_m, x=piece.x_m, y=piece.y_m, hdg=piece.heading_rad, length=piece.length_m)
    shape = put(node, piece.kind, **dict(zip(FACTORS[piece.kind], piece.factors, strict=True)))
    if piece.kind == "paramPoly3":
        shape.set("pRange", "normalized" if piece.normalized else "arcLength")


def write_lane(parent: ET.Element, lane_id: int, lane: LaneDraft, length_m: float) -> None:
    node = put(parent, "lane", id=lane_id, type=lane.type, level="false")
    link = put(node, "link")
    for side, target in (("predecessor", lane.predecessor), ("successor", lane.successor)):
        if target is not None:
            put(link, side, id=target)
    if lane_id:
        grows = (lane.width_m if lane.last_width_m is None else lane.last_width_m) - lane.width_m
        put(node, "width", sOffset=0.0, a=lane.width_m, b=0.0, c=3 * grows / length_m**2, d=-2 * grows / length_m**3)
    mark = {"type": lane.mark, "weight": "standard", "color": lane.color, "material": "standard", "width": 0.15}
    put(node, "roadMark", sOffset=0.0, **mark, laneChange=lane.lane_change)
    if lane.height_m:
        put(node, "height", sOffset=0.0, inner=lane.height_m, outer=lane.height_m)


def write_crossing(parent: ET.Element, crossing: Crossing) -> None:
    half, deep = crossing.across_m / 2, crossing.deep_m / 2
    place = {"s": crossing.s_m, "t": 0.0, "zOffset": 0.0, "hdg": 0.0, "pitch": 0.0, "roll": 0.0}
    node = put(parent, "object", id=crossing.id, name="SimpleCrosswalk", type="crosswalk", orientation="none", **place)
    node.set("length", text(crossing.deep_m))
    node.set("width", text(crossing.across_m))
    outline = put(node, "outline")
    for u, v in ((-deep, half), (deep, half), (deep, -half), (-deep, -half), (-deep, half)):
        put(outline, "cornerLocal", u=u, v=v, z=0.0)


def write_sign(parent: ET.Element, sign: Sign) -> None:
    node = put(
        parent,
        "signal",
        name=sign.name,
        id=sign.id,
        s=sign.s_m,
        t=sign.t_m,
        zOffset=LIGHT_HEIGHT_M if sign.dynamic else SIGN_HEIGHT_M,
        hOffset=0.0,
        roll=0.0,
        pitch=0.0,
        orientation=sign.orientation,
        dynamic="yes" if sign.dynamic else "no",
        country="OpenDRIVE",
        type=sign.type,
        subtype=-1,
        value=sign.value,
        unit="km/h",
        text="",
        height=0.8,
        width=0.5,
    )
    put(node, "validity", fromLane=sign.lanes[0], toLane=sign.lanes[1])


def write_junction(root: ET.Element, junction: Junction) -> None:
    node = put(root, "junction", id=junction.id, name=f"junction{junction.id}")
    for i, (incoming, connecting, lanes) in enumerate(junction.connections):
        connection = put(
            node, "connection", id=i, incomingRoad=incoming, connectingRoad=connecting, contactPoint="start"
        )
        for from_id, to_id in lanes:
            put(connection, "laneLink", **{"from": from_id, "to": to_id})
    for i, controller in enumerate(junction.controllers):
        put(node, "controller", id=controller, type=0, sequence=i)
