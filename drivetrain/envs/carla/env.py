"""CARLA in our words: drive a route from pictures, on the real server or on ours.

    make_env("carla")                                        a server of our own, the town "grid"
    make_env("carla:town=grid+roundabout,traffic=20,hz=10")  a town for each episode, 20 other cars
    make_env("carla:host=127.0.0.1,port=2000,town=Town03")   whoever listens there; ours is started where nobody does
    make_env("carla:routes=routes.xml")                      Leaderboard's routes in place of drawn ones

`town=Random` is another generated town in each episode. The action is steer, throttle and brake or, with `action=path`, five
points 3 to 20 m ahead and a speed, which `follow.py` turns into pedals. `state=speed+command` are the numbers that are seen;
`points` are the next two of a coarse route. `sensors=lidar+radar+imu` adds what they see, `blank=1` takes the picture away.
Each episode's world is loaded anew where the server is ours, so that an episode is a function of its seed.

`info` names the terms of the reward under `reward.`, the score so far under `score`, and, for experts, under `privileged.`:

    path [64, 2] metre by metre, ahead and to the right    car [6] half length, axles apart, most steer, rear, speed, limit
    others [32, 7] x, y, yaw, speed, half length, half width, kind (1 vehicle, 2 walker, 3 thing; 0 nobody)
    stops [2] metres to a light that is not green, and to a stop sign still to be heeded; 999 where there is none
"""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import weakref
from typing import Any

import gymnasium as gym
import numpy as np

from drivetrain.envs.carla import follow, route, server
from drivetrain.envs.carla.alarm import Alarm
from drivetrain.envs.carla.route import COMMANDS, FOLLOW, Route
from drivetrain.envs.carla.score import FACTORS, Score, Touch
from drivetrain.envs.words import space_of
from drivetrain.errors import BadConfig
from drivetrain.sample import ACTION, STATE, Feature, Sample, Spec

Array = np.ndarray
TASK = "Follow the route."
TICK_S = 0.05
VEHICLE = "vehicle.lincoln.mkz_2020"
CAMERAS = {  # where they are and look, on the roof
    "front": {"x": 1.0, "z": 1.8},
    "left": {"y": -0.5, "z": 1.8, "yaw": -90.0},
    "right": {"y": 0.5, "z": 1.8, "yaw": 90.0},
    "rear": {"x": -1.0, "z": 1.8, "yaw": 180.0},
}
FILM = {"x": -6.5, "z": 3.4, "pitch": -12.0}
FILM_SIZE = (640, 360)
POINTS_M = (3.0, 6.0, 10.0, 15.0, 20.0)  # of the path that is an action
FASTEST_MPS = 40.0
GOALS_M = (10.0, 30.0)  # how far ahead the next point of the coarse route is at least, and how far they are apart
GOAL_MOST_M = 200.0
PATH_ROWS, OTHERS, SIGHT_M, NONE_M = 64, 32, 70.0, 999.0
HEEDED_M, HEEDED_MPS = 8.0, 0.2  # a stop sign asks for a halt this near to its line
MOST_WARM_TICKS = 200
PLACES_TRIED = 50
FIRST_TRIES, FIRST_S = 12, 5.0
ROLE = "hero"

CONTROLS = Feature((3,), low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0), names=("steer", "throttle", "brake"))
PATH = Feature(
    (2 * len(POINTS_M) + 1,),
    low=(*(b for far in POINTS_M for b in (-far, -far)), 0.0),
    high=(*(b for far in POINTS_M for b in (far, far)), FASTEST_MPS),
    names=(*(f"{axis}_at_{far:.0f}_m" for far in POINTS_M for axis in ("ahead", "right")), "speed_mps"),
)
LIDAR_ROWS, RADAR_ROWS = 4096, 256
SENSORS = {
    "lidar": ("observation.lidar.top", Feature((LIDAR_ROWS, 4), names=(), ragged=True)),
    "radar": ("observation.radar.front", Feature((RADAR_ROWS, 4), names=(), ragged=True)),
    "imu": (
        "observation.imu",
        Feature((7,), names=("ax_mps2", "ay_mps2", "az_mps2", "wx_radps", "wy_radps", "wz_radps", "compass_rad")),
    ),
}
BLUEPRINTS = {  # a LiDAR's message is what it turned in one tick of the world; at 20 turns a second all around
    "lidar": (
        "sensor.lidar.ray_cast",
        {"channels": "32", "range": "50", "points_per_second": "60000", "rotation_frequency": "20"},
        {"z": 1.9},
    ),
    "radar": ("sensor.other.radar", {"points_per_second": "1500"}, {"x": 2.3, "z": 0.8}),
    "imu": ("sensor.other.imu", {}, {}),
}
WEATHERS = ("ClearNoon", "CloudyNoon", "WetNoon", "SoftRainNoon", "ClearSunset", "CloudySunset", "WetSunset")


NUMBERS: dict[str, tuple[tuple[str, ...], float, float]] = {  # names, lowest, highest
    "speed": (("speed_mps",), 0.0, FASTEST_MPS),
    "command": (COMMANDS, 0.0, 1.0),
    "points": (("goal_ahead_m", "goal_right_m", "next_ahead_m", "next_right_m"), -GOAL_MOST_M, GOAL_MOST_M),
}


def state_feature(parts: list[str]) -> Feature:
    rows = [(name, low, high) for part in parts for names, low, high in [NUMBERS[part]] for name in names]
    names, low, high = zip(*rows, strict=True)
    return Feature((len(rows),), low=low, high=high, names=names)


def carla(
    town: str = "grid",
    host: str = "127.0.0.1",
    port: int = 0,
    traffic: int = 0,
    length: int = 300,
    turns: int = 2,
    routes: str = "",
    action: str = "controls",
    state: str = "speed+command",
    camera: str = "160x90",
    cameras: str = "front",
    sensors: str = "",
    blank: int = 0,
    weather: str = "ClearNoon",
    lights: str = "on",
    stray: int = 30,
    hz: int = 10,
    film: int = 0,
    autopilot: int = 0,
) -> gym.Env[Sample, Any]:
    return CarlaEnv(**locals())


class CarlaEnv(gym.Env[Sample, Any]):
    render_mode = "rgb_array"
    waits = True  # a step is spent waiting for a server: worlds side by side step in threads

    def __init__(self, **options: Any):
        self.options = options
        self.town, self.host, self.port = str(options["town"]), str(options["host"]), int(options["port"])
        self.traffic, self.by_path = int(options["traffic"]), options["action"] == "path"
        self.sensors = [name for name in str(options["sensors"]).split("+") if name]
        self.cameras = [name for name in str(options["cameras"]).split("+") if name]
        self.numbers = [name for name in str(options["state"]).split("+") if name]
        self.check(options)
        self.size = tuple(int(side) for side in str(options["camera"]).split("x"))
        self.listed = route.read_xml(options["routes"]) if options["routes"] else []
        self.ticks = round(1 / (TICK_S * options["hz"]))
        picture = Feature((self.size[1], self.size[0], 3), "uint8", 0.0, 255.0, colour="rgb")
        features = {f"observation.images.{name}": picture for name in self.cameras}
        features[STATE] = state_feature(self.numbers)
        features |= dict(SENSORS[name] for name in self.sensors)
        features[ACTION] = PATH if self.by_path else CONTROLS
        self.sample_spec = Spec(features, TASK, float(options["hz"]))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.sample_spec.fps}
        self.observation_space = gym.spaces.Dict(self.spaces())
        self.action_space = space_of(self.sample_spec.action)
        self.server: server.Server | None = None
        self.client: Any = None
        self.world: Any = None
        self.mounted: list[Any] = []
        self.heard: dict[str, queue.Queue[Any]] = {}
        self.seen: Sample = {}
        self.manager: Any = None  # CARLA's TrafficManager, where one drives
        self.alarm: Alarm | None = None  # which wakes it
        self.ego: Any = None
        self.others: list[Any] = []
        self.ours: list[int] = []  # actors that we brought into a world that is not ours
        self.theirs: Any = None  # puts that world right again

    def check(self, options: dict[str, Any]) -> None:
        for name, allowed in {
            "action": ("controls", "path"), "lights": ("on", "green"),
            "hz": (1, 2, 4, 5, 10, 20), "weather": (*WEATHERS, "random"),
        }.items():  # fmt: skip
            if options[name] not in allowed:
                listed = ", ".join(map(str, allowed))
                raise BadConfig(f"BadConfig: carla: got {name}={options[name]}, expected one of {listed}")
        if options["autopilot"] and self.by_path:
            raise BadConfig("BadConfig: carla: an autopilot has pedals and no path; leave action=path out")
        for name in self.sensors:
            if name not in SENSORS:
                raise BadConfig(
                    f"BadConfig: carla: there is no sensor {name!r}; join some of {', '.join(SENSORS)} by +"
                )
        if not self.cameras or set(self.cameras) - set(CAMERAS):
            raise BadConfig(
                f"BadConfig: carla: got cameras={options['cameras']}, expected some of {', '.join(CAMERAS)}, by +"
            )
        if not self.numbers or set(self.numbers) - set(NUMBERS):
            raise BadConfig(
                f"BadConfig: carla: got state={options['state']}, expected some of {', '.join(NUMBERS)}, by +"
            )
        sides = str(options["camera"]).split("x")
        if len(sides) != 2 or not all(side.isdigit() and 8 <= int(side) <= 4096 for side in sides):
            raise BadConfig(f"BadConfig: carla: got camera={options['camera']}, expected WIDTHxHEIGHT, as in 160x90")
        if self.traffic < 0 or int(options["length"]) < 10 or int(options["turns"]) < 0 or int(options["stray"]) < 1:
            raise BadConfig("BadConfig: carla: traffic and turns are 0 or more, length 10 m or more, stray 1 m or more")

    def spaces(self) -> dict[str, gym.Space[Any]]:
        found: dict[str, gym.Space[Any]] = {}
        for key, feature in self.sample_spec.observations.items():
            found[key] = space_of(feature)
            if feature.ragged:
                found[f"{key}.count"] = gym.spaces.Box(0, feature.shape[0], (), np.int64)
        return found

    # ---- an episode begins

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        super().reset(seed=seed)
        self.leave()
        drawn = int(self.np_random.integers(1 << 62))
        for attempt in (1, 2):
            try:
                self.begin(np.random.default_rng(drawn))
                break
            except (RuntimeError, queue.Empty, server.NoServer) as error:
                gone, again = self.gone(error), self.server is not None and self.server.ours and attempt == 1
                self.drop_server()
                if not again:
                    raise gone from None
        return self.seen, self.info()

    def gone(self, error: Exception) -> server.NoServer:
        if isinstance(error, server.NoServer):
            return error
        said = (str(error).splitlines() or [type(error).__name__])[0]
        where = f"{self.server.host}:{self.server.port}" if self.server else f"{self.host}:{self.port}"
        return server.NoServer(f"NoServer: {where} stopped answering ({said}); start it again and go on with --resume")

    def begin(self, random: np.random.Generator) -> None:
        import carla

        if self.server is None:
            self.server = server.borrow(self.host, self.port, self.traffic)
            self.client = server.connect(self.server)
            if not self.server.ours:
                self.theirs = weakref.finalize(self, tidy, self.client, self.ours)
        listed = self.listed[int(random.integers(len(self.listed)))] if self.listed else None
        self.load((listed.town if listed else "") or self.a_town(random))
        self.map = self.world.get_map()
        step_by_step(self.world)
        name = str(self.options["weather"])
        name = WEATHERS[int(random.integers(len(WEATHERS)))] if name == "random" else name
        self.world.set_weather(getattr(carla.WeatherParameters, name))
        self.populate(random)
        self.take_place(random, route.between(self.map, listed.places) if listed else None)
        self.tick_world()  # a TrafficManager forgets whom it does not find in the world
        self.look_around()
        self.mount()
        self.applied, self.speed_mps = np.zeros(3, np.float32), 0.0
        self.score, self.row = Score(self.way.length_m, float(self.options["stray"])), 0
        self.heeded, self.passed, self.speeds = set[float](), set[float](), dict[int, float]()
        if self.options["autopilot"]:
            self.hand_over()
        self.open_eyes()
        self.observe()

    def take_place(self, random: np.random.Generator, way: Route | None) -> None:
        """On the route given, or on one drawn; the world goes on where somebody stands at its start."""
        for _ in range(PLACES_TRIED):
            self.way = way or route.draw(self.map, random, float(self.options["length"]), int(self.options["turns"]))
            self.ego = self.spawn()
            if self.ego is not None:
                return
            self.tick_world()
        raise BadConfig(f"BadConfig: no free place to begin at in {self.map.name}; ask for less traffic")

    def open_eyes(self) -> None:
        """The first pictures: a server begins to draw when it knows that somebody listens."""
        for attempt in range(FIRST_TRIES):
            try:
                self.tick(wait_s=FIRST_S)
                return
            except queue.Empty:
                if attempt == FIRST_TRIES - 1:
                    raise

    def a_town(self, random: np.random.Generator) -> str:
        towns = self.town.split("+")
        name = towns[int(random.integers(len(towns)))]
        return f"Random-{random.integers(10_000)}" if name == "Random" else name

    def load(self, town: str) -> None:
        """Ours anew for each episode; the real server, which takes long, only where the town is another."""
        assert self.server is not None
        self.kinds: dict[int, tuple[int, float, float]] = {}
        if not self.server.ours:
            self.world = self.client.get_world()
            if self.world.get_map().name.rpartition("/")[2] == town:
                for actor in [*self.world.get_actors().filter("vehicle.*")]:
                    if actor.attributes.get("role_name") == ROLE:  # of a run that was killed
                        actor.destroy()
                return
            there = [name.rpartition("/")[2] for name in self.client.get_available_maps()]
            if town not in there and not town.startswith("Random-"):
                raise BadConfig(f"BadConfig: the server has no town {town}; it has {', '.join(sorted(there))}")
        with server.patience(self.client, server.LOAD_S):
            if self.server.ours:  # nothing may move by the clock between the load and the first tick
                step_by_step(self.client.get_world())
            try:
                self.world = self.client.load_world(town, not self.server.ours)
            except RuntimeError as error:
                if "UnknownTown: " in str(error):
                    raise BadConfig(f"BadConfig: {str(error).rpartition('UnknownTown: ')[2].splitlines()[0]}") from None
                raise
        for line in self.server.hear():
            print(line, file=sys.stderr)

    def populate(self, random: np.random.Generator) -> None:
        """Others on the road. A server of ours brings them itself; elsewhere the TrafficManager drives them."""
        assert self.server is not None
        self.lamps = list(self.world.get_actors().filter("traffic.traffic_light*"))
        if self.options["lights"] == "green":
            import carla

            for lamp in self.lamps:
                lamp.set_state(carla.TrafficLightState.Green)
            self.world.freeze_all_traffic_lights(True)
        if self.traffic and self.server.ours:
            for _ in range(int(random.integers(MOST_WARM_TICKS))):
                self.tick_world()
        elif self.traffic:
            self.others = self.managed(random)

    def traffic_manager(self) -> Any:
        """One for each episode, at a port of its own: it keeps the map that it first saw. It listens on all addresses."""
        if self.manager is None:
            self.manager = self.client.get_trafficmanager(server.free_port())
            self.manager.set_synchronous_mode(True)
            self.alarm = Alarm(self.manager.get_port())
        return self.manager

    def managed(self, random: np.random.Generator) -> list[Any]:
        manager = self.traffic_manager()
        manager.set_random_device_seed(int(random.integers(1 << 30)))
        prints = [b for b in self.world.get_blueprint_library().filter("vehicle.*") if b.has_attribute("base_type")]
        prints = [b for b in prints if b.get_attribute("base_type").as_str() == "car"]
        places = self.map.get_spawn_points()
        found: list[Any] = []
        for place in (places[i] for i in random.permutation(len(places))):
            if len(found) == self.traffic:
                break
            actor = self.world.try_spawn_actor(prints[int(random.integers(len(prints)))], place)
            if actor is not None:
                found.append(actor)
        if len(found) < self.traffic:
            print(f"{self.map.name} has room for {len(found)} others, {self.traffic} were asked for", file=sys.stderr)
        self.ours += [actor.id for actor in found]
        self.tick_world()  # as in `begin`
        for actor in found:
            actor.set_autopilot(True, manager.get_port())
        return found

    def spawn(self) -> Any:
        import carla

        x, y, z = (float(v) for v in self.way.points[0])
        blueprint = self.world.get_blueprint_library().find(VEHICLE)
        if blueprint.has_attribute("role_name"):
            blueprint.set_attribute("role_name", ROLE)
        yaw = math.degrees(float(self.way.yaw_rad[0]))
        place = carla.Transform(carla.Location(x, y, z + 0.4), carla.Rotation(yaw=yaw))
        ego = self.world.try_spawn_actor(blueprint, place)
        self.ours += [ego.id] if ego is not None else []
        return ego

    def look_around(self) -> None:
        """What stays as it is for the episode: our vehicle's measures and the lines on the way."""
        self.way = Route(**{**self.way.__dict__, "stops": route.stops_on(self.way, self.map, self.lamps)})
        self.lights = {lamp.id: lamp for lamp in self.lamps}
        physics = self.ego.get_physics_control()
        wheels = physics.wheels
        extent = self.ego.bounding_box.extent
        front, rear = wheels[0].position, wheels[2].position
        base = math.hypot(front.x - rear.x, front.y - rear.y) / 100 if len(wheels) > 2 else 1.2 * extent.x
        base = base if 0.5 * extent.x < base < 2 * extent.x else 1.2 * extent.x
        self.car = follow.Car(base, math.radians(wheels[0].max_steer_angle), base / 2)
        self.half = (float(extent.x), float(extent.y))

    def mount(self) -> None:
        import carla

        library = self.world.get_blueprint_library()
        assert self.server is not None
        # Ours draws what is asked for and no more; CARLA's interval gains on the clock, so there every tick is drawn.
        period = str(self.ticks * TICK_S) if self.ticks > 1 and self.server.ours else "0.0"

        def add(name: str, blueprint: str, settings: dict[str, str], place: dict[str, float]) -> None:
            made = library.find(blueprint)
            rhythm = {"sensor_tick": period if blueprint.startswith("sensor.camera.") else "0.0"}
            for key, value in {**settings, **rhythm}.items():
                made.set_attribute(key, value)
            spot = {key: place.get(key, 0.0) for key in ("x", "y", "z")}
            turn = carla.Rotation(pitch=place.get("pitch", 0.0), yaw=place.get("yaw", 0.0))
            actor = self.world.spawn_actor(made, carla.Transform(carla.Location(**spot), turn), attach_to=self.ego)
            self.heard[name] = queue.Queue()
            actor.listen(self.heard[name].put)
            self.mounted.append(actor)
            self.ours.append(actor.id)

        size = {"image_size_x": str(self.size[0]), "image_size_y": str(self.size[1]), "fov": "100"}
        for name in self.cameras:
            add(name, "sensor.camera.rgb", size, CAMERAS[name])
        if self.options["film"]:
            size = {"image_size_x": str(FILM_SIZE[0]), "image_size_y": str(FILM_SIZE[1]), "fov": "90"}
            add("film", "sensor.camera.rgb", size, FILM)
        for name in self.sensors:
            add(name, *BLUEPRINTS[name])
        self.bumps: queue.Queue[Any] = queue.Queue()
        bumper = self.world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=self.ego)
        bumper.listen(self.bumps.put)
        self.mounted.append(bumper)
        self.ours.append(bumper.id)

    def hand_over(self) -> None:
        """CARLA's TrafficManager drives our vehicle along the route."""
        import carla

        manager = self.traffic_manager()
        self.ego.set_autopilot(True, manager.get_port())
        manager.set_path(self.ego, [carla.Location(*map(float, p)) for p in self.way.points[5::5]])
        manager.auto_lane_change(self.ego, False)

    # ---- a step

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        before = (self.score.best_m, dict(self.score.counts), self.applied)
        try:
            self.feel(self.snapshot.frame)
            self.speeds.clear()
            if not self.options["autopilot"]:
                self.drive(np.asarray(action, np.float32))
            for last in range(self.ticks):
                self.tick(last == self.ticks - 1)
            self.observe()
            if self.score.ended:
                self.feel(self.snapshot.frame)
        except (RuntimeError, queue.Empty) as error:
            if self.server is None or not self.server.ours:
                gone = self.gone(error)
                self.drop_server()
                raise gone from None
            self.drop_server()
            return self.seen, 0.0, False, True, {**self.last_info, "lost": True}
        terms = self.rewards(*before)
        info = self.info() | {f"reward.{name}": value for name, value in terms.items()}
        ended = self.score.ended
        return self.seen, sum(terms.values()), ended in ("finished", "deviated"), ended in ("blocked", "timeout"), info

    def drive(self, action: Array) -> None:
        import carla

        low, high = self.sample_spec.action.bounds()
        action = np.clip(action, low, high)
        if self.by_path:
            action = follow.controls(action[:-1].reshape(-1, 2), float(action[-1]), self.speed_mps, self.car)
        self.applied = action
        steer, throttle, brake = (float(v) for v in action)
        self.ego.apply_control(carla.VehicleControl(throttle=throttle, steer=steer, brake=brake))

    def tick_world(self) -> int:
        """One tick of the world: its frame's number."""
        with self.alarm or contextlib.nullcontext():
            frame: int = self.world.tick(server.ANSWER_S)
        return frame

    def tick(self, last: bool = True, wait_s: float = server.ANSWER_S) -> None:
        frame = self.tick_world()
        self.snapshot = self.world.get_snapshot()
        me = self.snapshot.find(self.ego.id)
        if me is None:
            raise RuntimeError("our vehicle is gone from the world")
        self.place, velocity = me.get_transform(), me.get_velocity()
        heading = self.place.get_forward_vector()
        self.speeds[frame] = self.speed_mps  # before this tick
        self.speed_mps = math.hypot(velocity.x, velocity.y)
        self.forward_mps = max(0.0, velocity.x * heading.x + velocity.y * heading.y)
        self.judge()
        if last:
            self.messages = {name: newest(heard, frame, wait_s) for name, heard in self.heard.items()}

    def judge(self) -> None:
        """The score, tick by tick."""
        at = self.place.location
        before_m = self.row * route.STEP_M
        self.row = self.way.nearest(at.x, at.y, self.row)
        now_m = self.row * route.STEP_M
        off_m = float(np.hypot(*(self.way.points[self.row, :2] - (at.x, at.y))))
        self.off_m = off_m
        if now_m > before_m:
            self.pass_lines(before_m, now_m)
        self.heed_signs(now_m)
        outside = off_m > 0.5 * self.way.width_m[self.row] + 0.3 and self.astray()
        self.score.step(TICK_S, now_m, off_m, self.speed_mps, outside)

    def feel(self, until: int) -> None:
        """Collisions up to a frame. They come on a stream of their own, on which nobody waits: so a step hears of those of the
        step before, and the last also of its own."""
        later = []
        with contextlib.suppress(queue.Empty):
            while True:
                event = self.bumps.get_nowait()
                if event.frame > until:
                    later.append(event)
                elif (
                    event.other_actor is None or "sidewalk" not in event.other_actor.type_id
                ):  # as ScenarioRunner has it
                    self.score.touch(self.touch(event))
        for event in later:
            self.bumps.put(event)

    def astray(self) -> bool:
        """Off the driving lanes, or in one that runs the other way."""
        lane = self.map.get_waypoint(self.place.location, project_to_road=False)
        if lane is None:
            return True
        apart = (self.place.rotation.yaw - lane.transform.rotation.yaw + 180) % 360 - 180
        return not lane.is_junction and abs(apart) > 120

    def pass_lines(self, before_m: float, now_m: float) -> None:
        import carla

        for stop in self.way.stops:
            if before_m < stop.at_m <= now_m and stop.at_m not in self.passed:
                self.passed.add(stop.at_m)
                if not stop.light:
                    if stop.at_m not in self.heeded:
                        self.score.infringe("stop_sign")
                elif self.lights[stop.light].get_state() == carla.TrafficLightState.Red:
                    self.score.infringe("red_light")

    def heed_signs(self, now_m: float) -> None:
        if self.speed_mps < HEEDED_MPS:
            nose_m = now_m + self.half[0]
            self.heeded |= {s.at_m for s in self.way.stops if not s.light and -2.0 < s.at_m - nose_m < HEEDED_M}

    def touch(self, event: Any) -> Touch:
        push = event.normal_impulse
        ahead = math.atan2(-push.y, -push.x) - math.radians(event.transform.rotation.yaw)
        kind = event.other_actor.type_id.split(".")[0] if event.other_actor is not None else "static"
        kind = kind if kind in ("walker", "vehicle") else "static"
        other: tuple[int, ...] = (event.other_actor.id if event.other_actor is not None else 0,)
        if not other[0]:
            other = (0, round(self.place.location.x / 5), round(self.place.location.y / 5))
        return Touch(other, kind, math.remainder(ahead, 2 * math.pi), self.speeds.get(event.frame, self.speed_mps))

    # ---- what is seen

    def observe(self) -> None:
        self.seen = {}
        for name in self.cameras:
            picture = pixels_of(self.messages[name])
            self.seen[f"observation.images.{name}"] = np.zeros_like(picture) if self.options["blank"] else picture
        state = np.concatenate([NUMBER[name](self) for name in self.numbers])
        self.seen[STATE] = state.astype(np.float32)
        for name in self.sensors:
            self.seen |= READ[name](self.messages[name])
        if self.options["autopilot"]:
            done = self.ego.get_control()
            self.applied = np.array([done.steer, done.throttle, done.brake], np.float32)

    def command(self) -> Array:
        return np.eye(len(COMMANDS))[self.way.command[self.row]]

    def points(self) -> Array:
        """The next two points of a coarse route: they stay where they are until they are reached."""
        spacing = int(GOALS_M[1] / route.STEP_M)
        first = -(-(self.row + int(GOALS_M[0] / route.STEP_M)) // spacing) * spacing
        rows = np.minimum([first, first + spacing], len(self.way.points) - 1)
        return np.clip(self.to_ego(self.way.points[rows, :2]).reshape(-1), -GOAL_MOST_M, GOAL_MOST_M)

    def to_ego(self, points: Array) -> Array:
        """World [N, 2] to metres ahead and to the right of our vehicle."""
        yaw = math.radians(self.place.rotation.yaw)
        offset = points - (self.place.location.x, self.place.location.y)
        cos, sin = math.cos(yaw), math.sin(yaw)
        return np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin], axis=1)

    def info(self) -> dict[str, Any]:
        limit = self.ego.get_speed_limit() / 3.6
        rows = np.minimum(self.row + np.arange(PATH_ROWS), len(self.way.points) - 1)
        car = (self.half[0], *self.car, self.forward_mps, limit if limit > 1 else 30 / 3.6)
        self.last_info = {
            "score": self.score.to_json(),
            "town": self.map.name.rpartition("/")[2],
            "privileged.path": self.to_ego(self.way.points[rows, :2]).astype(np.float32),
            "privileged.car": np.array(car, np.float32),
            "privileged.others": self.neighbours(),
            "privileged.stops": self.stops_ahead(),
        }
        if self.options["autopilot"]:
            self.last_info["done.action"] = self.applied
        return self.last_info

    def stops_ahead(self) -> Array:
        """From the nose to the line."""
        import carla

        nose_m = self.row * route.STEP_M + self.half[0]
        found = [NONE_M, NONE_M]
        for stop in self.way.stops:
            gap = stop.at_m - nose_m
            if gap < -3.0 or gap > SIGHT_M:
                continue
            if stop.light:
                if self.lights[stop.light].get_state() in (carla.TrafficLightState.Red, carla.TrafficLightState.Yellow):
                    found[0] = min(found[0], gap)
            elif stop.at_m not in self.heeded:
                found[1] = min(found[1], gap)
        return np.array(found, np.float32)

    def neighbours(self) -> Array:
        """The nearest of the others, as rows; see the top of this file."""
        ids = [one.id for one in self.snapshot if one.id not in self.kinds]
        if ids:
            self.kinds |= {actor.id: kind_of(actor) for actor in self.world.get_actors(ids)}
        rows = []
        at, yaw = self.place.location, self.place.rotation.yaw
        for one in self.snapshot:
            kind, half_length, half_width = self.kinds.get(one.id, (0, 0.0, 0.0))
            if not kind or one.id == self.ego.id:
                continue
            place = one.get_transform()
            dx, dy = place.location.x - at.x, place.location.y - at.y
            if dx * dx + dy * dy > SIGHT_M**2 or abs(place.location.z - at.z) > 4.0:
                continue
            heading, velocity = place.get_forward_vector(), one.get_velocity()
            speed = velocity.x * heading.x + velocity.y * heading.y
            turned = math.radians(place.rotation.yaw - yaw)
            rows.append((dx, dy, math.remainder(turned, 2 * math.pi), speed, half_length, half_width, kind))
        found = np.zeros((OTHERS, 7), np.float32)
        if rows:
            rows.sort(key=lambda row: row[0] ** 2 + row[1] ** 2)
            near = np.array(rows[:OTHERS])
            near[:, :2] = self.to_ego(near[:, :2] + (at.x, at.y))
            found[: len(near)] = near
        return found

    def rewards(self, best_m: float, counts: dict[str, int], before: Array) -> dict[str, float]:
        """Ten metres are worth one."""
        new = {kind: self.score.counts[kind] - counts[kind] for kind in FACTORS}
        return {
            "progress": 0.1 * (self.score.best_m - best_m),
            "centre": -0.01 * min(self.off_m, 3.0),
            "smooth": -0.02 * abs(float(self.applied[0] - before[0])),
            "collision": -10.0 * (new["walker"] + new["vehicle"] + new["static"]),
            "rules": -3.0 * (new["red_light"] + new["stop_sign"]),
            "finish": 10.0 if self.score.ended == "finished" else (-10.0 if self.score.ended == "deviated" else 0.0),
        }

    # ---- the end

    def render(self) -> Any:
        """The camera behind the vehicle (`film=1`) or the one in front, with what is done written into it."""
        from drivetrain.envs.carla.picture import drawn

        seen = self.seen[f"observation.images.{self.cameras[0]}"]
        pixels = pixels_of(self.messages["film"]) if "film" in self.messages else seen
        command = COMMANDS[self.way.command[self.row]] if hasattr(self, "way") else COMMANDS[FOLLOW]
        return drawn(pixels, seen, self.speed_mps, command, self.applied, self.score)

    def leave(self) -> None:
        """Our vehicle and its sensors go; a server that broke down is not asked."""
        gone = [*self.mounted, *filter(None, [self.ego]), *self.others]
        with contextlib.suppress(RuntimeError):
            if self.manager is not None:
                self.manager.shut_down()
        for actor in gone if self.server is not None else []:
            with contextlib.suppress(RuntimeError):
                if actor in self.mounted:
                    actor.stop()
                if not self.server.ours:  # type: ignore[union-attr]
                    actor.destroy()
        self.forget()

    def forget(self) -> None:
        if self.alarm is not None:
            self.alarm.close()
        self.mounted, self.heard, self.others = [], {}, []
        self.ego = self.manager = self.alarm = None
        self.ours.clear()

    def drop_server(self) -> None:
        """Nothing more is asked of a server that broke down; ours is ended."""
        if self.server is not None:
            self.server.end()
            server.LENT.discard(self.server.lent)
        self.forget()
        if self.theirs is not None:
            self.theirs.detach()
        self.server = self.client = self.world = self.theirs = None

    def close(self) -> None:
        self.leave()
        if self.theirs is not None:
            self.theirs()  # who comes next finds it as we did
        if self.server is not None:
            server.give_back(self.server)
        self.server = self.client = self.world = self.theirs = None


def step_by_step(world: Any) -> None:
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, TICK_S
    world.apply_settings(settings)


def tidy(client: Any, ours: list[int]) -> None:
    """A server that is not ours goes on by itself again, without what we brought: also where nobody closed the environment."""
    with contextlib.suppress(RuntimeError):
        world = client.get_world()
        for actor in world.get_actors(ours) if ours else []:
            actor.destroy()
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = False, None
        world.apply_settings(settings)


def pixels_of(image: Any) -> Array:
    """uint8 [H, W, 3], red first."""
    return np.ascontiguousarray(
        np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4)[..., 2::-1]
    )


def newest(heard: queue.Queue[Any], frame: int, wait_s: float) -> Any:
    while True:
        message = heard.get(timeout=wait_s)
        if message.frame >= frame:
            return message


def kind_of(actor: Any) -> tuple[int, float, float]:
    kind = {"vehicle": 1, "walker": 2}.get(
        actor.type_id.split(".")[0], 3 if actor.type_id.startswith("static.prop") else 0
    )
    extent = actor.bounding_box.extent if kind else None
    return (kind, float(extent.x), float(extent.y)) if extent is not None else (0, 0.0, 0.0)


def read_lidar(cloud: Any) -> Sample:
    return rows_of("lidar", np.frombuffer(cloud.raw_data, np.float32).reshape(-1, 4))


def read_radar(echoes: Any) -> Sample:
    return rows_of("radar", np.frombuffer(echoes.raw_data, np.float32).reshape(-1, 4))


def read_imu(felt: Any) -> Sample:
    a, w = felt.accelerometer, felt.gyroscope
    return {SENSORS["imu"][0]: np.array([a.x, a.y, a.z, w.x, w.y, w.z, felt.compass], np.float32)}


def rows_of(name: str, rows: Array) -> Sample:
    key, feature = SENSORS[name]
    found = np.zeros(feature.shape, np.float32)
    count = min(len(rows), len(found))
    found[:count] = rows[:count]
    return {key: found, f"{key}.count": np.int64(count)}


NUMBER = {
    "speed": lambda env: np.array([min(env.speed_mps, FASTEST_MPS)]),
    "command": CarlaEnv.command,
    "points": CarlaEnv.points,
}
READ = {"lidar": read_lidar, "radar": read_radar, "imu": read_imu}
