"""The plans of the towns: where their corners are and what runs between them."""

from __future__ import annotations

import math
from itertools import pairwise

from drivetrain.sim.towns.drafting import Draft, Profile
from drivetrain.sim.towns.streets import Corner, Street, build

LANE = Profile(sidewalk_m=2.0, speed_kmh=40)
AVENUE = Profile(left=2, right=2, sidewalk_m=3.0, speed_kmh=50, centre="solid solid")
SUBURB = Profile(sidewalk_m=2.0, speed_kmh=50, centre="solid")
COUNTRY = Profile(lane_m=3.5, shoulder_m=0.75, speed_kmh=80)


def grid() -> Draft:
    """Four by four streets, less a few: an avenue through the middle, X and T junctions with lights, corners that bend."""
    draft = Draft("grid")
    xs, ys = (0.0, 95.0, 200.0, 290.0), (0.0, 85.0, 180.0, 265.0)
    missing = {("c1r1", "c2r1"), ("c2r0", "c2r1")}
    corners = {
        f"c{i}r{j}": Corner(x, y, control="stop" if (i, j) in ((0, 1), (3, 2)) else "lights")
        for i, x in enumerate(xs)
        for j, y in enumerate(ys)
    }
    streets = []
    for i in range(4):
        for j in range(4):
            for i2, j2 in ((i + 1, j), (i, j + 1)):
                ends = (f"c{i}r{j}", f"c{i2}r{j2}")
                if i2 < 4 and j2 < 4 and ends not in missing:
                    streets.append(Street(*ends, AVENUE if j == j2 == 2 else LANE))
    build(draft, corners, streets)
    return draft


def roundabout() -> Draft:
    """A roundabout in the middle of four streets, and a ring of streets around it."""
    draft = Draft("roundabout")
    corners = {"middle": Corner(0.0, 0.0, control="roundabout")}
    sides = {"east": (150.0, 0.0), "north": (0.0, 140.0), "west": (-140.0, 10.0), "south": (-5.0, -150.0)}
    corners |= {name: Corner(x, y, control="stop") for name, (x, y) in sides.items()}
    ends = {
        "north_east": (140.0, 130.0),
        "north_west": (-130.0, 140.0),
        "south_west": (-140.0, -140.0),
        "south_east": (130.0, -145.0),
    }
    corners |= {name: Corner(x, y) for name, (x, y) in ends.items()}
    streets = [Street("middle", name, SUBURB, 0.0, 0.15) for name in sides]
    loop = ["east", "north_east", "north", "north_west", "west", "south_west", "south", "south_east", "east"]
    streets += [Street(a, b, SUBURB) for a, b in pairwise(loop)]
    build(draft, corners, streets)
    return draft


def rural() -> Draft:
    """A country road around the hills, and another across them."""
    draft = Draft("rural")
    points = []
    for i in range(14):
        angle = 2 * math.pi * i / 14
        far = 300.0 + 60.0 * math.sin(3 * angle) + 35.0 * math.cos(5 * angle + 1.0)
        height = 12.0 + 10.0 * math.sin(2 * angle + 0.5) + 4.0 * math.sin(5 * angle)
        points.append((1.3 * far * math.cos(angle), far * math.sin(angle), height))
    corners = {"east": Corner(*points[0], "stop"), "west": Corner(*points[7], "yield")}
    into_east = math.atan2(points[1][1] - points[13][1], points[1][0] - points[13][0])
    into_west = math.atan2(points[8][1] - points[6][1], points[8][0] - points[6][0])
    north = bent("east", "west", tuple(points[1:7]), corners, into_east, into_west)
    south = bent("west", "east", tuple(points[8:14]), corners, into_west, into_east)
    over = ((250.0, 40.0, 20.0), (110.0, -50.0, 27.0), (-40.0, 45.0, 24.0), (-190.0, -35.0, 19.0), (-290.0, 20.0, 14.0))
    across = bent("east", "west", over, corners, into_east + math.pi / 2, into_west - math.pi / 2)
    build(draft, corners, [north, south, across])
    for road in draft.roads:
        if road.junction < 0:
            draft.speed_signs(road)
    return draft


def bent(
    start: str,
    end: str,
    via: tuple[tuple[float, float, float], ...],
    corners: dict[str, Corner],
    out_rad: float,
    into_rad: float,
) -> Street:
    """A street by way of `via` that leaves and arrives in the headings given."""
    plain = Street(start, end, COUNTRY, via=via)
    first, last = plain.headings(corners)
    return Street(start, end, COUNTRY, out_rad - first, into_rad - last, via)
