"""What the official client says of a map, beside what we say."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Agreement:
    compared: int = 0
    same_lane: int = 0
    off_m: list[float] = field(default_factory=list)  # of the point on the same lane at the same s
    off_deg: list[float] = field(default_factory=list)
    off_s_m: list[float] = field(default_factory=list)  # of s, where a point was looked up
    off_width_m: list[float] = field(default_factory=list)
    marks: int = 0  # that differ
    lane_change: int = 0
    junction: int = 0
    lane_type: int = 0


def key_of(waypoint):
    return str(waypoint.road_id), waypoint.section_id, waypoint.lane_id


def angle_deg(a, b):
    return abs((a - b + 180) % 360 - 180)


def exact(roads, key, s_m):
    """Where our own reading puts the middle of a lane at s: x, y, z and heading in degrees."""
    from drivetrain.sim.road.lanes import Ground, edges_of

    road = roads.opened.roads[key[0]]
    s = np.array([s_m])
    edges = edges_of(road, road.sections[key[1]], s)
    inner = key[2] - 1 if key[2] > 0 else key[2] + 1
    t, slope = (sum(edges[i][j] for i in (inner, key[2])) / 2 for j in (0, 1))
    ground = Ground(road, s)
    heading = math.degrees(ground.headings(t, slope)[0]) + (0 if roads.at[key].runs_with_s else 180)
    return ground.points(t)[0], heading


def compare_waypoint(agreement, roads, waypoint):
    lane = roads.at[key_of(waypoint)]
    place = waypoint.transform.location
    point, heading = exact(roads, lane.key, waypoint.s)
    agreement.compared += 1
    agreement.off_m.append(float(np.linalg.norm(point - (place.x, place.y, place.z))))
    agreement.off_deg.append(angle_deg(heading, waypoint.transform.rotation.yaw))
    order = np.argsort(lane.s_m)
    width = np.interp(waypoint.s, lane.s_m[order], lane.width_m[order])
    agreement.off_width_m.append(abs(float(width) - waypoint.lane_width))
    left, right = lane.marks_at(waypoint.s)
    theirs = (waypoint.left_lane_marking, waypoint.right_lane_marking)
    agreement.marks += [name_of(m) for m in (left, right)] != ["NONE" if m is None else str(m.type) for m in theirs]
    change = {(False, False): "NONE", (False, True): "Right", (True, False): "Left", (True, True): "Both"}
    agreement.lane_change += change[lane.lane_change_at(waypoint.s)] != str(waypoint.lane_change)
    agreement.junction += bool(lane.junction) != waypoint.is_junction
    agreement.lane_type += lane.type.lower() != str(waypoint.lane_type).lower()


def name_of(mark):
    names = {"none": "NONE", "solid": "Solid", "broken": "Broken"}
    return names.get(mark.type) or "".join(word.capitalize() for word in mark.type.split())


def compare_lookup(agreement, roads, carla_map, points, heights_m, carla):
    found = roads.nearest_lanes(points, z_m=heights_m)
    off = []
    for i, (x, y) in enumerate(points):
        waypoint = carla_map.get_waypoint(carla.Location(float(x), float(y), float(heights_m[i])))
        lane = roads.lanes[int(found.lane[i])]
        agreement.compared += 1
        if key_of(waypoint) != lane.key:
            off.append((lane.key, key_of(waypoint), abs(float(found.lateral_m[i]))))
            continue
        agreement.same_lane += 1
        place = waypoint.transform.location
        agreement.off_m.append(math.hypot(place.x - found.x_m[i], place.y - found.y_m[i]))
        agreement.off_s_m.append(abs(waypoint.s - float(found.s_m[i])))
    return off
