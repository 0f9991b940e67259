"""Traffic of the server's own: vehicles that follow lanes, keep their distance, heed lights and signs, and let others pass.

    traffic = Traffic(world, count=20, seed=0)
    traffic.step(dt_s)            before the fleet moves

Each vehicle has a way: a polyline along the lanes it will take, with the speed it may have at each point. Along it stand
gates, one before each junction. A gate opens to whoever is first before it, has no red light, finds room behind the junction
and crosses no way of those who hold the junction already. All else is one loop over vehicles, compiled.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.actors import Actor, Kind
from drivetrain.sim.catalogue import MODELS
from drivetrain.sim.errors import SimError
from drivetrain.sim.protocol.structs import ActorDescription, AttributeType, AttributeValue, LightColour, VehicleControl
from drivetrain.sim.road.lanes import Lane
from drivetrain.sim.squares import OFTEN
from drivetrain.sim.world import World

Floats = NDArray[np.float64]

STEP_M = 1.0  # between points of a way
AHEAD_M = 90.0  # how much of its way a vehicle knows
PIECE_M = 100.0  # of a long lane are added at a time
POINTS = 320
SIDE_MPS2, SLOW_MPS2, GO_MPS2 = 2.2, 3.0, 2.2  # in bends, when braking, when starting
HARDEST_MPS2 = 8.0
GAP_M, HEADWAY_S = 2.5, 1.2
NEAR_GATE_M = {"light": 35.0, "free": 35.0, "yield": 12.0, "stop": 4.0}  # from here a vehicle asks to pass
STOP_S = 0.6
ROOM_M = 9.0  # that must be free behind a junction
CROSS_M = 2.6  # ways nearer than this cross
LOST_M = 4.0
BRAKE_LIGHT, LEFT_BLINKER, RIGHT_BLINKER, LOW_BEAM, POSITION = 8, 16, 32, 2, 1
CARS = tuple(name for name, model in MODELS.items() if model.base_type in ("car", "van") and not model.special_type)
NEVER = 1e9


@dataclass
class Gate:
    """Where a way enters a junction."""

    along_m: float  # of the stop line
    enter_m: float
    leave_m: float
    junction: str
    lane: int  # inside the junction
    kind: str  # light, stop, yield, free
    light: str = ""  # its sign's id
    turn: int = 0  # -1 left, 1 right
    open: bool = False
    waited_s: float = 0.0


@dataclass
class Driver:
    actor: Actor
    lanes: list[int] = field(default_factory=list)  # of its way, the last one being the farthest
    gates: list[Gate] = field(default_factory=list)
    draw: random.Random = field(default_factory=random.Random)
    end_m: float = 0.0  # of its way
    along_m: float = 0.0  # how much of the farthest lane that takes in
    limits: float = 1.0  # its own share of the speed limit


@OFTEN
def drive(  # type: ignore[no-untyped-def]
    way, count, cursor, stop_at, slots, x, y, yaw, v, half, reach, wheelbase, max_steer, share, foot, seen, dt_s, out, state,
):  # fmt: skip
    """For each driver: throttle, steer and brake to out; how far along its way it is, the gap ahead and how far off its way it
    is to state. `way` [D, P, 4] x, y, length so far and speed; `seen` [S, 6] x, y, speeds in x and y, half length, slot or -1
    for everyone who may be in the way. `reach`: half the width."""
    for d in range(len(slots)):
        me = slots[d]
        px, py, speed = x[me], y[me], max(v[me], 0.0)
        points = way[d]
        last = count[d] - 1
        k = cursor[d]
        while k < last - 1:
            bx, by = points[k + 1, 0] - points[k, 0], points[k + 1, 1] - points[k, 1]
            if (px - points[k + 1, 0]) * bx + (py - points[k + 1, 1]) * by > 0:
                k += 1
            else:
                break
        cursor[d] = k
        bx, by = points[k + 1, 0] - points[k, 0], points[k + 1, 1] - points[k, 1]
        length = math.sqrt(bx * bx + by * by) + 1e-9
        part = ((px - points[k, 0]) * bx + (py - points[k, 1]) * by) / length
        here = points[k, 2] + part
        off = abs((px - points[k, 0]) * by - (py - points[k, 1]) * bx) / length
        # steer at a point ahead
        target = here + 2.5 + 0.55 * speed
        j = k
        while j < last and points[j, 2] < target:
            j += 1
        tx, ty = (
            points[j, 0] - px + 0.3 * wheelbase[me] * math.cos(yaw[me]),
            points[j, 1] - py + 0.3 * wheelbase[me] * math.sin(yaw[me]),
        )
        forward = tx * math.cos(yaw[me]) + ty * math.sin(yaw[me])
        aside = -tx * math.sin(yaw[me]) + ty * math.cos(yaw[me])
        bend = math.atan2(2 * wheelbase[me] * aside, forward * forward + aside * aside)
        place = min(speed * 3.6 / 200.0, 1.0) * (share.shape[1] - 1)
        low = min(int(place), share.shape[1] - 2)
        give = share[me, low] + (share[me, low + 1] - share[me, low]) * (place - low)
        steer = min(1.0, max(-1.0, bend / (max_steer[me] * give)))
        # as fast as the way ahead lets it
        allowed = points[k, 3]
        j = k
        while j < last and points[j, 2] < here + 70.0:
            ahead = max(0.0, points[j, 2] - here)
            allowed = min(allowed, math.sqrt(points[j, 3] * points[j, 3] + 2 * 1.6 * ahead))
            j += 1
        # who is in the way
        gap, lead = NEVER, allowed
        front = half[me]
        for s in range(len(seen)):
            if int(seen[s, 5]) == me:
                continue
            dx, dy = seen[s, 0] - px, seen[s, 1] - py
            near = 12.0 + speed * 3.0 + front
            if dx * dx + dy * dy > (near + 8) * (near + 8):
                continue
            for guess in range(2 if seen[s, 5] < -0.5 else 1):
                time = 0.6 * guess
                qx, qy = seen[s, 0] + seen[s, 2] * time, seen[s, 1] + seen[s, 3] * time
                j = k
                best, at = 1e9, 0.0
                while j < last and points[j, 2] < here + near:
                    distance = (points[j, 0] - qx) ** 2 + (points[j, 1] - qy) ** 2
                    if distance < best and points[j, 2] > here:
                        best, at = distance, points[j, 2]
                        m = j
                    j += 1
                wide = reach[me] + 0.9
                if best < wide * wide + 1.0 and best < 1e8:
                    nx, ny = points[m + 1, 0] - points[m, 0], points[m + 1, 1] - points[m, 1]
                    span = math.sqrt(nx * nx + ny * ny) + 1e-9
                    side = abs((qx - points[m, 0]) * ny - (qy - points[m, 1]) * nx) / span
                    if side < wide:
                        with_me = max(0.0, (seen[s, 2] * nx + seen[s, 3] * ny) / span)
                        room = at - here - front - seen[s, 4]
                        if room < gap:
                            gap, lead = room, with_me
        wanted = (
            GO_MPS2 * (1 - (speed / max(allowed, 0.1)) ** 4)
            if speed <= allowed
            else -SLOW_MPS2 * min(1.0, (speed - allowed))
        )
        if gap < 1e8:
            close = GAP_M + max(0.0, speed * HEADWAY_S + speed * (speed - lead) / (2 * math.sqrt(GO_MPS2 * SLOW_MPS2)))
            wanted = min(wanted, GO_MPS2 * (1 - (speed / max(allowed, 0.1)) ** 4 - (close / max(gap, 0.3)) ** 2))
        to_stop = stop_at[d] - here - front
        if to_stop < 60.0:
            if to_stop < 0.4:
                wanted = min(wanted, -HARDEST_MPS2 if speed > 0.3 else -3.0)
            else:
                need = speed * speed / (2 * to_stop)
                if need > 1.2 or to_stop < 4.0:
                    wanted = min(wanted, -need * 1.15 if speed > 1.0 else 0.8 * (to_stop - 1.2) - speed)
        wanted = max(-HARDEST_MPS2, wanted)
        if wanted >= 0:
            pedal = 0.12 + wanted * 0.26 + 0.012 * speed
            foot[d] += min(max(pedal - foot[d], -3.0 * dt_s), 2.5 * dt_s)
            out[d, 0], out[d, 2] = min(1.0, max(0.0, foot[d])), 0.0
        else:
            foot[d] = 0.0
            coast = 0.35
            out[d, 0] = 0.0
            out[d, 2] = min(1.0, max(0.0, (-wanted - coast) / 8.5)) if speed > 0.2 else 0.4
        out[d, 1] = steer
        state[d, 0], state[d, 1], state[d, 2] = here, gap, off


class Traffic:
    def __init__(self, world: World, count: int, seed: int = 0):
        self.world, self.roads = world, world.map.roads
        self.random = random.Random(f"traffic {seed}")
        self.crossing: dict[tuple[int, int], bool] = {}
        self.held: dict[str, dict[int, int]] = {}  # by junction: who holds it, and the lane each takes
        self.speeds: dict[int, Floats] = {}
        self.lines = {line.lane: line for line in self.roads.stop_lines}
        self.lights = {light.place.sign_id: light for light in world.lights.by_actor.values()}
        self.drivers: list[Driver] = []
        self.way = np.zeros((0, POINTS, 4))
        self.count = np.zeros(0, np.int64)
        self.cursor = np.zeros(0, np.int64)
        self.foot = np.zeros(0)
        self.state = np.zeros((0, 3))
        self.fill(count)

    def fill(self, count: int) -> None:
        places = list(range(len(self.world.spawn_points)))
        self.random.shuffle(places)
        made: list[Driver] = []
        for place in places:
            if len(made) == count:
                break
            at = self.world.spawn_points[place]
            lane = self.roads.nearest_lane(at.location.x, at.location.y, z_m=at.location.z).lane
            if not lane.successors:
                continue
            name = self.random.choice(CARS)
            color = self.random.choice(MODELS[name].colours.split())
            wish = (
                AttributeValue("color", AttributeType.COLOR, color),
                AttributeValue("role_name", AttributeType.STRING, "autopilot"),
            )
            try:
                actor = self.world.spawn(ActorDescription(0, name, wish), at)
            except SimError:
                continue  # somebody stands there
            made.append(Driver(actor, draw=random.Random(self.random.random()), limits=self.random.uniform(0.85, 1.0)))
        if len(made) < count:
            self.world.tell(
                f"{self.world.map.name} has room for {len(made)} vehicles of traffic, {count} were asked for"
            )
        self.drivers = made
        n = len(made)
        self.way, self.count, self.cursor = np.zeros((n, POINTS, 4)), np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.foot, self.state = np.zeros(n), np.zeros((n, 3))
        for index in range(n):
            self.begin(index)

    def begin(self, index: int) -> None:
        """A new way from where the vehicle is."""
        driver = self.drivers[index]
        self.release(driver)
        fleet = self.world.fleet
        slot = fleet.slot(driver.actor.id)
        x, y, z, yaw = (float(fleet.f[name][slot]) for name in ("x", "y", "z", "yaw"))
        lane = self.lane_at(x, y, z, yaw)
        driver.lanes, driver.gates, driver.end_m = [], [], 0.0
        self.count[index] = self.cursor[index] = 0
        at = self.roads.nearest_lanes(np.array([[x, y]]), among=self.only(lane))
        self.extend(index, lane.index, max(0.0, float(at.along_m[0]) - 1.0))
        self.see_far(index, 0.0)

    def only(self, lane: Lane) -> NDArray[np.bool_]:
        among = np.zeros(len(self.roads.lanes), bool)
        among[lane.index] = True
        return among

    def lane_at(self, x: float, y: float, z: float, yaw: float) -> Lane:
        """The lane under a vehicle; inside a junction the one that runs its way."""
        found = self.roads.nearest_lane(x, y, z_m=z)
        if abs(math.remainder(found.heading_rad - yaw, 2 * math.pi)) < math.pi / 2:
            return found.lane
        beside = [
            lane
            for lane in self.roads.lanes
            if lane.is_drivable and lane.road == found.lane.road and lane.runs_with_s != found.lane.runs_with_s
        ]
        return beside[0] if beside else found.lane

    def see_far(self, index: int, here_m: float) -> None:
        driver = self.drivers[index]
        while driver.end_m < here_m + AHEAD_M:
            if self.count[index] > POINTS - PIECE_M / STEP_M - 2:
                self.forget_behind(index)
            last = self.roads.lanes[driver.lanes[-1]]
            if driver.along_m < last.length_m - 1e-6:
                self.extend(index, last.index, driver.along_m)
                continue
            successors = [i for i in last.successors if self.roads.lanes[i].is_drivable]
            if not successors:
                return
            self.extend(index, driver.draw.choice(successors), 0.0)

    def forget_behind(self, index: int) -> None:
        gone = max(0, int(self.cursor[index]) - 5)
        left = int(self.count[index]) - gone
        self.way[index, :left] = self.way[index, gone : gone + left].copy()
        self.count[index], self.cursor[index] = left, self.cursor[index] - gone

    def extend(self, index: int, lane_index: int, from_m: float) -> None:
        """Puts a lane, or the next piece of a long one, at the end of the way, with its gate where it lies in a junction."""
        driver, lane = self.drivers[index], self.roads.lanes[lane_index]
        to_m = min(lane.length_m, from_m + PIECE_M)
        along = np.linspace(from_m, to_m, max(2, math.ceil((to_m - from_m) / STEP_M) + 1))
        begin, count = driver.end_m, int(self.count[index])
        along = along[1 if count else 0 :]  # the way has the first one as its last
        rows = self.way[index, count : count + len(along)]
        rows[:, 0] = np.interp(along, lane.along_m, lane.centre[:, 0])
        rows[:, 1] = np.interp(along, lane.along_m, lane.centre[:, 1])
        rows[:, 2] = begin + along - from_m
        rows[:, 3] = np.interp(along, lane.along_m, self.speed_of(lane)) * driver.limits
        self.count[index] = count + len(along)
        if lane.junction and driver.lanes:
            if driver.lanes[-1] != lane.index:
                self.put_gate(driver, lane, begin, begin + to_m - from_m)
            elif driver.gates:
                driver.gates[-1].leave_m += to_m - from_m
        if not driver.lanes or driver.lanes[-1] != lane.index:
            driver.lanes = [*driver.lanes[-20:], lane.index]
        driver.end_m, driver.along_m = begin + to_m - from_m, to_m

    def put_gate(self, driver: Driver, lane: Lane, begin_m: float, end_m: float) -> None:
        before = self.roads.lanes[driver.lanes[-1]]
        if before.junction == lane.junction:  # one junction, in two pieces
            if driver.gates:
                driver.gates[-1].leave_m = end_m
            return
        line = self.lines.get(before.index) or self.lines.get(lane.index)
        kind, light, stop_m = "free", "", begin_m - 0.5
        if line is not None:
            kind, light = line.kind, line.signal if line.kind == "light" else ""
            if line.lane == before.index:
                stop_m = begin_m - (before.length_m - line.along_m)
        turned = math.degrees(math.remainder(float(lane.heading_rad[-1] - lane.heading_rad[0]), 2 * math.pi))
        turn = 0 if abs(turned) < 30 else (1 if turned > 0 else -1)
        driver.gates.append(Gate(stop_m - 0.3, begin_m, end_m, lane.junction, lane.index, kind, light, turn))

    def speed_of(self, lane: Lane) -> Floats:
        """[N] at the lane's own points: its limit, and what its bends let."""
        if lane.index not in self.speeds:
            length = np.gradient(lane.along_m)
            bend = np.abs(np.gradient(np.unwrap(lane.heading_rad))) / np.maximum(length, 1e-6)
            fast = np.sqrt(SIDE_MPS2 / np.maximum(bend, 1e-4))
            self.speeds[lane.index] = np.maximum(np.minimum(fast, lane.speed_limit_mps), 3.0)
        return self.speeds[lane.index]

    def cross(self, a: int, b: int) -> bool:
        """Whether the ways of two lanes of a junction come together anywhere. Those that part from one lane do not."""
        key = (min(a, b), max(a, b))
        if key not in self.crossing:
            one, two = self.roads.lanes[a], self.roads.lanes[b]
            if a == b or set(one.predecessors) & set(two.predecessors):
                self.crossing[key] = False
            else:
                p, q = dense(one), dense(two)
                apart = np.hypot(p[:, None, 0] - q[None, :, 0], p[:, None, 1] - q[None, :, 1])
                self.crossing[key] = bool(apart.min() < CROSS_M)
        return self.crossing[key]

    def step(self, dt_s: float) -> None:
        self.let_go()
        if not self.drivers:
            return
        fleet = self.world.fleet
        index_of = {actor: slot for slot, actor in enumerate(fleet.ids)}
        slots = np.array([index_of[driver.actor.id] for driver in self.drivers])
        stop_at = np.array([self.mind_gates(i, dt_s) for i in range(len(self.drivers))])
        out = np.zeros((len(slots), 3))
        f = fleet.f
        drive(
            self.way, self.count, self.cursor, stop_at, slots, f["x"], f["y"], f["yaw"], f["v"], f["half_length"],
            f["half_width"], f["base"], f["max_steer"], f["steer_share"], self.foot, self.seen(slots), dt_s, out,
            self.state,
        )  # fmt: skip
        f["want_throttle"][slots], f["want_steer"][slots], f["want_brake"][slots] = out[:, 0], out[:, 1], out[:, 2]
        dark = self.world.weather.sun_altitude_angle < 5 or self.world.weather.fog_density > 40
        base = LOW_BEAM | POSITION if dark else 0
        for i, driver in enumerate(self.drivers):
            here = float(self.state[i, 0])
            if driver.end_m < here + AHEAD_M * 0.7:
                self.see_far(i, here)
            if self.state[i, 2] > LOST_M:
                self.begin(i)
            gate = driver.gates[0] if driver.gates else None
            flags = base | (BRAKE_LIGHT if out[i, 2] > 0.02 else 0)
            if gate is not None and gate.turn and gate.enter_m - here < 25:
                flags |= LEFT_BLINKER if gate.turn < 0 else RIGHT_BLINKER
            driver.actor.light_flags = flags
            driver.actor.control = VehicleControl(float(out[i, 0]), float(out[i, 1]), float(out[i, 2]))

    def let_go(self) -> None:
        """Those that a client has destroyed, or has begun to drive itself."""
        keep = [i for i, driver in enumerate(self.drivers) if driver.actor.alive and driver.actor.in_traffic]
        if len(keep) == len(self.drivers):
            return
        for i, driver in enumerate(self.drivers):
            if i not in keep:
                self.release(driver)
        self.drivers = [self.drivers[i] for i in keep]
        for name in ("way", "count", "cursor", "foot", "state"):
            setattr(self, name, getattr(self, name)[keep])

    def seen(self, slots: NDArray[np.int64]) -> Floats:
        """Everyone who may be in the way. Those that are not of the traffic are marked, for nobody knows their way."""
        f, velocity = self.world.fleet.f, self.world.fleet.velocity()
        number = np.full(len(f), -1.0)
        number[slots] = slots
        vehicles = np.column_stack([f["x"], f["y"], velocity[:, :2], f["half_length"], number])
        others = [
            (
                a.transform.location.x,
                a.transform.location.y,
                a.velocity.x,
                a.velocity.y,
                max(a.box.extent.x, a.box.extent.y),
                -1.0,
            )
            for a in self.world.registry.live.values()
            if a.solid and a.kind is not Kind.VEHICLE
        ]
        return np.concatenate([vehicles, np.array(others)]) if others else vehicles

    def mind_gates(self, index: int, dt_s: float) -> float:
        """Where along its way a driver has to stop, given the gates before it."""
        driver = self.drivers[index]
        here, half = float(self.state[index, 0]), driver.actor.box.extent.x
        while driver.gates and driver.gates[0].leave_m < here - half:
            gone = driver.gates.pop(0)
            self.free(driver, gone)
        for gate in driver.gates:
            if gate.open:
                continue
            distance = gate.along_m - here - half
            if distance > AHEAD_M * 0.6:
                return NEVER
            if self.may_pass(index, gate, distance, dt_s):
                gate.open = True
                self.held.setdefault(gate.junction, {})[driver.actor.id] = gate.lane
                continue
            return gate.along_m
        return NEVER

    def may_pass(self, index: int, gate: Gate, distance: float, dt_s: float) -> bool:
        driver = self.drivers[index]
        if distance > NEAR_GATE_M[gate.kind]:
            return False
        speed = float(self.world.fleet.f["v"][self.world.fleet.slot(driver.actor.id)])
        if gate.kind == "light":
            colour = self.lights[gate.light].colour
            too_late = distance < speed * speed / (2 * 5.0)  # to stop for a yellow
            if colour not in (LightColour.GREEN, LightColour.OFF) and not (colour is LightColour.YELLOW and too_late):
                return False
        if gate.kind == "stop":
            gate.waited_s += dt_s if speed < 0.3 else 0.0
            if gate.waited_s < STOP_S:
                return False
        gap = float(self.state[index, 1])
        if gap < distance:  # somebody is before it, and passes first
            return False
        behind = gate.leave_m - (gate.along_m - distance) + ROOM_M
        if gap < behind and not self.moves_on(index):
            return False
        others = self.held.get(gate.junction, {})
        return not any(self.cross(gate.lane, lane) for actor, lane in others.items() if actor != driver.actor.id)

    def moves_on(self, index: int) -> bool:
        """Whether the vehicle ahead is under way: it will make room."""
        return float(self.state[index, 1]) > 3.0 * ROOM_M

    def free(self, driver: Driver, gate: Gate) -> None:
        held = self.held.get(gate.junction)
        if held is not None and not any(g.junction == gate.junction and g.open for g in driver.gates):
            held.pop(driver.actor.id, None)

    def release(self, driver: Driver) -> None:
        for held in self.held.values():
            held.pop(driver.actor.id, None)


def dense(lane: Lane) -> Floats:
    along = np.arange(0.0, lane.length_m + 1.0, 1.0)
    return np.column_stack([np.interp(along, lane.along_m, lane.centre[:, i]) for i in (0, 1)])


def inhabit(world: World, count: int, seed: int = 0) -> None:
    """So many vehicles of traffic in this world and in each that is loaded after it."""
    traffic: list[Traffic] = []

    def populate() -> None:
        traffic[:] = [Traffic(world, count, seed)]

    world.after_loading.append(populate)
    world.before_moving.append(lambda dt_s: traffic[0].step(dt_s))
