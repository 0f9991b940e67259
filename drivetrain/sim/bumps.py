"""Who bumps into whom in this tick: the world's vehicles, walkers and props, handed to `collisions.py` as boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from drivetrain.sim import collisions
from drivetrain.sim.actors import Actor, Kind, Registry
from drivetrain.sim.geometry import joined
from drivetrain.sim.protocol.structs import BoundingBox, Transform, Vector3D
from drivetrain.sim.rooted import Rooted
from drivetrain.sim.vehicle import Fleet

WALKER_KG = 75.0
INSIDE_OUT_M = -1e9  # half a side of a box that meets nobody


def where(actor: Actor, fleet: Fleet) -> Transform:
    if actor.kind is Kind.VEHICLE and actor.alive:
        return fleet.transform(fleet.slot(actor.id))
    return actor.transform


def solid_boxes(
    registry: Registry, fleet: Fleet, rooted: Rooted, newcomer: tuple[BoundingBox, Transform] | None = None
) -> tuple[collisions.Boxes, list[Actor]]:
    """Everyone solid, movers first: vehicles, walkers, props, and what stands rooted near any of them. A newcomer comes
    before all, and is in no list."""
    f = fleet.f
    rest = [actor for actor in registry.live.values() if actor.solid and actor.kind is not Kind.VEHICLE]
    rest.sort(key=lambda actor: (actor.kind, actor.id))
    standing = np.array([upright(actor.box, actor.transform) for actor in rest]).reshape(-1, 7).T
    sizes = [f["half_length"], f["half_width"], f["half_height"]]
    moving = np.array([f["x"], f["y"], f["z"] + f["half_height"], f["yaw"], *sizes])
    moving[4:, ~f["solid"]] = INSIDE_OUT_M
    first = np.zeros((7, 0)) if newcomer is None else np.array([upright(*newcomer)]).T
    walkers = sum(actor.kind is Kind.WALKER for actor in rest)
    movers = first if newcomer is not None else np.hstack([moving, standing[:, :walkers]])
    close = rooted.around(movers[0], movers[1], np.hypot(movers[4], movers[5]))
    everyone = [registry.live[actor] for actor in fleet.ids] + rest + [rooted.actors[i] for i in close]
    return collisions.Boxes(*np.hstack([first, moving, standing, rooted.rows[close].T])), everyone


def upright(box: BoundingBox, transform: Transform) -> tuple[float, ...]:
    at = joined(transform, Transform(box.location)).location
    return (at.x, at.y, at.z, math.radians(transform.rotation.yaw), box.extent.x, box.extent.y, box.extent.z)


def bump(registry: Registry, fleet: Fleet, rooted: Rooted) -> list[tuple[Actor, Actor, Vector3D]]:
    """Pushes apart all who overlap; says who met whom, with the impulse that the second gave the first."""
    movers = len(fleet) + sum(1 for actor in registry.of(Kind.WALKER) if actor.solid)
    if not movers:
        return []
    boxes, everyone = solid_boxes(registry, fleet, rooted)
    found = []
    for i, j in collisions.near(boxes, movers):
        met = collisions.contact(boxes, i, j)
        if met is None:
            continue
        ours, theirs = everyone[i], everyone[j]
        first, second = body(ours, fleet), body(theirs, fleet)
        impulse = collisions.bounce(first, second, met)
        push(ours, fleet, first, met.normal, -met.depth_m * share(first, second))
        push(theirs, fleet, second, met.normal, met.depth_m * share(second, first))
        if impulse > 0:
            given = Vector3D(-impulse * met.normal[0], -impulse * met.normal[1], 0.0)
            found += [(ours, theirs, given), (theirs, ours, Vector3D(-given.x, -given.y, 0.0))]
    return found


def body(actor: Actor, fleet: Fleet) -> collisions.Body:
    at = where(actor, fleet).location
    if actor.kind is not Kind.VEHICLE:
        give = 1 / WALKER_KG if actor.kind is Kind.WALKER else 0.0
        return collisions.Body(at.x, at.y, actor.velocity.x, actor.velocity.y, 0.0, give, 0.0)
    slot, f = fleet.slot(actor.id), fleet.f
    vx, vy, _ = (float(v) for v in fleet.velocity()[slot])
    free = float(fleet.f["physics"][slot])
    return collisions.Body(
        at.x, at.y, vx, vy, float(f["w"][slot]), float(free / f["mass"][slot]), float(free / f["inertia"][slot])
    )


def push(actor: Actor, fleet: Fleet, moved: collisions.Body, normal: tuple[float, float], by_m: float) -> None:
    if actor.kind is Kind.VEHICLE:
        slot, f = fleet.slot(actor.id), fleet.f
        f["x"][slot] += by_m * normal[0]
        f["y"][slot] += by_m * normal[1]
        f["w"][slot] = moved.spin
        fleet.set_velocity(slot, moved.vx, moved.vy, float(f["vz"][slot]))
    elif actor.kind is Kind.WALKER:
        at = actor.transform.location
        aside = Vector3D(at.x + by_m * normal[0], at.y + by_m * normal[1], at.z)
        actor.transform = replace(actor.transform, location=aside)


def share(first: collisions.Body, second: collisions.Body) -> float:
    """Of the way apart that the first goes."""
    total = first.inverse_mass + second.inverse_mass
    return first.inverse_mass / total if total else 0.0
