"""CarRacing-v3 in our words: drive a lap from pictures, by labels or by steering wheel and pedals.

    make_env("carracing:repeat=4,stack=4")    make_env("carracing-continuous:drawing=official")

Our labels are 0 nothing, 1 accelerate, 2 left, 3 right, 4 brake; Gymnasium numbers them otherwise, and `NUMBERS` says
how. `drawing=official` is Gymnasium's own environment. `drawing=fast`, the default, is the same physics and the same
pixels, bit for bit, in a fifth of the time: see `FastCarRacing`. EnvPool's pictures are close but not the same, so they
are for training only (`pool.py`).

`order=any` gives the car one of `ORDERS` to obey, as `observation.instruction`, and another every few seconds;
`order=slowly` (drive, left, right, stop) that one alone. The reward stays as it is, so only an expert can teach to obey.

For experts, `info` has `privileged.position_m` [2], `privileged.speed_mps`, `privileged.heading_rad` (where the nose
points, anticlockwise from the x axis, so a turn to the left makes it grow), `privileged.turn_radps` (how fast it grows),
`privileged.tiles` and `privileged.track` [512, 3]: the centre line in driving order as x_m, y_m and heading_rad, going
round again after as many rows as the track has tiles, so that every track has one shape.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEEL_COLOR, WHEEL_R, WHEEL_W, WHEEL_WHITE, Car
from gymnasium.envs.box2d.car_racing import (
    FPS,
    GRASS_DIM,
    PLAYFIELD,
    SCALE,
    STATE_H,
    STATE_W,
    WINDOW_H,
    WINDOW_W,
    ZOOM,
    CarRacing,
)
from gymnasium.envs.registration import EnvSpec
from pygame import gfxdraw

from drivetrain.envs.words import InWords, space_of
from drivetrain.errors import BadConfig
from drivetrain.sample import ACTION, FRONT, INSTRUCTION, Feature, Sample, Spec

TASK = "Drive around the track."
TIME_LIMIT = 1000  # steps, as Gymnasium registers it
TRACK_ROWS = 512  # more than any track has tiles; of 400 tracks the longest has 366
LABELS = ("nothing", "accelerate", "left", "right", "brake")
GYMNASIUM_NUMBER = {"nothing": 0, "right": 1, "left": 2, "accelerate": 3, "brake": 4}
NUMBERS = {ours: GYMNASIUM_NUMBER[label] for ours, label in enumerate(LABELS)}

ORDERS = {
    "drive": "Drive around the track.",
    "slowly": "Drive slowly.",
    "left": "Keep to the left edge.",
    "right": "Keep to the right edge.",
    "stop": "Stop.",
}
ORDER_CHANCES = (0.3, 0.2, 0.15, 0.15, 0.2)
ORDER_S = (1.0, 6.0)  # how long one holds

PICTURE = Feature((STATE_H, STATE_W, 3), "uint8", 0.0, 255.0, colour="rgb")
CHOICE = Feature((), "int64", names=LABELS, choices=len(LABELS))
CONTROLS = Feature((3,), low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0), names=("steer", "gas", "brake"))

PANEL_H = WINDOW_H // 8  # Gymnasium paints the indicators' black panel over this many rows at the bottom
WORLD_H = WINDOW_H - PANEL_H
REACH_PX = math.hypot(WINDOW_W / 2, WORLD_H / 2)  # from the middle of what is seen to its corners
MARGIN_PX = 2  # a soft edge reaches one pixel beyond the corners of its polygon
PANEL_FULL = 3.9  # an indicator of 4 would stand out above the panel
FIELD = PLAYFIELD * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])

Points = list[tuple[float, float]]
Colour = Sequence[int]


def discrete(drawing: str = "fast", order: str = "") -> gym.Env[Sample, Any]:
    return _ordered(_build(drawing, CHOICE), order)


def continuous(drawing: str = "fast", order: str = "") -> gym.Env[Sample, Any]:
    return _ordered(_build(drawing, CONTROLS), order)


def _ordered(env: gym.Env[Sample, Any], order: str) -> gym.Env[Sample, Any]:
    if order not in ("", "any", *ORDERS):
        raise BadConfig(f"BadConfig: carracing has no order={order}; use any, {', '.join(ORDERS)}")
    return Ordered(env, order) if order else env


def _build(drawing: str, action: Feature) -> gym.Env[Sample, Any]:
    sample_spec = Spec({FRONT: PICTURE, ACTION: action}, TASK, float(FPS))
    command = _controls if action is CONTROLS else _number
    if drawing == "fast":
        where = f"{__name__}:{FastCarRacing.__name__}"
        row = EnvSpec("FastCarRacing-v3", where, max_episode_steps=TIME_LIMIT, disable_env_checker=True)
        row.reward_threshold = gym.spec("CarRacing-v3").reward_threshold
    elif drawing == "official":
        row = gym.spec("CarRacing-v3")
    elif drawing == "envpool":
        raise BadConfig(
            "BadConfig: drawing=envpool is for training worlds side by side by a reward of their own, and its pixels are not "
            "Gymnasium's; use drawing=official (or fast, the same pixels) to evaluate, collect or film, or for gail"
        )
    else:
        raise BadConfig(f"BadConfig: carracing has no drawing={drawing}; use fast, official or envpool (training only)")
    inner = gym.make(row, continuous=action is CONTROLS, render_mode="rgb_array")
    worded = InWords(inner, sample_spec, _seen, reveal=Privileged(), command=command)
    return Glance(worded, inner.unwrapped) if isinstance(inner.unwrapped, FastCarRacing) else worded


def _number(choice: Any) -> int:
    return NUMBERS[int(choice)]


def _controls(action: Any) -> np.ndarray:
    return np.asarray(action, dtype=np.float32)


def _seen(raw: Any, _: gym.Env[Any, Any]) -> Sample:
    return {FRONT: raw}


class Privileged:
    """What an expert may know. The track becomes an array once per episode."""

    def __init__(self) -> None:
        self._laid: Any = None
        self._track = np.zeros((TRACK_ROWS, 3))

    def __call__(self, env: gym.Env[Any, Any]) -> dict[str, Any]:
        racing = env.unwrapped
        assert isinstance(racing, CarRacing)
        assert racing.car is not None
        if self._laid is not racing.track:
            self._laid = racing.track
            line = np.array([(x, y, beta + math.pi / 2) for _, beta, x, y in racing.track])
            self._track = line[np.arange(TRACK_ROWS) % len(line)]
        hull = racing.car.hull
        position, velocity = hull.position, hull.linearVelocity
        return {
            "position_m": np.array((position.x, position.y)),
            "heading_rad": hull.angle + math.pi / 2,
            "turn_radps": hull.angularVelocity,
            "speed_mps": math.hypot(velocity.x, velocity.y),
            "tiles": len(racing.track),
            "track": self._track.copy(),
        }


class View(NamedTuple):
    """Where the camera is: pixel = zoom * rotated world point + shift, with y upwards until the picture is flipped."""

    cos: float
    sin: float
    zoom: float
    shift: tuple[float, float]
    middle: tuple[float, float]  # the world point in the middle of what is seen above the panel
    covered: bool  # nothing but the playing field is in sight

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 2] in pixels; the operations and their order are Gymnasium's, so the bits are too."""
        x, y = points[..., 0], points[..., 1]
        return np.stack(
            (
                (self.cos * x - self.sin * y) * self.zoom + self.shift[0],
                (self.sin * x + self.cos * y) * self.zoom + self.shift[1],
            ),
            axis=-1,
        )


def view_of(car: Car, t_s: float) -> View:
    angle, (x, y) = -car.hull.angle, car.hull.position
    zoom = 0.1 * SCALE * max(1 - t_s, 0) + ZOOM * SCALE * min(t_s, 1)  # the first second zooms in
    shift = pygame.math.Vector2(-x * zoom, -y * zoom).rotate_rad(angle)
    cos, sin = pygame.math.Vector2(1.0, 0.0).rotate_rad(angle)
    ahead = (PANEL_H + WORLD_H / 2 - WINDOW_H / 4) / zoom  # the car is drawn a quarter up the window
    middle = (x + sin * ahead, y + cos * ahead)
    covered = max(abs(middle[0]), abs(middle[1])) + (REACH_PX + MARGIN_PX) / zoom < PLAYFIELD
    return View(cos, sin, zoom, (WINDOW_W / 2 + shift[0], WINDOW_H / 4 + shift[1]), middle, covered)


class Landscape:
    """Grass and road as arrays, in the order Gymnasium paints them."""

    def __init__(self, road: Sequence[tuple[Points, Any]], grass_colour: Any):
        grass = [_patch(x * GRASS_DIM, y * GRASS_DIM) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
        self.corners = np.array(grass + [corners for corners, _ in road])  # [P, 4, 2]
        self.colours = [grass_colour] * len(grass) + [colour for _, colour in road]  # a tile's own array: it darkens
        self.centre = self.corners.mean(axis=1)
        self.radius = np.linalg.norm(self.corners - self.centre[:, None], axis=-1).max(axis=1)

    def seen(self, view: View) -> list[tuple[list[list[int]], Colour]]:
        """Corners in whole pixels, and colour, of what is in sight."""
        apart = self.centre - view.middle
        reach = self.radius + (REACH_PX + MARGIN_PX) / view.zoom
        near = np.flatnonzero(np.einsum("pc,pc->p", apart, apart) < reach * reach)
        pixels = view.pixels(self.corners[near]).astype(np.int64)  # gfxdraw cuts fractions off too
        least, most = pixels.min(axis=1), pixels.max(axis=1)
        inside = (most >= (-MARGIN_PX, PANEL_H - MARGIN_PX)) & (least <= (WINDOW_W + MARGIN_PX, WINDOW_H + MARGIN_PX))
        kept = np.flatnonzero(inside.all(axis=1))
        return [
            (corners, [int(c) for c in self.colours[i]])
            for corners, i in zip(pixels[kept].tolist(), near[kept].tolist(), strict=True)
        ]


def _patch(x: float, y: float) -> Points:
    """A square of darker grass; Gymnasium goes round it in this order."""
    return [(x + GRASS_DIM, y), (x, y), (x, y + GRASS_DIM), (x + GRASS_DIM, y + GRASS_DIM)]


def car_shapes(car: Car, hull: Sequence[Points], wheel: Points) -> list[tuple[Colour, Points]]:
    """Colours and corners in the world, in painting order. Box2D itself moves the corners: its rounding is its own."""
    shapes: list[tuple[Colour, Points]] = []
    for body in car.wheels:
        place = body.transform
        shapes.append((WHEEL_COLOR, [((p := place * corner).x, p.y) for corner in wheel]))
        if stripe := _stripe(body.phase):
            shapes.append((WHEEL_WHITE, [((p := place * corner).x, p.y) for corner in stripe]))
    place, colour = car.hull.transform, [int(c * 255) for c in car.hull.color]
    return shapes + [(colour, [((p := place * corner).x, p.y) for corner in part]) for part in hull]


def _stripe(phase_rad: float) -> Points:
    """The pale band that shows a wheel turn, in the wheel's frame; empty while it is underneath."""
    low, high = phase_rad, phase_rad + 1.2
    hidden_low, hidden_high = math.sin(low) > 0, math.sin(high) > 0
    if hidden_low and hidden_high:
        return []
    c1 = np.sign(math.cos(low)) if hidden_low else math.cos(low)
    c2 = np.sign(math.cos(high)) if hidden_high else math.cos(high)
    left, right, back, front = -WHEEL_W * SIZE, +WHEEL_W * SIZE, WHEEL_R * c1 * SIZE, WHEEL_R * c2 * SIZE
    return [(left, back), (right, back), (right, front), (left, front)]


@lru_cache(maxsize=1)
def _font() -> pygame.font.Font:
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), 42)


@lru_cache(maxsize=256)
def _written(text: str) -> pygame.Surface:
    try:
        return _font().render(text, True, (255, 255, 255), (0, 0, 0))
    except pygame.error:  # somebody closed a window, and pygame with it, since the font was opened
        _font.cache_clear()
        return _font().render(text, True, (255, 255, 255), (0, 0, 0))


class Canvas:
    """Where pictures are painted, and shrunk by the routine that Gymnasium uses, which goes across and then down."""

    def __init__(self) -> None:
        self.window = pygame.Surface((WINDOW_W, WINDOW_H), depth=32)  # upside down: what the panel hides comes first
        self.world = self.window.subsurface((0, PANEL_H, WINDOW_W, WORLD_H))
        self.pixels = pygame.surfarray.pixels2d(self.world).T  # the world's own memory
        self.panel_window = pygame.Surface((WINDOW_W, WINDOW_H), depth=32)
        self.panel = self.panel_window.subsurface((0, WORLD_H, WINDOW_W, PANEL_H))
        self.across = np.zeros((WORLD_H, STATE_W, 4), np.uint8)
        self.narrow = np.zeros((WINDOW_H, STATE_W, 4), np.uint8)
        self.small = np.zeros((STATE_H, STATE_W, 4), np.uint8)

    def clear(self, colour: Colour) -> None:
        self.pixels[:] = self.window.map_rgb(colour)  # twice as fast in all as pygame's fill, which bypasses the cache

    def polygon(self, corners: list[list[int]], colour: Colour) -> None:
        """With soft edges, as Gymnasium paints the landscape."""
        gfxdraw.aapolygon(self.window, corners, colour)
        gfxdraw.filled_polygon(self.window, corners, colour)

    def shrunk(self) -> np.ndarray:
        """World and panel in one picture, the right way up: [96, 96, 3]."""
        _shrink(self.world, self.across)
        self.narrow[:WORLD_H] = self.across[::-1]
        _shrink(self.panel, self.narrow[WORLD_H:])
        _shrink(_surface(self.narrow), self.small)
        rgb = np.empty((STATE_H, STATE_W, 3), np.uint8)
        for channel in range(3):  # the bytes lie as blue, green, red, nothing; numpy is quickest with whole planes
            rgb[..., channel] = self.small[..., 2 - channel]
        return rgb


def _surface(pixels: np.ndarray) -> pygame.Surface:
    """A surface that is the array's own memory."""
    return pygame.image.frombuffer(pixels.data, pixels.shape[1::-1], "BGRA")


def _shrink(surface: pygame.Surface, into: np.ndarray) -> None:
    pygame.transform.smoothscale(surface, into.shape[1::-1], _surface(into))


@lru_cache(maxsize=4)
def _canvas_of(thread: int) -> Canvas:
    """One for all worlds of a thread: it stays in the processor's cache."""
    return Canvas()


class FastCarRacing(CarRacing):
    """Gymnasium's CarRacing, whose small picture costs a fifth, and nothing while it is `blind`.

    Gymnasium paints 1000 x 800 pixels, turns them upside down, and shrinks them, first across and then down. Here all
    corners move in one multiplication, only what is in sight is painted, and the turning comes after the shrinking
    across, when a tenth of the pixels is left. Every rounding stays as it was, so the pixels do too.
    """

    metadata: dict[str, Any] = {**CarRacing.metadata, "render_modes": ["rgb_array", "state_pixels"]}  # noqa: RUF012
    blind = False

    def _create_track(self) -> bool:
        made: bool = super()._create_track()  # type: ignore[no-untyped-call]
        if made:
            self._landscape = Landscape(self.road_poly, self.grass_color)
        return made

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels":
            return super()._render(mode)
        self._score = self.reward  # a step draws first and then takes a tenth off
        return None if self.blind else self._drawn()

    def picture(self) -> np.ndarray:
        """What the last step drew, or would have drawn were it not blind."""
        now, self.reward = self.reward, self._score
        try:
            return self._drawn()
        finally:
            self.reward = now

    def _drawn(self) -> np.ndarray:
        assert self.car is not None
        if _panel_overflows(self.car):
            return np.ascontiguousarray(super()._render("state_pixels"))
        canvas = _canvas_of(threading.get_ident())
        self._paint_world(self.car, canvas)
        self._paint_panel(canvas)
        return canvas.shrunk()

    def _paint_world(self, car: Car, canvas: Canvas) -> None:
        view, field = view_of(car, self.t), [int(c) for c in self.bg_color]
        canvas.clear(field if view.covered else (0, 0, 0))
        if not view.covered:
            canvas.polygon(view.pixels(FIELD).astype(np.int64).tolist(), field)
        for corners, colour in self._landscape.seen(view):
            canvas.polygon(corners, colour)
        shapes = car_shapes(car, *self._outlines)
        pixels = iter(view.pixels(np.array([corner for _, shape in shapes for corner in shape])).tolist())
        for colour, shape in shapes:
            pygame.draw.polygon(canvas.window, colour, list(islice(pixels, len(shape))))

    @cached_property
    def _outlines(self) -> tuple[list[Points], Points]:
        """Of hull and wheel in their own frames, as Box2D holds them; every car is alike."""
        assert self.car is not None
        return [f.shape.vertices for f in self.car.hull.fixtures], self.car.wheels[0].fixtures[0].shape.vertices

    def _paint_panel(self, canvas: Canvas) -> None:
        self.surf: Any = canvas.panel_window  # where Gymnasium's own method paints
        self._render_indicators(WINDOW_W, WINDOW_H)  # type: ignore[no-untyped-call]
        text = _written(f"{self.reward:04.0f}")
        self.surf.blit(text, text.get_rect(center=(60, WINDOW_H - WINDOW_H * 2.5 / 40.0)))


def _panel_overflows(car: Car) -> bool:
    speed = math.hypot(*car.hull.linearVelocity)
    return max(0.02 * speed, *(0.01 * abs(wheel.omega) for wheel in car.wheels)) > PANEL_FULL


class Glance(gym.Wrapper[Sample, Any, Sample, Any]):
    """Lets the car drive on without being looked at: `advance` draws nothing, `observe` what it left out."""

    def __init__(self, env: InWords, racing: FastCarRacing):
        super().__init__(env)
        self.sample_spec, self.racing = env.sample_spec, racing

    def advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        self.racing.blind = True
        try:
            _, reward, terminated, truncated, info = self.env.step(action)
        finally:
            self.racing.blind = False
        return float(reward), terminated, truncated, info

    def observe(self) -> Sample:
        return {FRONT: self.racing.picture()}


class Ordered(gym.Wrapper[Sample, Any, Sample, Any]):
    """Somebody in the car says how to drive. `order` may be set at any time: to a name of ORDERS, or to "any"."""

    def __init__(self, env: Any, order: str):
        super().__init__(env)
        self.order, self.number, self.left = order, 0, 0
        self.chance = np.random.default_rng()
        told = Feature((), "int64", names=tuple(ORDERS.values()), choices=len(ORDERS))
        spec = env.sample_spec
        self.sample_spec = replace(spec, features={INSTRUCTION: told, **spec.features})
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in self.sample_spec.observations.items()})
        if hasattr(env, "advance"):
            self.advance, self.observe = self._advance, self._observe

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self.chance = np.random.default_rng((seed, 1))
        self.left = 0
        self._tick()
        return self._told(observation), info

    def step(self, action: Any) -> tuple[Sample, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._tick()
        return self._told(observation), reward, terminated, truncated, info

    def _advance(self, action: Any) -> Any:
        self._tick()
        return self.env.advance(action)  # type: ignore[attr-defined]

    def _observe(self) -> Sample:
        return self._told(self.env.observe())  # type: ignore[attr-defined]

    def _tick(self) -> None:
        if self.order != "any":
            self.number, self.left = list(ORDERS).index(self.order), 0
        elif self.left == 0:
            self.number = int(self.chance.choice(len(ORDERS), p=ORDER_CHANCES))
            self.left = round(self.chance.uniform(*ORDER_S) * FPS)
        else:
            self.left -= 1

    def _told(self, observation: Sample) -> Sample:
        return {INSTRUCTION: np.int64(self.number), **observation}
