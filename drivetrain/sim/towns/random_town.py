"""Towns without end: a net of streets drawn from a seed, bent and thinned out, with hills, avenues and roundabouts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from drivetrain.sim.towns.drafting import Draft
from drivetrain.sim.towns.plans import AVENUE, LANE, SUBURB
from drivetrain.sim.towns.streets import Corner, Street, build

BLOCK_M = 110.0
JUNCTIONS = 4  # no town has fewer
Node = tuple[int, int]
Edge = tuple[Node, Node]


def random_town(seed: int) -> Draft:
    draw = random.Random(f"town {seed}")
    columns, rows = draw.randint(3, 5), draw.randint(3, 4)
    nodes = [(i, j) for i in range(columns) for j in range(rows)]
    edges = thin(draw, nodes, neighbours(nodes), share=draw.uniform(0.1, 0.3))
    hills = draw.uniform(0.0, 5.0) if draw.random() < 0.5 else 0.0
    phase = (draw.uniform(0, 2 * math.pi), draw.uniform(0, 2 * math.pi))
    meeting = [node for node in nodes if degree(edges, node) >= 3]
    ringed = draw.choice(meeting) if meeting and draw.random() < 0.6 else None
    corners = {}
    for i, j in nodes:
        x, y = BLOCK_M * i + draw.uniform(-14, 14), BLOCK_M * j + draw.uniform(-14, 14)
        z = round(hills * (math.sin(x / 120 + phase[0]) + math.sin(y / 140 + phase[1])), 3)
        control = "roundabout" if (i, j) == ringed else draw.choice(["lights", "lights", "stop", "yield"])
        corners[f"{i},{j}"] = Corner(round(x, 3), round(y, 3), z, control)
    avenue = draw.randrange(rows) if draw.random() < 0.7 else None
    if ringed is not None and avenue == ringed[1]:
        avenue = None
    profile = draw.choice([LANE, SUBURB])
    streets = []
    for (a, b), (c, d) in edges:
        wide = avenue is not None and b == d == avenue
        bends = (0.0, 0.0) if wide else (draw.uniform(-0.2, 0.2), draw.uniform(-0.2, 0.2))
        streets.append(Street(f"{a},{b}", f"{c},{d}", AVENUE if wide else profile, *bends))
    draft = Draft(f"Random-{seed}")
    build(draft, even(corners, streets), streets)
    return draft


def even(corners: Mapping[str, Corner], streets: list[Street]) -> dict[str, Corner]:
    """A bend joins streets of one profile: where two differ, one gets a junction's size by having the wider one's."""
    for name in corners:
        at = [i for i, street in enumerate(streets) if name in (street.start, street.end)]
        if len(at) == 2 and streets[at[0]].profile != streets[at[1]].profile:
            for i in at:
                old = streets[i]
                streets[i] = Street(old.start, old.end, LANE, old.start_bend_rad, old.end_bend_rad, old.via)
            return even(corners, streets)
    return dict(corners)


def neighbours(nodes: list[Node]) -> list[Edge]:
    beside = [((i, j), other) for i, j in nodes for other in ((i + 1, j), (i, j + 1))]
    return [edge for edge in beside if edge[1] in nodes]


def thin(draw: random.Random, nodes: list[Node], edges: list[Edge], share: float) -> list[Edge]:
    """Take some streets away, but no corner's last two, and none without which the town falls apart."""
    kept = list(edges)
    for edge in draw.sample(edges, k=len(edges)):
        if len(kept) <= (1 - share) * len(edges):
            break
        without = [e for e in kept if e != edge]
        junctions = sum(degree(without, node) >= 3 for node in nodes)
        if junctions >= JUNCTIONS and all(degree(without, node) >= 2 for node in edge) and is_whole(nodes, without):
            kept = without
    return kept


def degree(edges: list[Edge], node: Node) -> int:
    return sum(node in edge for edge in edges)


def is_whole(nodes: list[Node], edges: list[Edge]) -> bool:
    seen, todo = {nodes[0]}, [nodes[0]]
    while todo:
        here = todo.pop()
        for edge in edges:
            if here in edge:
                other = edge[0] if edge[1] == here else edge[1]
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
    return len(seen) == len(nodes)
