"""What cameras, LiDAR and radar see, against what can be worked out by hand."""

import dataclasses
import math
import struct

import numpy as np
import pytest
from sim import maps

from drivetrain.sim.catalogue import MODELS, PROP_BOXES
from drivetrain.sim.errors import SimError
from drivetrain.sim.geometry import matrix
from drivetrain.sim.places import Places, RoadPlace
from drivetrain.sim.protocol.structs import LightColour, Rotation, Transform, Vector3D, Weather
from drivetrain.sim.render import crew, raster
from drivetrain.sim.render.cameras import EVENT, Lens, look
from drivetrain.sim.render.mesh import Tag
from drivetrain.sim.render.ranging import LABELLED
from drivetrain.sim.render.renderer import Render
from drivetrain.sim.render.scene import Stage, world_of
from drivetrain.sim.road.map import load
from drivetrain.sim.sensors import Body, Scene, View

XODR = maps.one(length=400.0)
CONTAINER = "static.prop.container"  # 2.5 x 6.1 x 2.6 m
DAY = Weather(sun_altitude_angle=60.0, sun_azimuth_angle=90.0)
LIDAR = {
    "channels": "8", "range": "60", "points_per_second": "16000", "rotation_frequency": "20", "upper_fov": "0",
    "lower_fov": "-30", "horizontal_fov": "360",
}  # fmt: skip
LOSSES = {
    "atmosphere_attenuation_rate": "0.004", "dropoff_general_rate": "0", "dropoff_intensity_limit": "0.8",
    "dropoff_zero_intensity": "0", "noise_stddev": "0", "noise_seed": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def road():
    return RoadPlace("road", XODR, load(XODR), ())


@pytest.fixture(scope="module")
def grid():
    return Places().load("grid")


def scene(place, bodies=(), weather=DAY, frame=1, elapsed_s=1.0):
    """bodies: (blueprint, x, y, z, yaw in degrees, speed along x, settings)"""
    rows = [(*b, {})[:7] if len(b) < 7 else b for b in bodies]
    made = tuple(
        Body(100 + i, b[0], b[6], (MODELS[b[0]].box if b[0] in MODELS else PROP_BOXES[b[0]]))
        for i, b in enumerate(rows)
    )
    n = len(rows)
    places = np.array([b[1:4] for b in rows], float).reshape(n, 3)
    turns = np.array([(0, math.radians(b[4]), 0) for b in rows], float).reshape(n, 3)
    speeds = np.array([(b[5], 0, 0) for b in rows], float).reshape(n, 3)
    return Scene(frame, elapsed_s, 0.05, place, weather, made, places, turns, speeds, np.zeros(n, int), (), ())


def at(x=0.0, y=0.0, z=0.0, pitch=0.0, yaw=0.0):
    return Transform(Vector3D(x, y, z), Rotation(pitch, yaw, 0.0))


def view(blueprint, transform, number=1, velocity=(0, 0, 0), parent=0, **settings):
    base = {"image_size_x": "64", "image_size_y": "48", "fov": "90"} if "camera" in blueprint else {}
    given = {key: str(value) for key, value in settings.items()}
    return View(number, parent, blueprint, {**base, **given}, transform, Vector3D(*velocity))


def picture(renderer, world, blueprint, transform, **more):
    message = renderer.render(world, view(f"sensor.camera.{blueprint}", transform, **more))
    width, height, fov = struct.unpack("<IIf", message[:12])
    assert (width, height, fov) == (more.get("image_size_x", 64), more.get("image_size_y", 48), 90.0)
    return np.frombuffer(message[12:], np.uint8).reshape(height, width, 4)


def metres(bgra):
    wide = bgra.astype(np.int64)
    return (wide[..., 2] + wide[..., 1] * 256 + wide[..., 0] * 65536) / (2**24 - 1) * 1000


def test_depth_of_a_known_distance(road):
    down = metres(picture(Render(), scene(road), "depth", at(200, 1.75, 1.5, pitch=-90)))
    assert np.abs(down - 1.5).max() < 0.02, "depth is along the axis, the same over a plane that faces it"
    box = scene(road, [(CONTAINER, 220.0, 1.75, 0.0, 0.0, 0.0)])
    ahead = metres(picture(Render(), box, "depth", at(200, 1.75, 1.3)))
    assert ahead[24, 32] == pytest.approx(20.0 - 1.25, abs=0.01)
    assert ahead[0, 0] == pytest.approx(1000.0), "the sky is as far as the format reaches"


def test_labels_and_who_it_is(road):
    world = scene(road, [("vehicle.tesla.model3", 212.0, 1.75, 0.0, 0.0, 0.0)])
    labels = picture(Render(), world, "semantic_segmentation", at(200, 1.75, 1.3))[..., 2]
    assert labels[26, 32] == Tag.CAR
    assert labels[2, 32] == Tag.SKY
    assert labels[47, 32] == Tag.ROAD
    assert labels[30, 1] == Tag.TERRAIN
    who = picture(Render(), world, "instance_segmentation", at(200, 1.75, 1.3))
    assert tuple(who[26, 32, :3]) == (0, 100, Tag.CAR)
    assert tuple(who[47, 32, :3]) == (0, 0, Tag.ROAD)
    seen = picture(Render(), scene(road), "semantic_segmentation", at(200, 0.0, 20.0, pitch=-90))[..., 2]
    assert (seen == Tag.ROAD_LINE).any() or (seen == Tag.ROAD).any()


def test_normals_face_the_right_way(road):
    ground = picture(Render(), scene(road), "normals", at(200, 1.75, 1.5, pitch=-90))
    assert np.all(np.abs(ground[..., :3].astype(int) - (255, 127, 127)) <= 1)
    box = scene(road, [(CONTAINER, 220.0, 1.75, 0.0, 0.0, 0.0)])
    face = picture(Render(), box, "normals", at(200, 1.75, 1.3))[24, 32, :3]
    assert np.all(np.abs(face.astype(int) - (127, 127, 0)) <= 1), "it looks back at us, along -x"


@pytest.mark.parametrize(("color", "channel"), [("255,0,0", 2), ("0,255,0", 1), ("0,0,255", 0)])
def test_a_pixel_of_a_known_colour(road, color, channel):
    world = scene(road, [("vehicle.mercedes.sprinter", 208.0, 1.75, 0.0, 90.0, 0.0, {"color": color})])
    side = picture(Render(), world, "rgb", at(200, 1.75, 1.0))[25:27, 28:36, :3].reshape(-1, 3).mean(0)
    others = [i for i in range(3) if i != channel]
    assert side[channel] > 60
    assert side[channel] > 2 * max(side[others])


def test_the_hour_and_the_fog_change_the_picture(road):
    eye = at(200, 1.75, 1.6)

    def bright(weather):
        return picture(Render(), scene(road, weather=weather), "rgb", eye)[..., :3].astype(float)

    day = bright(DAY)
    dusk = bright(dataclasses.replace(DAY, sun_altitude_angle=2.0))
    night = bright(dataclasses.replace(DAY, sun_altitude_angle=-30.0))
    fog = bright(dataclasses.replace(DAY, fog_density=80.0))
    rain = bright(dataclasses.replace(DAY, precipitation=80.0, wetness=80.0, cloudiness=90.0))
    assert day.mean() > 1.3 * dusk.mean() > 1.3 * 1.3 * night.mean()
    far = (slice(25, 29), slice(None))
    assert fog[far].std() < 0.6 * day[far].std(), "far things are lost in the fog"
    assert np.abs(rain - day).mean() > 10


def test_what_stands_in_the_sun_throws_a_shadow(road):
    eye = at(200, 1.75, 12.0, pitch=-90)
    sun = dataclasses.replace(DAY, sun_altitude_angle=45.0, sun_azimuth_angle=0.0)
    without = picture(Render(), scene(road, weather=sun), "rgb", eye)[..., 1].astype(float)
    world = scene(road, [(CONTAINER, 206.0, 1.75, 0.0, 0.0, 0.0)], weather=sun)
    with_box = picture(Render(), world, "rgb", eye)[..., 1].astype(float)
    # the sun is at +x, so the shadow of a box at +6 m reaches to about +2 m, which is above the middle of the picture
    shaded = (without - with_box)[8:18, 28:36]
    assert shaded.max() > 20
    assert np.abs((without - with_box)[30:, :]).max() < 6, "and not to the other side"


def test_flow_is_how_far_things_moved_over_the_picture(road):
    renderer, box = Render(), [(CONTAINER, 211.25, 1.75, 0.0, 0.0, 0.0)]
    sensor = "sensor.camera.optical_flow"
    renderer.render(scene(road, box, elapsed_s=1.0), view(sensor, at(200, 1.75, 1.3)))
    message = renderer.render(scene(road, box, elapsed_s=1.05), view(sensor, at(200, 2.25, 1.3)))
    flow = np.frombuffer(message[12:], np.float32).reshape(48, 64, 2)
    focal = 32.0
    assert flow[24, 32] * (64, 48) == pytest.approx((-0.5 * focal / 10.0, 0.0), abs=1e-3)
    moving = [(CONTAINER, 211.25, 1.75, 0.0, 0.0, -20.0)]  # one metre nearer in a tick
    renderer = Render()
    renderer.render(
        scene(road, [(CONTAINER, 212.25, 1.75, 0.0, 0.0, -20.0)], elapsed_s=1.0), view(sensor, at(200, 1.75, 1.3))
    )
    message = renderer.render(scene(road, moving, elapsed_s=1.05), view(sensor, at(200, 1.75, 1.3)))
    grows = np.frombuffer(message[12:], np.float32).reshape(48, 64, 2)[24, 36, 0] * 64
    out_m = (36.5 - 32) / focal * 10.0
    assert grows == pytest.approx((36.5 - 32) - out_m / 11.0 * focal, abs=1e-2)


def test_events_come_where_it_changes_and_nowhere_else(road):
    settings = {
        "positive_threshold": "0.3", "negative_threshold": "0.3", "log_eps": "0.001", "use_log": "true",
        "refractory_period_ns": "0",
    }  # fmt: skip
    renderer = Render()

    def events(bodies, elapsed_s):
        world = scene(road, bodies, elapsed_s=elapsed_s)
        message = renderer.render(world, view("sensor.camera.dvs", at(200, 1.75, 1.3), **settings))
        return np.frombuffer(message[12:], EVENT)

    assert len(events([], 1.0)) == 0
    assert len(events([], 1.05)) == 0
    came = events([(CONTAINER, 215.0, 1.75, 0.0, 0.0, 0.0)], 1.10)
    assert len(came) > 20
    assert np.all(np.diff(came["t"]) >= 0)
    assert came["t"].min() >= 1_050_000_000
    assert came["t"].max() <= 1_100_000_000
    assert {int(x) for x in came["x"]} <= set(range(16, 48)), "only where the box is"


def test_lidar_hits_a_known_box(road):
    world = scene(road, [(CONTAINER, 220.0, 1.75, 0.0, 0.0, 0.0)])
    message = Render().render(world, view("sensor.lidar.ray_cast", at(200, 1.75, 1.3), **LIDAR, **LOSSES))
    angle, channels = struct.unpack("<fI", message[:8])
    counts = struct.unpack(f"<{channels}I", message[8 : 8 + 4 * channels])
    points = np.frombuffer(message[8 + 4 * channels :], np.float32).reshape(-1, 4)
    assert channels == 8
    assert sum(counts) == len(points)
    assert angle == pytest.approx(0.0, abs=1e-6), "20 turns a second, 0.05 s: one whole turn"
    top = points[: counts[0]]
    ahead = top[np.abs(np.arctan2(top[:, 1], top[:, 0])) < 0.1]
    assert len(ahead) == 3
    assert ahead[:, 0] == pytest.approx(18.75, abs=1e-3)
    low = points[-counts[-1] :]
    assert low[:, 2] == pytest.approx(-1.3, abs=0.16), "30 degrees down it meets the ground"
    assert points[:, 3] == pytest.approx(np.exp(-0.004 * np.linalg.norm(points[:, :3], axis=1)), abs=1e-5)
    faint = {**LOSSES, "dropoff_general_rate": "0.45"}
    fewer = Render().render(world, view("sensor.lidar.ray_cast", at(200, 1.75, 1.3), **LIDAR, **faint))
    assert 0.45 < (len(fewer) - 8 - 4 * channels) / 16 / len(points) < 0.65


def test_labelled_lidar_says_what_and_who(road):
    world = scene(road, [("vehicle.tesla.model3", 212.0, 1.75, 0.0, 0.0, 0.0)])
    message = Render().render(world, view("sensor.lidar.ray_cast_semantic", at(200, 1.75, 1.8), **LIDAR))
    rows = np.frombuffer(message[8 + 4 * 8 :], LABELLED)
    assert set(rows["who"]) == {0, 100}
    car = rows[rows["who"] == 100]
    assert set(car["tag"]) == {Tag.CAR}
    assert 9.0 < car["x"].min() < 10.5
    ground = rows[rows["tag"] == Tag.ROAD]
    assert ground["cos"] == pytest.approx(
        np.abs(ground["z"]) / np.linalg.norm([ground["x"], ground["y"], ground["z"]], axis=0), abs=0.01
    )


def test_radar_measures_closing_speed(road):
    world = scene(road, [(CONTAINER, 230.0, 1.75, 0.0, 0.0, -10.0)])
    settings = {"horizontal_fov": 10, "vertical_fov": 2, "range": 100, "points_per_second": 4000, "noise_seed": 0}
    message = Render().render(world, view("sensor.other.radar", at(200, 1.75, 1.3), velocity=(5, 0, 0), **settings))
    velocity, azimuth, altitude, depth = np.frombuffer(message, np.float32).reshape(-1, 4).T
    assert len(depth) == 200
    hit = depth < 40
    assert hit.sum() > 100
    assert velocity[hit] == pytest.approx(-15.0 * np.cos(azimuth[hit]) * np.cos(altitude[hit]), abs=1e-3)
    assert (depth * np.cos(azimuth) * np.cos(altitude))[hit] == pytest.approx(28.75, abs=1e-3)


def test_the_obstacle_detector_finds_the_first_thing_ahead(road):
    settings = {"distance": 30, "hit_radius": 0.5, "only_dynamics": "false"}
    sensor = view("sensor.other.obstacle", at(200, 1.75, 1.3), **settings)
    met = Render().obstacle(scene(road, [(CONTAINER, 220.0, 1.75, 0.0, 0.0, 0.0)]), sensor)
    assert (met.actor, met.distance_m) == (100, pytest.approx(18.75, abs=1e-3))
    assert Render().obstacle(scene(road), sensor) is None, "the ground is none"


def test_rays_and_pixels_agree(grid):
    """Two ways to the same answer: what the raster has behind a pixel is what a ray through it meets."""
    renderer, world = Render(), scene(grid, [("vehicle.audi.tt", 60.0, 2.0, 0.0, 20.0, 0.0)])
    renderer.prepare(world)
    felt = renderer.feel(world)
    draw = np.random.default_rng(0)
    wrong = total = 0
    for point in grid.spawn_points()[::17]:
        place = Transform(dataclasses.replace(point.location, z=point.location.z + 1.5), point.rotation)
        seen = look(renderer.stage, Lens(96, 64, 80.0), place)
        rows, columns = draw.integers(0, 64, 200), draw.integers(0, 96, 200)
        right, down = (columns + 0.5 - 48) / seen.lens.focal, (rows + 0.5 - 32) / seen.lens.focal
        turn = matrix(place.rotation)
        ways = turn[:, 0] + right[:, None] * turn[:, 1] - down[:, None] * turn[:, 2]
        length = np.linalg.norm(ways, axis=1)
        distance, hit = felt.cast(seen.eye[0], ways / length[:, None], 90.0)
        near = seen.near[rows, columns]
        depth = np.where(near > 0, length / np.maximum(near, 1e-9), np.inf)
        both = (hit >= 0) & (depth < 85.0)
        far_off = np.abs(distance - depth) > 0.02 + 0.01 * distance  # paint lies a centimetre higher
        wrong += int((both & far_off).sum()) + int(((hit < 0) & (depth < 85.0)).sum())
        total += int(both.sum())
    assert total > 800
    assert wrong / total < 0.01, "but for thin things that are left out far away"


def test_culling_takes_nothing_away(grid):
    """Chunks, sides and faces turned away are passed over; drawing everything gives the same picture."""
    stage = Stage(world_of(grid), scene(grid, [("vehicle.audi.tt", 60.0, 2.0, 0.0, 20.0, 0.0)]))
    seen = stage.world.place.seen
    for point in grid.spawn_points()[::29]:
        place = Transform(dataclasses.replace(point.location, z=point.location.z + 1.5), point.rotation)
        found = look(stage, Lens(80, 45, 90.0), place)
        near, ids = np.zeros_like(found.near), np.zeros_like(found.ids)
        everywhere = np.array([[-1e6, -1e6, -1e6, 1e6, 1e6, 1e6]], np.float32)
        for mesh, base in ((seen.mesh, 0), (stage.live, stage.first_live)):
            n = len(mesh.corners)
            raster.draw(
                mesh.corners, np.zeros(n, np.uint8), mesh.size, np.array([0, n]), everywhere, np.array([1e9], np.float32),
                found.eye, found.lens.focal, near, ids, base, 0, 1,
            )  # fmt: skip
        assert (near != found.near).mean() < 0.002


@pytest.mark.parametrize("hands", [1, 3])
def test_pictures_do_not_depend_on_how_many_draw_them(road, grid, hands, monkeypatch):
    point = grid.spawn_points()[5]
    settings = {"image_size_x": 320, "image_size_y": 200, "fov": 90}
    sensor = view(
        "sensor.camera.rgb", Transform(dataclasses.replace(point.location, z=2.0), point.rotation), **settings
    )
    alone = Render().render(scene(grid), sensor)
    monkeypatch.setattr(crew, "HANDS", hands)
    assert Render().render(scene(grid), sensor) == alone


def test_lights_show_their_colour(grid):
    from drivetrain.sim.lights import Lights

    lights = Lights()
    place = grid.lights()[0]
    light = lights.add(500, place)
    where, yaw = place.transform.location, place.transform.rotation.yaw
    ahead = np.array([math.cos(math.radians(yaw)), math.sin(math.radians(yaw))]) * 4.0
    eye = at(where.x + ahead[0], where.y + ahead[1], where.z + 4.6, yaw=yaw + 180)
    found = {}
    for colour in (LightColour.RED, LightColour.YELLOW, LightColour.GREEN):
        world = dataclasses.replace(scene(grid), lights=(light,), colours=(colour,))
        pixels = picture(Render(), world, "rgb", eye)[..., :3].reshape(-1, 3).astype(int)
        found[colour] = pixels[pixels.max(1).argmax()], pixels
    blue, green, red = (found[LightColour.RED][1][:, i] for i in range(3))
    assert ((red > 200) & (green < 80)).any()
    blue, green, red = (found[LightColour.GREEN][1][:, i] for i in range(3))
    assert ((green > 200) & (red < 80)).any()
    assert not ((red > 200) & (green < 80)).any()
    blue, green, red = (found[LightColour.YELLOW][1][:, i] for i in range(3))
    assert ((red > 200) & (green > 160) & (blue < 80)).any()


@pytest.mark.parametrize(
    "settings", [{"image_size_x": "0"}, {"image_size_y": "100000"}, {"fov": "0.1"}, {"fov": "200"}]
)
def test_cameras_that_cannot_be_are_refused(settings):
    given = {"image_size_x": "64", "image_size_y": "48", "fov": "90", **settings}
    with pytest.raises(SimError, match="expected"):
        Render().check("sensor.camera.depth", given)


def test_settings_without_effect_are_named_once():
    from drivetrain.sim.blueprints import library

    told = []
    definition = library().find("sensor.camera.rgb")
    settings = {one.id: one.value for one in definition.attributes} | {"motion_blur_intensity": "0.9"}
    renderer = Render(told.append)
    renderer.check("sensor.camera.rgb", settings)
    renderer.check("sensor.camera.rgb", settings)
    assert told == ["sensor.camera.rgb: the setting motion_blur_intensity has no effect here"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_vehicle_fills_its_box(road, name):
    """From behind: its picture is as wide and as high as its box."""
    model = MODELS[name]
    world = scene(road, [(name, 215.0, 1.75, 0.0, 0.0, 0.0)])
    labels = picture(Render(), world, "instance_segmentation", at(200, 1.75, 0.8), image_size_x=640, image_size_y=480)[
        ..., 1
    ]
    rows, columns = np.nonzero(labels == 100)
    focal, distance = 320.0, 15.0 - model.length_m / 2
    width = (columns.max() - columns.min() + 1) / focal * distance
    assert width == pytest.approx(model.width_m, abs=0.35)
    top = (240 - rows.min()) / focal * distance + 0.8
    assert top == pytest.approx(model.height_m, abs=0.75)
