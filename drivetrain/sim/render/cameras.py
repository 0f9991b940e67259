"""Cameras: colour, depth, labels, instances, normals, optical flow and events, as CARLA sends them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.geometry import matrix, to_array
from drivetrain.sim.protocol.binary import IMAGE_HEADER, image
from drivetrain.sim.protocol.structs import Transform
from drivetrain.sim.render import raster
from drivetrain.sim.render.crew import dealt, hands_for
from drivetrain.sim.render.mesh import Bytes, Floats
from drivetrain.sim.render.scene import Stage
from drivetrain.sim.render.shade import grain, shade
from drivetrain.sim.sensors import View
from drivetrain.sim.squares import OFTEN, Doubles

WORTH_DRAWING, WORTH_SHADING = 7_000, 4_000  # pixels for each hand


@dataclass(frozen=True)
class Lens:
    width: int
    height: int
    fov_deg: float

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Lens:
        return cls(int(settings["image_size_x"]), int(settings["image_size_y"]), float(settings["fov"]))

    @property
    def focal(self) -> float:
        """In pixels."""
        return self.width / (2 * math.tan(math.radians(self.fov_deg) / 2))


@dataclass
class Look:
    """What one camera has behind each pixel."""

    lens: Lens
    eye: Doubles
    near: Floats  # 1/depth
    ids: NDArray[np.int32]


def eye_of(transform: Transform) -> Doubles:
    """[4, 3]: where it is, and its forward, right and down."""
    turn = matrix(transform.rotation)
    return np.stack([to_array(transform.location), turn[:, 0], turn[:, 1], -turn[:, 2]])


def look(stage: Stage, lens: Lens, transform: Transform) -> Look:
    eye = eye_of(transform)
    size, seen, live = (lens.height, lens.width), stage.world.place.seen, stage.live
    hands = hands_for(lens.height * lens.width, WORTH_DRAWING)
    drawn = [(np.zeros(size, np.float32), np.empty(size, np.int32)) for _ in range(hands)]

    def chunks(first: int, step: int) -> None:
        near, ids = drawn[first]
        for of, mesh, base in ((seen, seen.mesh, 0), (live, live, stage.first_live)):
            raster.draw(
                mesh.corners, mesh.solid, mesh.size, of.starts, of.bounds, of.sizes, eye, lens.focal, near, ids, base,
                first, step,
            )  # fmt: skip

    dealt(hands, chunks)
    near, ids = drawn[0]
    for other_near, other_ids in drawn[1:]:
        raster.merge(near, ids, other_near, other_ids, 0, lens.height)
    return Look(lens, eye, near, ids)


def rgb(stage: Stage, seen: Look) -> Bytes:
    world, live = stage.world, stage.live
    stage.cast(seen.eye)
    still = world.place.seen
    out = np.empty((seen.lens.height, seen.lens.width, 4), np.uint8)
    beams = stage.nearest_beams(seen.eye)

    def rows(first: int, step: int) -> None:
        shade(
            seen.near, seen.ids, seen.eye, seen.lens.focal, stage.light, grain(), stage.frame,
            still.mesh.color, still.mesh.pattern, still.normals, still.mesh.wall,
            live.color, live.pattern, live.normals, stage.first_live,
            world.shadows.high, world.axes, world.shadows.origin, world.shadows.metres,
            world.live_shadows.high, world.live_shadows.origin, world.live_shadows.metres,
            world.lamp_map, world.lamp_origin, beams, out, first, step,
        )  # fmt: skip

    dealt(hands_for(seen.lens.height * seen.lens.width, WORTH_SHADING), rows)
    return out


@OFTEN
def depth_bytes(near, out):  # type: ignore[no-untyped-def]
    """Depth over 1000 m as a number of 24 bits, red the lowest."""
    for row in range(near.shape[0]):
        for column in range(near.shape[1]):
            close = near[row, column]
            share = 1.0 if close <= 0 else min(1.0, 1.0 / (close * 1000.0))
            value = int(share * 16777215.0 + 0.5)
            out[row, column, 2] = value & 255
            out[row, column, 1] = (value >> 8) & 255
            out[row, column, 0] = (value >> 16) & 255
            out[row, column, 3] = 255


@OFTEN
def tag_bytes(near, ids, still, live, actors, first_live, instances, out):  # type: ignore[no-untyped-def]
    """Red is the label; with `instances`, green and blue are the low and high byte of who it is."""
    for row in range(near.shape[0]):
        for column in range(near.shape[1]):
            label, who = 11, 0
            if near[row, column] > 0:
                t = ids[row, column]
                if t < first_live:
                    label, who = still[t], 0
                else:
                    label, who = live[t - first_live], actors[t - first_live]
            out[row, column, 2] = label
            out[row, column, 1] = (who & 255) if instances else 0
            out[row, column, 0] = ((who >> 8) & 255) if instances else 0
            out[row, column, 3] = 255


@OFTEN
def normal_bytes(near, ids, still, live, first_live, eye, focal, out):  # type: ignore[no-untyped-def]
    """The normal in the world's axes, -1 to 1 as 0 to 255 in red, green and blue."""
    for row in range(near.shape[0]):
        for column in range(near.shape[1]):
            x, y, z = 0.0, 0.0, 0.0
            if near[row, column] > 0:
                t = ids[row, column]
                if t < first_live:
                    x, y, z = still[t, 0], still[t, 1], still[t, 2]
                else:
                    x, y, z = live[t - first_live, 0], live[t - first_live, 1], live[t - first_live, 2]
            out[row, column, 2] = int((x * 0.5 + 0.5) * 255)
            out[row, column, 1] = int((y * 0.5 + 0.5) * 255)
            out[row, column, 0] = int((z * 0.5 + 0.5) * 255)
            out[row, column, 3] = 255


@OFTEN
def flow_of(near, ids, eye, was, focal, bodies, velocity, first_live, dt_s, out):  # type: ignore[no-untyped-def]
    """How far each point has moved over the picture since `was`, as shares of its width and height, down and right."""
    height, width = near.shape
    cx, cy = width / 2.0, height / 2.0
    for row in range(height):
        dv = (row + 0.5 - cy) / focal
        for column in range(width):
            du = (column + 0.5 - cx) / focal
            depth = 1e5 if near[row, column] <= 0 else 1.0 / near[row, column]
            p = np.empty(3)
            for k in range(3):
                p[k] = eye[0, k] + depth * (eye[1, k] + du * eye[2, k] + dv * eye[3, k])
            if near[row, column] > 0 and ids[row, column] >= first_live:
                body = bodies[ids[row, column] - first_live]
                for k in range(3):
                    p[k] -= velocity[body, k] * dt_s
            for k in range(3):
                p[k] -= was[0, k]
            z = p[0] * was[1, 0] + p[1] * was[1, 1] + p[2] * was[1, 2]
            if z < 0.05:
                out[row, column, 0], out[row, column, 1] = 0.0, 0.0
                continue
            u = (p[0] * was[2, 0] + p[1] * was[2, 1] + p[2] * was[2, 2]) / z
            v = (p[0] * was[3, 0] + p[1] * was[3, 1] + p[2] * was[3, 2]) / z
            out[row, column, 0] = (du - u) * focal / width
            out[row, column, 1] = (dv - v) * focal / height


@OFTEN
def events_of(before, after, last_ns, now_ns, dt_ns, up, down, refractory_ns, out):  # type: ignore[no-untyped-def]
    """Events between two pictures of log brightness: one for each threshold crossed, its time interpolated. `before` is
    the level at each pixel's last event, and is moved along. Returns how many rows of out [x, y, ns, up] it wrote."""
    count = 0
    for row in range(after.shape[0]):
        for column in range(after.shape[1]):
            change = after[row, column] - before[row, column]
            while change >= up or change <= -down:
                rising = change > 0
                step = up if rising else -down
                share = step / change
                at = now_ns - dt_ns + int(share * dt_ns)
                if at - last_ns[row, column] >= refractory_ns and count < len(out):
                    out[count, 0], out[count, 1], out[count, 2], out[count, 3] = column, row, at, 1 if rising else 0
                    last_ns[row, column] = at
                    count += 1
                before[row, column] += step
                change -= step
    return count


EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("up", "?")])
assert EVENT.itemsize == 13
MOST_EVENTS_PER_PIXEL = 8


class Camera:
    """What one camera remembers from one picture to the next."""

    def __init__(self, view: View):
        self.lens, self.kind = Lens.of(view.settings), view.blueprint.rpartition(".")[2]
        self.settings = view.settings
        self.was: tuple[Doubles, float] | None = None
        self.level: Doubles | None = None
        draw: dict[str, Callable[[Stage, Look], bytes]] = {
            "rgb": self.rgb,
            "depth": self.depth,
            "semantic_segmentation": self.tags,
            "instance_segmentation": self.tags,
            "normals": self.normals,
            "optical_flow": self.flow,
            "dvs": self.events,
        }
        self.draw = draw[self.kind]

    def picture(self, values: Bytes) -> bytes:
        return image(self.lens.width, self.lens.height, self.lens.fov_deg, values.tobytes())

    def empty(self) -> Bytes:
        return np.empty((self.lens.height, self.lens.width, 4), np.uint8)

    def rgb(self, stage: Stage, seen: Look) -> bytes:
        return self.picture(rgb(stage, seen))

    def depth(self, stage: Stage, seen: Look) -> bytes:
        out = self.empty()
        depth_bytes(seen.near, out)
        return self.picture(out)

    def tags(self, stage: Stage, seen: Look) -> bytes:
        out, still, live = self.empty(), stage.world.place.seen.mesh, stage.live
        whose = self.kind == "instance_segmentation"
        tag_bytes(seen.near, seen.ids, still.tag, live.tag, live.actor, stage.first_live, whose, out)
        return self.picture(out)

    def normals(self, stage: Stage, seen: Look) -> bytes:
        out, place = self.empty(), stage.world.place.seen
        normal_bytes(
            seen.near, seen.ids, place.normals, stage.live.normals, stage.first_live, seen.eye, seen.lens.focal, out
        )
        return self.picture(out)

    def flow(self, stage: Stage, seen: Look) -> bytes:
        eye, then_s = self.was or (seen.eye, stage.elapsed_s)
        out = np.empty((self.lens.height, self.lens.width, 2), np.float32)
        live, dt_s = stage.live, stage.elapsed_s - then_s
        flow_of(
            seen.near, seen.ids, seen.eye, eye, seen.lens.focal, live.body, live.velocity, stage.first_live, dt_s, out
        )
        self.was = (seen.eye, stage.elapsed_s)
        header = IMAGE_HEADER.pack(self.lens.width, self.lens.height, self.lens.fov_deg)
        return header + out.tobytes()

    def events(self, stage: Stage, seen: Look) -> bytes:
        value = {name: float(self.settings[name]) for name in ("positive_threshold", "negative_threshold", "log_eps")}
        bgr = rgb(stage, seen)[:, :, :3].astype(np.float64) / 255
        grey: Doubles = bgr @ np.array([0.114, 0.587, 0.299])
        if self.settings["use_log"].lower() in ("true", "1"):
            grey = np.log(value["log_eps"] + grey)
        now_ns = round(stage.elapsed_s * 1e9)
        header = IMAGE_HEADER.pack(self.lens.width, self.lens.height, self.lens.fov_deg)
        if self.level is None:
            self.level, self.last_ns, self.then_ns = grey, np.full(grey.shape, -(1 << 60), np.int64), now_ns
            return header
        rows = np.empty((grey.size * MOST_EVENTS_PER_PIXEL, 4), np.int64)
        count = events_of(
            self.level, grey, self.last_ns, now_ns, now_ns - self.then_ns, value["positive_threshold"],
            value["negative_threshold"], int(self.settings["refractory_period_ns"]), rows,
        )  # fmt: skip
        self.then_ns = now_ns
        rows = rows[:count][np.argsort(rows[:count, 2], kind="stable")]
        events = np.empty(count, EVENT)
        for column, name in enumerate(("x", "y", "t", "up")):
            events[name] = rows[:, column]
        return header + events.tobytes()
