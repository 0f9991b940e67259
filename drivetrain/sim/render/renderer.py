"""The renderer that a server is given: from a scene and a sensor to the sensor's message."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from drivetrain.sim.blueprints import library
from drivetrain.sim.errors import NotOffered, SimError
from drivetrain.sim.maps import Map
from drivetrain.sim.protocol.structs import Transform
from drivetrain.sim.render.cameras import Camera, Lens, Look, look
from drivetrain.sim.render.ranging import Felt, Lidar, Radar, obstacle
from drivetrain.sim.render.scene import Stage, world_of
from drivetrain.sim.sensors import Met, Scene, View
from drivetrain.sim.squares import Squares, squares_of

MOST_REMEMBERED = 512
SIZES = (1, 8192)
DRAWN = ("image_size_x", "image_size_y", "fov", "role_name", "sensor_tick")
EVENTS = ("positive_threshold", "negative_threshold", "refractory_period_ns", "use_log", "log_eps")


class Render:
    """Keeps what cameras and LiDARs remember, and what is the same for all sensors of one tick."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.tell = tell
        self.told: set[tuple[str, str]] = set()
        self.memory: OrderedDict[int, Camera | Lidar | Radar] = OrderedDict()
        self.scene: Scene | None = None
        self.looks: dict[tuple[Lens, Transform], Look] = {}
        self.felt: Felt | None = None
        self.squares: tuple[Map, Squares] | None = None

    def forget(self) -> None:
        """All that sensors remember, and the last tick."""
        self.memory.clear()
        self.looks.clear()
        self.scene = None

    def check(self, blueprint: str, settings: Mapping[str, str]) -> None:
        if blueprint.startswith("sensor.camera."):
            lens = Lens.of(settings)
            if not (SIZES[0] <= lens.width <= SIZES[1] and SIZES[0] <= lens.height <= SIZES[1]):
                raise SimError(
                    f"{blueprint}: got a picture of {lens.width} x {lens.height},"
                    f" expected {SIZES[0]} to {SIZES[1]} pixels each way"
                )
            if not 1.0 <= lens.fov_deg <= 170.0:
                raise SimError(f"{blueprint}: got fov={lens.fov_deg}, expected 1 to 170 degrees")
            if blueprint.endswith(".dvs") and not all(
                float(settings[name]) > 0 for name in ("positive_threshold", "negative_threshold")
            ):
                raise SimError(f"{blueprint}: got a threshold that is not above 0")
            self.tell_unused(blueprint, settings)
        elif blueprint.startswith("sensor.lidar."):
            if not (1 <= int(settings["channels"]) <= 1024 and int(settings["points_per_second"]) <= 10_000_000):
                raise SimError(f"{blueprint}: expected 1 to 1024 channels and at most 10,000,000 points per second")
        elif blueprint not in ("sensor.other.radar", "sensor.other.obstacle"):
            raise NotOffered(blueprint, "nothing here draws it")

    def tell_unused(self, blueprint: str, settings: Mapping[str, str]) -> None:
        """A lens and a film of CARLA's that this camera does not have: said once for each setting that was changed."""
        used = DRAWN + (EVENTS if blueprint.endswith(".dvs") else ())
        for attribute in library().find(blueprint).attributes:
            key = (blueprint, attribute.id)
            if attribute.id not in used and settings[attribute.id] != attribute.value and key not in self.told:
                self.told.add(key)
                self.tell(f"{blueprint}: the setting {attribute.id} has no effect here")

    def prepare(self, scene: Scene) -> None:
        if scene is not self.scene:
            self.scene, self.stage, self.felt = scene, Stage(world_of(scene.map), scene), None
            self.looks.clear()

    def render(self, scene: Scene, view: View) -> bytes:
        self.prepare(scene)
        sensor = self.memory.get(view.id)
        if sensor is None:
            made: type[Camera] | type[Lidar] | type[Radar] = Radar
            if view.blueprint.startswith("sensor.camera."):
                made = Camera
            elif view.blueprint.startswith("sensor.lidar."):
                made = Lidar
            sensor = self.memory[view.id] = made(view)
            if len(self.memory) > MOST_REMEMBERED:
                self.memory.popitem(last=False)
        self.memory.move_to_end(view.id)
        if isinstance(sensor, Camera):
            return sensor.draw(self.stage, self.look(sensor.lens, view.transform))
        return sensor.message(self.feel(scene), view)

    def obstacle(self, scene: Scene, view: View) -> Met | None:
        self.prepare(scene)
        return obstacle(self.feel(scene), view)

    def look(self, lens: Lens, transform: Transform) -> Look:
        """Cameras that share place and lens share the search for what is behind each pixel."""
        key = (lens, transform)
        if key not in self.looks:
            self.looks[key] = look(self.stage, lens, transform)
        return self.looks[key]

    def feel(self, scene: Scene) -> Felt:
        if self.squares is None or self.squares[0] is not scene.map:
            self.squares = (scene.map, squares_of(self.stage.world.place.felt.mesh.corners))
        if self.felt is None:
            self.felt = Felt(self.stage, self.squares[1])
        return self.felt
