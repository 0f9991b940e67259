"""What can be spawned, as tables: CARLA 0.9.16's vehicles, walkers and props, with their sizes as boxes.

Names and attributes are CARLA's; sizes and masses are those of the real vehicles or near them.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain.sim.protocol.structs import BoundingBox, Gear, PhysicsControl, Vector2D, Vector3D, Wheel


@dataclass(frozen=True)
class Model:
    """A kind of vehicle."""

    id: str
    base_type: str  # car, truck, van, bus, motorcycle, bicycle
    special_type: str
    generation: int
    length_m: float
    width_m: float
    height_m: float
    mass_kg: float
    launch_mps2: float  # with the pedal down, before air and top gear
    colours: str = "0,0,0 255,255,255 128,128,128 180,20,20 20,60,140"

    @property
    def wheels(self) -> int:
        return 2 if self.base_type in ("motorcycle", "bicycle") else 4

    @property
    def wheelbase_m(self) -> float:
        return 0.6 * self.length_m

    @property
    def box(self) -> BoundingBox:
        half = Vector3D(self.length_m / 2, self.width_m / 2, self.height_m / 2)
        return BoundingBox(Vector3D(0.0, 0.0, self.height_m / 2), half)


VEHICLES = """
audi.a2                 car        -          1 3.71 1.79 1.55 1200 4.0
audi.etron              car        -          1 4.86 2.03 1.65 2490 5.0
audi.tt                 car        -          1 4.18 1.99 1.39 1355 5.0
bmw.grandtourer         car        -          1 4.61 2.24 1.67 1500 4.2
chevrolet.impala        car        -          1 5.36 2.03 1.41 1700 4.0
citroen.c3              car        -          1 3.99 1.85 1.62 1250 3.8
dodge.charger_2020      car        -          2 5.01 2.10 1.54 1920 5.0
dodge.charger_police    car        emergency  1 4.97 2.04 1.56 1920 5.0
dodge.charger_police_2020 car      emergency  2 5.24 2.10 1.64 1920 5.0
ford.crown              car        taxi       2 5.37 1.80 1.57 1900 4.0
ford.mustang            car        -          1 4.72 1.89 1.30 1700 5.2
jeep.wrangler_rubicon   car        -          1 3.87 1.91 1.88 1900 4.0
lincoln.mkz_2017        car        -          1 4.90 2.13 1.51 1700 4.5
lincoln.mkz_2020        car        -          2 4.89 2.13 1.49 1700 4.5
mercedes.coupe          car        -          1 5.03 2.15 1.64 1600 4.8
mercedes.coupe_2020     car        -          2 4.67 2.00 1.44 1600 4.8
micro.microlino         car        -          1 2.21 1.48 1.38  520 3.0
mini.cooper_s           car        -          1 3.81 1.97 1.47 1250 4.5
mini.cooper_s_2021      car        -          2 4.55 2.10 1.77 1350 4.5
nissan.micra            car        -          1 3.63 1.85 1.50 1050 3.8
nissan.patrol           car        -          1 4.60 1.93 1.85 2300 4.0
nissan.patrol_2021      car        -          2 5.57 2.15 2.05 2300 4.0
seat.leon               car        -          1 4.19 1.82 1.47 1300 4.5
tesla.model3            car        electric   1 4.79 2.16 1.49 1845 5.0
tesla.cybertruck        truck      electric   1 6.27 2.39 2.10 2900 5.0
toyota.prius            car        electric   1 4.51 2.01 1.52 1400 3.8
volkswagen.t2           van        -          1 4.48 2.07 2.04 1400 3.2
volkswagen.t2_2021      van        -          2 4.44 1.79 1.99 1400 3.2
mercedes.sprinter       van        -          2 5.92 1.99 2.56 2300 3.2
ford.ambulance          van        emergency  2 6.36 2.35 2.43 3500 3.2
carlamotors.carlacola   truck      -          1 5.20 2.61 2.47 5500 2.5
carlamotors.firetruck   truck      emergency  2 8.46 2.89 3.83 9000 2.5
carlamotors.european_hgv truck     -          2 7.94 2.89 3.46 9000 2.2
mitsubishi.fusorosa     bus        -          2 10.27 3.94 4.25 8000 2.2
harley-davidson.low_rider motorcycle -        1 2.35 0.76 1.64  420 5.0
kawasaki.ninja          motorcycle -          1 2.03 0.80 1.59  270 6.0
vespa.zx125             motorcycle -          1 1.82 0.87 1.69  200 3.5
yamaha.yzf              motorcycle -          1 2.19 0.77 1.62  280 6.0
bh.crossbike            bicycle    -          1 1.49 0.86 1.61  110 1.5
diamondback.century     bicycle    -          1 1.64 0.58 1.62  110 1.5
gazelle.omafiets        bicycle    -          1 1.84 0.59 1.65  110 1.5
"""


def model(row: str) -> Model:
    name, base, special, generation, *sizes = row.split()
    special = "" if special == "-" else special
    length, width, height, mass, launch = map(float, sizes)
    return Model(f"vehicle.{name}", base, special, int(generation), length, width, height, mass, launch)


MODELS = {m.id: m for m in map(model, VEHICLES.strip().splitlines())}

WALKERS = {f"walker.pedestrian.{number:04d}": number for number in range(1, 53)}
CHILDREN = {9, 10, 11, 12, 13, 14, 48, 49}


def walker_box(name: str) -> BoundingBox:
    """A walker's origin is the middle of the body."""
    half_height_m = 0.55 if WALKERS[name] in CHILDREN else 0.93
    return BoundingBox(Vector3D(), Vector3D(0.19, 0.19, half_height_m))


PROPS = """
advertisement 0.5 1.5 2.8 | atm 0.9 0.9 1.6 | barbeque 1.2 0.7 1.2 | barrel 0.6 0.6 0.9 | bench01 0.7 1.6 0.9
bench02 0.7 1.6 0.9 | bench03 0.7 1.6 0.9 | bike_helmet 0.3 0.3 0.2 | bikeparking 1.0 2.0 1.0 | bin 0.6 0.6 1.0
box01 0.7 0.7 0.6 | box02 0.7 0.7 0.6 | box03 0.7 0.7 0.6 | briefcase 0.5 0.2 0.4 | brokentile01 0.6 0.6 0.05
bus_stop 1.6 4.2 2.6 | busstoplb 1.6 4.2 2.6 | calibrator 0.7 0.7 1.0 | chainbarrier 0.1 1.6 1.0
chainbarrierend 0.1 0.1 1.0 | clothcontainer 1.3 1.3 2.0 | clothesline 1.2 3.0 1.8 | colacan 0.1 0.1 0.15
constructioncone 0.4 0.4 0.6 | container 2.5 6.1 2.6 | creasedbox01 0.7 0.7 0.5 | creasedbox02 0.7 0.7 0.5
creasedbox03 0.7 0.7 0.5 | dirtdebris01 1.6 1.6 0.1 | dirtdebris02 1.6 1.6 0.1 | dirtdebris03 1.6 1.6 0.1
doghouse 1.0 1.2 1.0 | fountain 4.0 4.0 2.5 | foodcart 1.7 3.0 2.6 | garbage01 0.4 0.4 0.2 | garbage02 0.4 0.4 0.2
garbage03 0.4 0.4 0.2 | garbage04 0.4 0.4 0.2 | garbage05 0.4 0.4 0.2 | garbage06 0.4 0.4 0.2 | gardenlamp 0.3 0.3 0.5
glasscontainer 1.4 1.4 1.8 | gnome 0.3 0.3 0.6 | guitarcase 0.5 0.3 1.2 | gas_pump 0.8 1.0 2.0 | haybale 1.2 1.5 1.2
haybalelb 1.2 1.5 1.2 | ironplank 0.3 2.0 0.1 | kiosk_01 2.5 2.5 3.0 | mailbox 0.5 0.5 1.2 | maptable 0.9 1.3 0.9
mobile 0.1 0.1 0.1 | motorhelmet 0.3 0.3 0.3 | pergola 3.0 3.0 2.7 | plantpot01 0.8 0.8 0.8 | plantpot02 0.8 0.8 0.8
plantpot03 0.8 0.8 0.8 | plantpot04 0.8 0.8 0.8 | plantpot05 0.8 0.8 0.8 | plasticbag 0.4 0.4 0.4
plasticchair 0.6 0.6 0.9 | plastictable 0.9 0.9 0.8 | platformgarbage01 1.5 1.5 1.0 | purse 0.3 0.2 0.3
shop01 1.5 2.0 2.5 | shoppingbag 0.3 0.2 0.4 | shoppingcart 0.6 1.0 1.1 | shoppingtrolley 0.4 0.4 1.0
slide 1.0 3.0 2.0 | streetbarrier 0.5 1.2 1.1 | streetfountain 0.6 0.6 1.2 | streetsign 0.1 0.8 2.4
streetsign01 0.1 0.8 2.4 | streetsign04 0.1 0.8 2.4 | swing 2.0 3.0 2.2 | swingcouch 1.2 2.0 1.8 | table 0.9 1.6 0.8
trampoline 3.0 3.0 0.8 | trafficcone01 0.4 0.4 0.7 | trafficcone02 0.4 0.4 0.7 | trafficwarning 1.5 2.9 3.4
trashbag 0.5 0.5 0.6 | trashcan01 0.7 0.7 1.0 | trashcan02 0.7 0.7 1.0 | trashcan03 0.7 0.7 1.0
trashcan04 0.7 0.7 1.0 | trashcan05 0.7 0.7 1.0 | travelcase 0.5 0.3 0.7 | vendingmachine 0.9 1.1 2.0
warningaccident 0.1 0.8 0.9 | warningconstruction 0.1 0.8 0.9 | wateringcan 0.4 0.2 0.4
"""


def prop_boxes() -> dict[str, BoundingBox]:
    boxes = {}
    for entry in PROPS.replace("\n", " | ").split("|"):
        if entry.strip():
            name, *sides = entry.split()
            x, y, z = (float(side) / 2 for side in sides)
            boxes[f"static.prop.{name}"] = BoundingBox(Vector3D(0.0, 0.0, z), Vector3D(x, y, z))
    return boxes


PROP_BOXES = prop_boxes()

WHEEL_RADIUS_M = 0.355
TORQUE_SHAPE = ((0.0, 0.8), (1890.0, 1.0), (4500.0, 1.0), (5800.0, 0.8))  # share of the greatest, by rpm
MAX_RPM = 5800.0
FINAL_RATIO = 4.0
DAMPED_KG = 1845.0  # CARLA damps the engine of every model alike, which would hold a bicycle fast
GEAR_RATIOS = (2.85, 2.02, 1.35, 1.0, 0.8)
STEERING_CURVE = ((0.0, 1.0), (20.0, 0.9), (60.0, 0.8), (120.0, 0.7))  # share of the greatest angle, by km/h
BRAKE_MPS2 = 9.0  # of all wheels together at the full pedal, before the tyres slide
HAND_BRAKE_MPS2 = 6.0


def physics_of(kind: Model) -> PhysicsControl:
    """The numbers that a client reads and may change, such that the launch is the model's."""
    radius_m = WHEEL_RADIUS_M if kind.wheels == 4 else 0.32
    greatest = kind.mass_kg * kind.launch_mps2 * radius_m / (GEAR_RATIOS[0] * FINAL_RATIO)
    return PhysicsControl(
        torque_curve=tuple(Vector2D(rpm, greatest * share) for rpm, share in TORQUE_SHAPE),
        max_rpm=MAX_RPM,
        damping_rate_zero_throttle_clutch_engaged=2.0 * kind.mass_kg / DAMPED_KG,
        gear_switch_time=0.3,
        final_ratio=FINAL_RATIO,
        forward_gears=tuple(Gear(ratio, 0.35, 0.85) for ratio in GEAR_RATIOS),
        mass=kind.mass_kg,
        drag_coefficient=0.3,
        center_of_mass=Vector3D(0.05 * kind.wheelbase_m, 0.0, 0.2 * kind.height_m),
        steering_curve=tuple(Vector2D(kmh, share) for kmh, share in STEERING_CURVE),
        wheels=wheels_of(kind, radius_m),
    )


def wheels_of(kind: Model, radius_m: float) -> tuple[Wheel, ...]:
    """Front first; positions on the vehicle, which a client is told in the world."""
    half_base, half_track = kind.wheelbase_m / 2, 0.42 * kind.width_m if kind.wheels == 4 else 0.0
    sides = (-half_track, half_track) if kind.wheels == 4 else (0.0,)
    brake = kind.mass_kg * BRAKE_MPS2 * radius_m / kind.wheels
    hand_brake = kind.mass_kg * HAND_BRAKE_MPS2 * radius_m / (kind.wheels / 2)
    return tuple(
        Wheel(
            max_steer_angle=70.0 if front else 0.0,
            radius=100 * radius_m,
            max_brake_torque=brake,
            max_handbrake_torque=0.0 if front else hand_brake,
            position=Vector3D(100 * (half_base if front else -half_base), 100 * side, 100 * radius_m),
        )
        for front in (True, False)
        for side in sides
    )
