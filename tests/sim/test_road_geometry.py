import math

import numpy as np
import pytest

from drivetrain.sim.road.cubics import Cubics
from drivetrain.sim.road.planview import Geometry, PlanView

S = np.linspace(0.0, 60.0, 13)


def geometry(kind, factors=(), length=60.0, heading=0.4, **more):
    return Geometry(kind, 0.0, 3.0, -2.0, heading, length, tuple(factors), **more)


def integrated(curvature, s_m, heading=0.4, steps=200_000):
    """Where a curve leads, by adding up a great many small steps."""
    at = (np.arange(steps) + 0.5) * (s_m / steps)
    fine = np.arange(steps + 1) * (s_m / steps)
    turned = heading + np.concatenate([[0], np.cumsum((curvature(fine[1:]) + curvature(fine[:-1])) / 2)]) * s_m / steps
    angle = np.interp(at, fine, turned)
    return 3.0 + np.cos(angle).sum() * s_m / steps, -2.0 + np.sin(angle).sum() * s_m / steps, turned[-1]


def test_a_line_goes_straight():
    line = geometry("line").at(S)
    assert np.allclose(line.x_m, 3 + S * math.cos(0.4), atol=1e-12)
    assert np.allclose(line.y_m, -2 + S * math.sin(0.4), atol=1e-12)


@pytest.mark.parametrize("curvature", [0.05, -0.05, 1e-9])
def test_an_arc_is_a_circle(curvature):
    arc = geometry("arc", [curvature]).at(S)
    middle = 3 - math.sin(0.4) / curvature, -2 + math.cos(0.4) / curvature
    assert np.allclose(np.hypot(arc.x_m - middle[0], arc.y_m - middle[1]) * abs(curvature), 1.0, atol=1e-9)
    assert np.allclose(arc.heading_rad, 0.4 + curvature * S)


@pytest.mark.parametrize(
    "ends", [(0.0, 0.05), (0.05, 0.0), (-0.03, 0.06), (0.02, 0.02 + 1e-12), (-0.1, -0.4), (1e-7, 1e-7 + 1e-10)]
)
def test_a_clothoid_against_its_integral(ends):
    first, last = ends
    spiral = geometry("spiral", ends).at(S)
    for i in (1, 6, 12):
        x, y, heading = integrated(lambda s: first + (last - first) * s / 60.0, S[i])
        assert math.hypot(spiral.x_m[i] - x, spiral.y_m[i] - y) < 1e-6
        assert spiral.heading_rad[i] == pytest.approx(heading, abs=1e-9)


def test_a_clothoid_against_fresnel():
    special = pytest.importorskip("scipy.special")
    spiral = geometry("spiral", (0.0, 0.08), heading=0.0).at(S)
    scale = math.sqrt(math.pi / (0.08 / 60.0))
    sine, cosine = special.fresnel(S / scale)
    assert np.allclose(spiral.x_m, 3 + scale * cosine, atol=1e-9)
    assert np.allclose(spiral.y_m, -2 + scale * sine, atol=1e-9)


CURVE = (0.0, 60.0, 0.0, -3.0, 0.0, 0.0, 22.0, -6.0)


@pytest.mark.parametrize("normalized", [True, False])
def test_param_poly3_runs_along_its_own_length(normalized):
    stretch = np.array([1, 60, 60**2, 60**3] * 2, float)
    factors = np.array(CURVE) if normalized else np.array(CURVE) / stretch
    fine = np.linspace(0, 1, 400_001)
    u, v = (np.polyval(CURVE[i : i + 4][::-1], fine) for i in (0, 4))
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(u), np.diff(v)))])
    curve = geometry("paramPoly3", factors, length=60.0, heading=0.0, normalized=normalized).at(S)
    before_end = length[-1] > S  # the curve is 59.75 m long
    assert before_end.sum() == len(S) - 1
    assert np.allclose(curve.x_m[before_end], 3 + np.interp(S, length, u)[before_end], atol=1e-5)
    assert np.allclose(curve.y_m[before_end], -2 + np.interp(S, length, v)[before_end], atol=1e-5)


def test_poly3_runs_along_its_own_length():
    factors = (0.0, 0.1, 0.01, -0.0002)
    curve = geometry("poly3", factors, heading=0.0).at(S)
    u = curve.x_m - 3
    assert np.allclose(curve.y_m + 2, np.polyval(factors[::-1], u), atol=1e-9)
    fine = np.linspace(0, u[-1], 400_001)
    slope = np.polyval(np.polyder(factors[::-1]), fine)
    assert np.trapezoid(np.hypot(1, slope), fine) == pytest.approx(60.0, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "factors"),
    [("arc", [0.04]), ("spiral", [0.01, -0.05]), ("poly3", [0, 0.1, 0.01, -2e-4]), ("paramPoly3", CURVE)],
)
def test_heading_and_curvature_are_what_the_points_do(kind, factors):
    s = np.linspace(1.0, 55.0, 20)
    piece = geometry(kind, factors, normalized=True)
    before, here, after = (piece.at(s + d) for d in (-1e-3, 0.0, 1e-3))
    heading = np.arctan2(after.y_m - before.y_m, after.x_m - before.x_m)
    assert np.allclose(np.cos(heading - here.heading_rad), 1.0, atol=1e-9)
    assert np.allclose((after.heading_rad - before.heading_rad) / 2e-3, here.curvature_1pm, atol=1e-6)


def test_a_plan_of_pieces_asks_the_right_piece():
    plan = PlanView((Geometry("line", 0, 0, 0, 0, 10), Geometry("arc", 10, 10, 0, 0, 10, (0.1,))))
    found = plan.at(np.array([0.0, 9.0, 15.0]))
    assert found.x_m[:2].tolist() == [0.0, 9.0]
    assert found.x_m[2] == pytest.approx(10 + 10 * math.sin(0.5))


def test_cubics_hold_each_piece_from_its_start():
    cubics = Cubics.of([(10.0, 5.0, 0.0, 0.0, 0.0), (0.0, 1.0, 2.0, 0.0, 0.5)])
    assert cubics.value(np.array([0.0, 2.0, 10.0, 30.0])).tolist() == [1.0, 9.0, 5.0, 5.0]
    assert cubics.slope(np.array([2.0])).tolist() == [8.0]
    assert not Cubics.of([])
