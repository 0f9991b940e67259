"""Which lane leads into which, in the direction of travel, and which lies beside which."""

from __future__ import annotations

from collections.abc import Iterator

from drivetrain.sim.road.lanes import Lane
from drivetrain.sim.road.opendrive import Link, OpenDrive, RoadRecord


def connect(opened: OpenDrive, lanes: list[Lane]) -> None:
    at = {lane.key: lane for lane in lanes}
    for lane in lanes:
        for key in onward(opened, lane):
            if (found := at.get(key)) is not None and found.index not in lane.successors:
                lane.successors.append(found.index)
                found.predecessors.append(lane.index)
        outward, inward = (at.get((lane.road, lane.section, next_id(lane.id, way))) for way in (1, -1))
        outer_is_right = lane.is_right_of_centre == lane.runs_with_s
        left, right = (inward, outward) if outer_is_right else (outward, inward)
        lane.left_lane = left.index if left else None
        lane.right_lane = right.index if right else None


def next_id(lane_id: int, outward: int) -> int:
    """The lane beside this one, away from the centre or towards it; over the centre the ids skip 0."""
    side = 1 if lane_id > 0 else -1
    return lane_id + side * outward or -side


def onward(opened: OpenDrive, lane: Lane) -> Iterator[tuple[str, int, int]]:
    """Where one comes to at the end of a lane: road, section, lane id."""
    road = opened.roads[lane.road]
    record = road.sections[lane.section].lanes[lane.id]
    linked = record.successor if lane.runs_with_s else record.predecessor
    section = lane.section + (1 if lane.runs_with_s else -1)
    if 0 <= section < len(road.sections):
        if linked is not None:
            yield road.id, section, linked
        return
    link = road.successor if lane.runs_with_s else road.predecessor
    if link is None:
        return
    if link.kind == "road":
        if linked is not None:
            yield link.id, end_section(opened.roads[link.id], link.contact), linked
        return
    yield from through(opened, lane, link)


def through(opened: OpenDrive, lane: Lane, link: Link) -> Iterator[tuple[str, int, int]]:
    for connection in opened.junctions[link.id].connections:
        if connection.incoming != lane.road:
            continue
        connecting = opened.roads[connection.connecting]
        if not meets(connecting, connection.contact, lane):
            continue
        section = end_section(connecting, connection.contact)
        pairs = connection.lanes or ((lane.id, -1 if connection.contact == "start" else 1),)
        for from_id, to_id in pairs:
            if from_id == lane.id:
                yield connecting.id, section, to_id


def meets(connecting: RoadRecord, contact: str, lane: Lane) -> bool:
    """Whether that end of the connecting road meets the end that this lane leaves by, where the file says so.

    A road can enter one junction with both of its ends.
    """
    link = connecting.predecessor if contact == "start" else connecting.successor
    if link is None or link.id != lane.road:
        return True
    return link.contact == ("end" if lane.runs_with_s else "start")


def end_section(road: RoadRecord, contact: str) -> int:
    return 0 if contact == "start" else len(road.sections) - 1
