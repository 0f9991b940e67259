"""Pictures for docs/: what each sensor sees in each town, at day, at dusk and in fog, through the official client.

    python scripts/gallery.py [--out docs/gallery]

One picture a town: the colour camera in three weathers, and below it what the other sensors make of the same view by day.
Needs the `carla` extra.
"""

from __future__ import annotations

import argparse
import math
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TOWNS = ("grid", "roundabout", "highway", "rural", "Random-3")
SIZE = (416, 234)
WEATHERS = {
    "day": {"sun_altitude_angle": 48.0, "sun_azimuth_angle": 60.0, "cloudiness": 25.0},
    "dusk": {"sun_altitude_angle": 3.0, "sun_azimuth_angle": 200.0, "cloudiness": 30.0},
    "fog": {"sun_altitude_angle": 40.0, "cloudiness": 70.0, "fog_density": 55.0},
    "rain": {
        "sun_altitude_angle": 30.0,
        "cloudiness": 95.0,
        "precipitation": 70.0,
        "precipitation_deposits": 60.0,
        "wetness": 80.0,
    },
    "night": {"sun_altitude_angle": -30.0, "wetness": 30.0},
}
OTHERS = (
    "camera.depth", "camera.semantic_segmentation", "camera.instance_segmentation", "camera.normals", "camera.optical_flow",
    "camera.dvs", "lidar.ray_cast_semantic", "other.radar",
)  # fmt: skip
SETTLE = 60  # ticks, so that traffic has come to life
REACH_M = 30.0  # of the view from above


def main() -> None:
    import carla

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "drivetrain", "sim", "--port", "0", "--traffic", "40"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split(" (streams")[0].rpartition(":")[2])
        client = carla.Client("127.0.0.1", port)
        client.set_timeout(60)
        for town in TOWNS:
            page = town_page(client, town)
            page.save(options.out / f"{town}.jpg", quality=86)
            print(options.out / f"{town}.jpg", flush=True)
    finally:
        server.kill()
        server.wait()


def town_page(client: Any, town: str) -> Image.Image:
    import carla

    world = client.load_world(town)
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    for _ in range(SETTLE):
        world.tick()
    car = interesting(world)
    high = 2 * car.bounding_box.extent.z + 0.5
    mount = carla.Transform(carla.Location(x=0.3, z=high), carla.Rotation(pitch=-4))
    chase = carla.Transform(carla.Location(x=-9, z=5.5), carla.Rotation(pitch=-22))
    above = carla.Transform(carla.Location(x=12, z=32), carla.Rotation(pitch=-90))
    panels = []
    for name, values in WEATHERS.items():
        weather = carla.WeatherParameters()
        for key, value in values.items():
            setattr(weather, key, value)
        world.set_weather(weather)
        panels.append((name, colour(heard(world, car, mount, "sensor.camera.rgb"))))
    world.set_weather(carla.WeatherParameters(**WEATHERS["day"]))
    for name, place in (("from behind", chase), ("from above", above)):
        panels.append((name, colour(heard(world, car, place, "sensor.camera.rgb"))))
    for name in OTHERS:
        panels.append((name, drawn(name, heard(world, car, mount, f"sensor.{name}"))))
    columns, gap = 3, 4
    rows = math.ceil(len(panels) / columns)
    page = Image.new("RGB", (columns * (SIZE[0] + gap) - gap, rows * (SIZE[1] + gap) - gap), "white")
    for number, (name, picture) in enumerate(panels):
        ImageDraw.Draw(picture).text(
            (7, 5), name, fill="white", stroke_width=2, stroke_fill="black", font=ImageFont.load_default(15)
        )
        page.paste(picture, ((number % columns) * (SIZE[0] + gap), number // columns * (SIZE[1] + gap)))
    return page


def interesting(world: Any) -> Any:
    """The vehicle that has the most others before it."""

    def before(car: Any) -> float:
        here = car.get_transform()
        ahead, total = here.get_forward_vector(), 0.0
        for other in cars:
            way = other.get_location() - here.location
            distance = way.length()
            if other.id != car.id and 6 < distance < 60 and (way.x * ahead.x + way.y * ahead.y) > 0.85 * distance:
                total += 1 / distance
        return total

    cars = list(world.get_actors().filter("vehicle.*"))
    return max(cars, key=before)


def heard(world: Any, car: Any, mount: Any, name: str) -> Any:
    """The third message: flow and events need one before."""
    blueprint = world.get_blueprint_library().find(name)
    wanted = {"image_size_x": SIZE[0], "image_size_y": SIZE[1], "fov": 90, "range": 60, "points_per_second": 300_000}
    wanted["rotation_frequency"] = 20
    for key, value in wanted.items():
        if blueprint.has_attribute(key):
            blueprint.set_attribute(key, str(value))
    for key, value in (("horizontal_fov", 60), ("vertical_fov", 15)):
        if "radar" in name:
            blueprint.set_attribute(key, str(value))
    sensor, messages = world.spawn_actor(blueprint, mount, attach_to=car), queue.Queue[Any]()
    sensor.listen(messages.put)
    found = None
    for _ in range(3):
        frame = world.tick()
        while found is None or found.frame < frame:
            found = messages.get(timeout=20)
    sensor.stop()
    sensor.destroy()
    return found


def colour(message: Any) -> Image.Image:
    return Image.fromarray(pixels(message)[..., 2::-1])


def pixels(message: Any) -> Any:
    return np.frombuffer(message.raw_data, np.uint8).reshape(message.height, message.width, 4)


def drawn(name: str, message: Any) -> Image.Image:
    import carla

    if name == "camera.depth":
        message.convert(carla.ColorConverter.LogarithmicDepth)
        return colour(message)
    if name == "camera.semantic_segmentation":
        message.convert(carla.ColorConverter.CityScapesPalette)
        return colour(message)
    if name == "camera.instance_segmentation":
        bgra = pixels(message).astype(np.int64)
        number = bgra[..., 2] * 7 + (bgra[..., 1] + 256 * bgra[..., 0]) * 131
        return Image.fromarray(np.stack([number * k % 223 + 32 for k in (37, 91, 151)], axis=-1).astype(np.uint8))
    if name == "camera.optical_flow":
        return colour(message.get_color_coded_flow())
    if name == "camera.dvs":
        picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        for event in message:
            picture[event.y, event.x, 2 if event.pol else 0] = 255
        return Image.fromarray(picture)
    if name == "lidar.ray_cast_semantic":
        points = [(p.point.x, p.point.y, TINTS[p.object_tag % len(TINTS)]) for p in message]
        return from_above(points, 1)
    if name == "other.radar":
        points = []
        for echo in message:
            flat = echo.depth * math.cos(echo.altitude)
            tint = (255, 90, 70) if echo.velocity < -1 else (80, 160, 255) if echo.velocity > 1 else (220, 220, 220)
            points.append((flat * math.cos(echo.azimuth), flat * math.sin(echo.azimuth), tint))
        return from_above(points, 2)
    return colour(message)


TINTS = [tuple(int(v) for v in row) for row in np.random.default_rng(8).integers(90, 255, (29, 3))]


def from_above(points: list[tuple[float, float, tuple[int, ...]]], dot: int) -> Image.Image:
    """Forward is up."""
    picture = Image.new("RGB", SIZE, (16, 18, 24))
    draw, scale = ImageDraw.Draw(picture), SIZE[1] / REACH_M / 1.6
    for forward, right, tint in points:
        x, y = SIZE[0] / 2 + right * scale, SIZE[1] * 0.8 - forward * scale
        draw.rectangle((x, y, x + dot - 1, y + dot - 1), fill=tint)
    return picture


if __name__ == "__main__":
    main()
