"""The reference line of a road, seen from above: lines, arcs, spirals and the two kinds of cubic.

OpenDRIVE's frame: x east, y north, heading counter-clockwise from x, all in metres and radians.

A spiral is integrated with Gauss-Legendre quadrature over stretches that turn little, so it is exact to micrometres
and does not lose digits where the curvature changes slowly, as a difference of two Fresnel integrals does. Along both
cubics s is the length of the curve, as CARLA's client has it, and not the polynomial's own parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivetrain.sim.road.cubics import Floats

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
TURN_RAD = 0.5  # a spiral is integrated in stretches that turn no more than this


@dataclass(frozen=True)
class Line:
    """Poses of a curve: each field is an array over the s that was asked for."""

    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    curvature_1pm: Floats


@dataclass(frozen=True)
class Geometry:
    """One element of a plan view. `factors`: nothing, curvature, two curvatures, a b c d, or aU bU cU dU aV bV cV dV."""

    kind: str  # line, arc, spiral, poly3, paramPoly3
    s_m: float
    x_m: float
    y_m: float
    heading_rad: float
    length_m: float
    factors: tuple[float, ...] = ()
    normalized: bool = False  # paramPoly3: the parameter runs over 0..1, not over 0..length

    def at(self, s_m: Floats) -> Line:
        u, v, turn, curvature = LOCAL[self.kind](self, np.clip(s_m - self.s_m, 0.0, self.length_m))
        cos, sin = np.cos(self.heading_rad), np.sin(self.heading_rad)
        return Line(self.x_m + u * cos - v * sin, self.y_m + u * sin + v * cos, self.heading_rad + turn, curvature)

    def sharpest_1pm(self) -> float:
        """The largest curvature, near enough to choose how densely to sample."""
        return float(np.abs(self.at(self.s_m + np.linspace(0.0, self.length_m, 17)).curvature_1pm).max())


Four = tuple[float, ...]  # a b c d
Local = tuple[Floats, Floats, Floats, Floats]  # along, across, turn, curvature, from the start of the element


def line(_: Geometry, ds_m: Floats) -> Local:
    zero = np.zeros_like(ds_m)
    return ds_m, zero, zero, zero


def arc(geometry: Geometry, ds_m: Floats) -> Local:
    (curvature,) = geometry.factors
    turn = curvature * ds_m
    half = np.sinc(turn / 2 / np.pi) * ds_m  # the chord; exact also where the curvature is nothing
    return half * np.cos(turn / 2), half * np.sin(turn / 2), turn, np.full_like(ds_m, curvature)


def spiral(geometry: Geometry, ds_m: Floats) -> Local:
    first, last = geometry.factors
    rate = (last - first) / geometry.length_m
    u, v = clothoid(first, rate, ds_m)
    return u, v, ds_m * (first + rate * ds_m / 2), first + rate * ds_m


def clothoid(curvature_1pm: float, rate_1pm2: float, ds_m: Floats) -> tuple[Floats, Floats]:
    """Where one is after ds along a curve whose curvature grows evenly, having started at the origin along x."""
    longest = float(ds_m.max(initial=0.0))
    most = max(abs(curvature_1pm), abs(curvature_1pm + rate_1pm2 * longest)) * longest
    pieces = int(most / TURN_RAD) + 1
    edges = ds_m[..., None] * np.linspace(0.0, 1.0, pieces + 1)  # [..., pieces + 1]
    half = (edges[..., 1:] - edges[..., :-1]) / 2
    at = edges[..., :-1, None] + half[..., None] * (1 + NODES)  # [..., pieces, nodes]
    angle = at * (curvature_1pm + rate_1pm2 * at / 2)
    return (
        (half * (np.cos(angle) @ WEIGHTS)).sum(-1),
        (half * (np.sin(angle) @ WEIGHTS)).sum(-1),
    )


def poly3(geometry: Geometry, ds_m: Floats) -> Local:
    return along_cubics(geometry, ds_m, (0.0, 1.0, 0.0, 0.0), geometry.factors, geometry.length_m)


def param_poly3(geometry: Geometry, ds_m: Floats) -> Local:
    end = 1.0 if geometry.normalized else geometry.length_m
    return along_cubics(geometry, ds_m, geometry.factors[:4], geometry.factors[4:], end)


def along_cubics(geometry: Geometry, ds_m: Floats, of_u: Four, of_v: Four, end: float) -> Local:
    """The curve (u(p), v(p)) at so many metres along it: its length is integrated, and turned around by Newton."""
    table = np.linspace(0.0, end, 2 + int(geometry.length_m))

    def length(low: Floats, high: Floats) -> Floats:
        half = (high - low) / 2
        p = low[..., None] + half[..., None] * (1 + NODES)
        return half * (np.hypot(cubic(of_u, p)[1], cubic(of_v, p)[1]) @ WEIGHTS)

    lengths = np.concatenate([[0.0], np.cumsum(length(table[:-1], table[1:]))])
    before = np.clip(np.searchsorted(lengths, ds_m, side="right") - 1, 0, len(table) - 2)
    step = np.maximum(np.diff(lengths), 1e-12)[before]
    p = table[before] + (ds_m - lengths[before]) / step * (table[1] - table[0])
    for _ in range(3):
        speed = np.maximum(np.hypot(cubic(of_u, p)[1], cubic(of_v, p)[1]), 1e-9)
        p = p + (ds_m - lengths[before] - length(table[before], p)) / speed
    (u, du, ddu), (v, dv, ddv) = cubic(of_u, p), cubic(of_v, p)
    speed = np.maximum(np.hypot(du, dv), 1e-12)
    return u, v, np.arctan2(dv, du), (du * ddv - dv * ddu) / speed**3


def cubic(factors: Four, p: Floats) -> tuple[Floats, Floats, Floats]:
    a, b, c, d = factors
    return a + p * (b + p * (c + p * d)), b + p * (2 * c + p * 3 * d), 2 * c + p * 6 * d


LOCAL = {"line": line, "arc": arc, "spiral": spiral, "poly3": poly3, "paramPoly3": param_poly3}


@dataclass(frozen=True)
class PlanView:
    pieces: tuple[Geometry, ...]  # ascending in s

    def at(self, s_m: Floats) -> Line:
        starts = np.array([piece.s_m for piece in self.pieces])
        which = np.clip(np.searchsorted(starts, s_m, side="right") - 1, 0, None)
        out = np.empty((4, *s_m.shape))
        for i in np.unique(which):
            here = which == i
            found = self.pieces[i].at(s_m[here])
            out[:, here] = found.x_m, found.y_m, found.heading_rad, found.curvature_1pm
        return Line(*out)
