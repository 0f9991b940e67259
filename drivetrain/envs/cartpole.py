"""Gymnasium's CartPole-v1, from numbers or from pictures: 500 steps at most, a reward of 1 for each.

    drivetrain train ppo --env cartpole
    drivetrain collect --as captions --env cartpole --scenes 1000 --output-dir data/cartpole-captions

The equations of motion are Gymnasium's in Python floats instead of numpy scalars: the same bits, five times as fast.
The picture is rows 160 to 320 of its rendered frame, averaged over squares of 4 by 4 pixels. We draw that strip alone,
and average only the columns where something moves: the same pixels, thirty times as fast. One picture has no speed, so
two are stacked.

`Scenes` draws states that nobody played to, at full size, with what is true of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from pygame import gfxdraw

from drivetrain.envs.words import Stack, space_of
from drivetrain.errors import BadConfig
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Sample, Spec

NUMBERS = Feature((4,), names=("position_m", "speed_mps", "tilt_rad", "tilt_rate_radps"))
PICTURE = Feature((40, 150, 3), "uint8", colour="rgb")
PUSH = Feature((), "int64", names=("left", "right"), choices=2)
TASK = "Balance the pole on the cart."
FPS = 50.0

CROP_TOP, CROP_BOTTOM, SQUARE = 160, 320, 4  # pixels of Gymnasium's 600x400 frame
WIDTH, HEIGHT = 600, 400
OUT_OF_SIGHT_M = 10.0
BLACK, WOOD, AXLE, WHITE = (0, 0, 0), (202, 152, 101), (129, 132, 203), (255, 255, 255)

# How far the states of `Scenes` reach to either side: at difficulty 0, and what each further unit adds.
NEAR_M, FARTHER_M = 0.02, 2.38  # at 2.4 an episode ends
LEAN_DEG, CLEAR_DEG = (
    15.0,
    8.0,
)  # an episode ends at 12, or a little above; a pole at the second leans for everybody to see
UPRIGHT_DEG, UPRIGHT_SHARE = 1.0, 0.25  # so many of the poles stand upright, as they do in play


class CartPole(gym.Env[Sample, Any]):
    """Gymnasium's environment in our words, without a wrapper between it and the learner. An `endless` one goes on after the
    pole has fallen, up to the time limit, and from then on gives a reward of 0: for learners who must not be told."""

    def __init__(self, endless: bool = False) -> None:
        self.endless, self.fallen = endless, False
        self.theirs: Any = CartPoleEnv(render_mode="rgb_array")  # its constants, its first states and its drawing
        self.now = (0.0, 0.0, 0.0, 0.0)
        self.steps = 0
        self.spec = gym.spec("CartPole-v1")
        self.most_steps = self.spec.max_episode_steps or 500
        self.sample_spec = Spec({STATE: NUMBERS, ACTION: PUSH}, TASK, FPS)
        self.observation_space = gym.spaces.Dict({STATE: space_of(NUMBERS)})
        self.action_space = space_of(PUSH)
        self.metadata = self.theirs.metadata
        self.render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        super().reset(seed=seed)
        self.theirs.reset(seed=seed, options=options)
        x, speed, tilt, rate = self.theirs.state.tolist()
        self.now, self.steps, self.fallen = (x, speed, tilt, rate), 0, False
        return self._seen()

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        assert action == 0 or action == 1, f"the action must be 0 or 1, got {action!r}"
        world, (x, speed, tilt, rate) = self.theirs, self.now
        cosine, sine = float(np.cos(tilt)), float(np.sin(tilt))
        force = world.force_mag if action == 1 else -world.force_mag
        push = (force + world.polemass_length * (rate * rate) * sine) / world.total_mass
        turn = (world.gravity * sine - cosine * push) / (
            world.length * (4.0 / 3.0 - world.masspole * (cosine * cosine) / world.total_mass)
        )
        pull = push - world.polemass_length * turn * cosine / world.total_mass
        x, speed = x + world.tau * speed, speed + world.tau * pull
        tilt, rate = tilt + world.tau * rate, rate + world.tau * turn
        self.now = (x, speed, tilt, rate)
        self.steps += 1
        fell = abs(x) > world.x_threshold or abs(tilt) > world.theta_threshold_radians
        observation, info = self._seen()
        if not self.endless:
            return observation, 1.0, fell, self.steps >= self.most_steps, info
        reward = 0.0 if self.fallen else 1.0
        self.fallen = self.fallen or fell
        return observation, reward, False, self.steps >= self.most_steps, info

    def _seen(self) -> tuple[Sample, dict[str, Any]]:
        numbers = np.array(self.now, dtype=np.float32)
        return {STATE: numbers}, {"privileged.state": numbers}

    def render(self) -> Any:
        position_m, *others = self.now
        self.theirs.state = np.array([shown(position_m), *others])
        return self.theirs.render()

    def close(self) -> None:
        self.theirs.close()


class CartPolePixels(CartPole):
    """The same seen through its picture alone."""

    def __init__(self, endless: bool = False) -> None:
        super().__init__(endless)
        self.sample_spec = replace(self.sample_spec, features={FRONT: PICTURE, ACTION: PUSH})
        self.observation_space = gym.spaces.Dict({FRONT: space_of(PICTURE)})
        masks = (0xFF0000, 0xFF00, 0xFF, 0)
        self.strip = pygame.Surface((WIDTH, CROP_BOTTOM - CROP_TOP), depth=32, masks=masks)
        self.strip.fill(WHITE)
        draw_track(self.strip)
        self.packed = pygame.surfarray.pixels2d(self.strip).T  # 0x00RRGGBB; shares the strip's memory
        self.clean, self.empty = self.packed[:, :1].copy(), averaged(self.packed)

    def _seen(self) -> tuple[Sample, dict[str, Any]]:
        position_m, _, tilt_rad, _ = self.now
        return {FRONT: self.picture(shown(position_m), tilt_rad)}, {
            "privileged.state": np.array(self.now, dtype=np.float32)
        }

    def picture(self, position_m: float, tilt_rad: float) -> np.ndarray:
        """The averaged frame: drawn, averaged where the cart is, and wiped."""
        centre = position_m * (WIDTH / (2 * self.theirs.x_threshold)) + WIDTH / 2
        reach = 30 + 125 * abs(math.sin(tilt_rad))  # the cart is 50 wide, the pole 125 long
        left = math.floor(min(max(centre - reach, 0), WIDTH) / SQUARE)
        right = math.ceil(max(min(centre + reach, WIDTH), 0) / SQUARE)
        draw_cart(self.strip, centre, tilt_rad)
        picture = self.empty.copy()
        window = self.packed[:, left * SQUARE : right * SQUARE]
        picture[:, left:right] = averaged(window)
        window[:] = self.clean
        return picture[::-1].copy()

    def strip_of(self, position_m: float, tilt_rad: float) -> np.ndarray:
        """Those rows of the frame as they are: [160, 600, 3]."""
        draw_cart(self.strip, position_m * (WIDTH / (2 * self.theirs.x_threshold)) + WIDTH / 2, tilt_rad)
        rgb = np.empty((*self.packed.shape, 3), dtype=np.uint8)
        for channel, shift in enumerate((16, 8, 0)):
            rgb[..., channel] = self.packed[::-1] >> shift
        self.packed[:] = self.clean
        return rgb


def shown(position_m: float) -> float:
    """Where the cart is drawn; far out of the picture one place is as good as another, and pygame knows none beyond."""
    return min(max(position_m, -OUT_OF_SIGHT_M), OUT_OF_SIGHT_M)


class Scenes:
    """Pictures of any state, and the facts: `position_m` right of the middle, `tilt_deg` to the right."""

    def __init__(self) -> None:
        self.cartpole = CartPolePixels()

    def draw(self, random: np.random.Generator, difficulty: float) -> tuple[np.ndarray, dict[str, float]]:
        """A picture [160, 600, 3] and its facts; at difficulty 0 the cart is near the middle and the pole upright or far from
        it, at 1 both are anywhere."""
        assert 0 <= difficulty <= 1, f"difficulty is {difficulty}"
        upright, clear = random.random() < UPRIGHT_SHARE, random.random() >= difficulty
        position_m = random.uniform(-1, 1) * (NEAR_M + FARTHER_M * difficulty)
        tilt_deg = random.uniform(-1, 1) * (UPRIGHT_DEG if upright else LEAN_DEG)
        if clear and not upright:
            tilt_deg = math.copysign(random.uniform(CLEAR_DEG, LEAN_DEG), tilt_deg)
        picture = self.cartpole.strip_of(position_m, math.radians(tilt_deg))
        return picture, {"position_m": position_m, "tilt_deg": tilt_deg}

    @staticmethod
    def facts(info: dict[str, Any]) -> dict[str, float]:
        """The same facts of a world that is played."""
        position_m, _, tilt_rad, _ = info["privileged.state"].tolist()
        return {"position_m": position_m, "tilt_deg": math.degrees(tilt_rad)}


def averaged(packed: np.ndarray) -> np.ndarray:
    """Squares of 4x4 packed pixels to their mean colour, rounded; red and blue are summed in one integer."""
    height, width = packed.shape[0] // SQUARE, packed.shape[1] // SQUARE
    out = np.empty((height, width, 3), dtype=np.uint8)
    red_blue, green = summed(packed & 0xFF00FF), summed((packed >> 8) & 0xFF)
    out[..., 0] = (red_blue + 0x80000) >> 20
    out[..., 1] = (green + 8) >> 4
    out[..., 2] = ((red_blue & 0xFFFF) + 8) >> 4
    return out


def summed(values: np.ndarray) -> np.ndarray:
    rows = values[0::4] + values[1::4] + values[2::4] + values[3::4]
    return rows[:, 0::4] + rows[:, 1::4] + rows[:, 2::4] + rows[:, 3::4]


def draw_track(strip: pygame.Surface) -> None:
    gfxdraw.hline(strip, 0, WIDTH, 100 - (HEIGHT - CROP_BOTTOM), BLACK)


def draw_cart(strip: pygame.Surface, centre: float, tilt_rad: float) -> None:
    """Gymnasium's cart and pole, upside down as it draws them, without the rows that are cropped away."""
    ground = 100 - (HEIGHT - CROP_BOTTOM)
    axle_x, axle_y = centre, ground + 7.5
    cart = [(x + centre, y + ground) for x, y in ((-25.0, -15.0), (-25.0, 15.0), (25.0, 15.0), (25.0, -15.0))]
    corners = [(-5.0, -5.0), (-5.0, 120.0), (5.0, 120.0), (5.0, -5.0)]
    turned = [pygame.math.Vector2(corner).rotate_rad(-tilt_rad) for corner in corners]
    for shape, colour in ((cart, BLACK), ([(c[0] + axle_x, c[1] + axle_y) for c in turned], WOOD)):
        gfxdraw.aapolygon(strip, shape, colour)
        gfxdraw.filled_polygon(strip, shape, colour)
    for circle in (gfxdraw.aacircle, gfxdraw.filled_circle):
        circle(strip, int(axle_x), int(axle_y), 5, AXLE)
    draw_track(strip)


def state(endless: int = 0) -> gym.Env[Sample, Any]:
    """Position, speed, tilt and tilt rate."""
    return CartPole(bool(endless))


def pixels(stack: int = 2, endless: int = 0) -> gym.Env[Sample, Any]:
    """The last `stack` pictures, oldest first."""
    if not isinstance(stack, int) or stack < 1:
        raise BadConfig(f"BadConfig: stack must be a whole number from 1 up, got {stack!r}")
    world = CartPolePixels(bool(endless))
    return Stack(world, stack) if stack > 1 else world
