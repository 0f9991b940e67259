"""What can be asked about a scene, and what is true: from facts to text.

    asked = ask("carracing", facts, random)          # every question that the picture decides, each in one of its wordings
    caption("carracing", facts, "why")               # "The road bends left ahead and the car is fast: brake."

A question has an answer among `choices`, or is a whole number and has none. Where a state lies too near the border between
two answers for a picture to tell them apart, its answer is "" here: `ask` leaves the question out, `caption` is empty.
The facts are those of the `Scenes` of `envs/`; they name units and signs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from drivetrain.errors import BadConfig, UnknownName

Facts = Mapping[str, float]
SIDES = ("left", "right")


@dataclass(frozen=True)
class Question:
    kind: str  # a name of KINDS[world]
    text: str
    answer: str
    choices: tuple[str, ...] = ()  # empty for whole numbers


@dataclass(frozen=True)
class Kind:
    texts: tuple[str, ...]  # the same question in other words
    answer: Callable[[Facts], str]  # "" where the picture does not decide it
    choices: tuple[str, ...] = ()
    extra: bool = False  # asked only where it is named


STYLES = {"plain": "action", "why": "why", "seen": "caption"}  # of captions, and the question each of them answers


def ask(world: str, facts: Facts, random: np.random.Generator, kinds: Sequence[str] = ()) -> list[Question]:
    """The questions that the picture decides, of these kinds or of all."""
    asked = []
    for name in kinds or kinds_of(world):
        kind = KINDS[world][name]
        if answer := kind.answer(facts):
            assert not kind.choices or answer in kind.choices, f"{answer!r} is none of {kind.choices}"
            asked.append(Question(name, kind.texts[int(random.integers(len(kind.texts)))], answer, kind.choices))
    return asked


def caption(world: str, facts: Facts, style: str = "why") -> str:
    """One sentence: what to do (`plain`), that and the reason (`why`), what there is (`seen`); "" where undecided."""
    if style not in STYLES:
        raise BadConfig(f"BadConfig: captions have no style {style!r}; use {', '.join(STYLES)}")
    kinds = kinds_of(world)
    if STYLES[style] not in kinds:
        raise BadConfig(
            f"BadConfig: nothing is said about {world} in the style {style}; ask questions about it instead"
        )
    said = kinds[STYLES[style]].answer(facts)
    return f"{said.capitalize()}." if said and style == "plain" else said


def kinds_of(world: str, names: Sequence[str] = ()) -> Mapping[str, Kind]:
    """Those named, or all that are no extras."""
    if world not in KINDS:
        raise UnknownName("world with questions", world, KINDS)
    for name in names:
        if name not in KINDS[world]:
            raise BadConfig(
                f"BadConfig: nothing called {name!r} is asked about {world}; there are {', '.join(KINDS[world])}"
            )
    return {name: kind for name, kind in KINDS[world].items() if (name in names if names else not kind.extra)}


def sorted_by(value: float, names: Sequence[str], borders: Sequence[tuple[float, float]]) -> str:
    """The name of the interval a value is in; "" in the margins, each from the end of a name to the start of the next."""
    for name, (end, start) in zip(names, borders, strict=False):
        if value <= end:
            return name
        if value < start:
            return ""
    return names[-1]


def whole(value: float) -> str:
    return str(round(value))


# CartPole. A pole at the very edge is cut off by the frame.

EDGE_M = 2.3
PUSHES = tuple(f"push {side}" for side in SIDES)
LEANS = {"left": "leans left", "upright": "stands upright", "right": "leans right"}
THIRDS = ("left", "middle", "right")
URGENCIES = ("not urgent", "soon", "now")


def tilt(facts: Facts) -> str:
    return whole(facts["tilt_deg"]) if abs(facts["position_m"]) <= EDGE_M else ""


def tenths(facts: Facts) -> str:
    if abs(facts["position_m"]) > EDGE_M:
        return ""
    return f"{facts['tilt_deg']:.1f}".replace("-0.0", "0.0")


def urgency(facts: Facts) -> str:
    if abs(facts["position_m"]) > EDGE_M:
        return ""
    return sorted_by(abs(facts["tilt_deg"]), URGENCIES, [(3.0, 4.5), (7.5, 9.0)])


def lean(facts: Facts) -> str:
    if abs(facts["position_m"]) > EDGE_M:
        return ""
    return sorted_by(facts["tilt_deg"], tuple(LEANS), [(-2.0, -1.0), (1.0, 2.0)])


def position(facts: Facts) -> str:
    return whole(100 * facts["position_m"])


def third(facts: Facts) -> str:
    return sorted_by(facts["position_m"], THIRDS, [(-0.9, -0.7), (0.7, 0.9)])


def push(facts: Facts) -> str:
    """Under the pole, to where it leans."""
    side = lean(facts)
    return f"push {side}" if side in SIDES else ""


def push_and_why(facts: Facts) -> str:
    return f"The pole leans {lean(facts)}: {push(facts)}." if push(facts) else ""


def cart_and_pole(third: str, lean: str) -> str:
    return f"The cart is in the {third} third of the track and the pole {LEANS[lean]}."


def cartpole_seen(facts: Facts) -> str:
    return cart_and_pole(third(facts), lean(facts)) if third(facts) and lean(facts) else ""


CARTPOLE = {
    "tilt": Kind(
        (
            "By how many degrees does the pole lean? Right is positive.",
            "What is the tilt of the pole in degrees, positive to the right?",
            "How far is the pole tilted, in degrees? Left is negative.",
        ),
        tilt,
    ),
    "tenths": Kind(
        (
            "By how many degrees does the pole lean, to a tenth? Right is positive.",
            "What is the exact tilt of the pole in degrees, positive to the right?",
        ),
        tenths,
        extra=True,
    ),
    "urgency": Kind(
        ("How urgent is it to catch the pole?", "Must the pole be caught now, soon, or is it not urgent?"),
        urgency,
        URGENCIES,
        extra=True,
    ),
    "lean": Kind(
        (
            "Which way does the pole lean: left, right or upright?",
            "Does the pole lean left, lean right, or stand upright?",
            "To which side does the pole lean?",
        ),
        lean,
        tuple(LEANS),
    ),
    "position": Kind(
        (
            "How far is the cart from the middle of the track, in centimetres? Right is positive.",
            "What is the position of the cart in centimetres, positive to the right?",
            "Where is the cart, in centimetres from the middle? Left is negative.",
        ),
        position,
    ),
    "third": Kind(
        (
            "In which third of the track is the cart: left, middle or right?",
            "Is the cart in the left, middle or right third of the track?",
            "Which third of the track is the cart in?",
        ),
        third,
        THIRDS,
    ),
    "action": Kind(
        ("What should be done?", "Which way should the cart be pushed?", "How is the pole kept from falling?"),
        push,
        PUSHES,
    ),
    "why": Kind(
        ("What should be done, and why?", "Which way should the cart be pushed, and for what reason?"),
        push_and_why,
        tuple(f"The pole leans {side}: push {side}." for side in SIDES),
    ),
    "caption": Kind(
        ("Describe the picture.", "What is in the picture?", "Say what you see."),
        cartpole_seen,
        tuple(cart_and_pole(*parts) for parts in product(THIRDS, LEANS)),
    ),
}

# The pendulum.

QUARTERS = ("up", "right", "down", "left")
SIDE_DEG = 10.0  # so near to the border of two quarters a picture does not decide


def angle(facts: Facts) -> str:
    return whole(facts["angle_deg"])


def quarter(facts: Facts) -> str:
    number, rest = divmod(facts["angle_deg"] + 45.0, 90.0)
    return QUARTERS[int(number) % 4] if SIDE_DEG / 2 <= rest <= 90.0 - SIDE_DEG / 2 else ""


PENDULUM = {
    "angle": Kind(
        (
            "By how many degrees does the pendulum lean from upright? Right is positive.",
            "What is the angle of the pendulum in degrees, 0 upright, positive to the right?",
        ),
        angle,
    ),
    "quarter": Kind(
        (
            "Where does the pendulum point: up, right, down or left?",
            "Does the pendulum point up, down, left or right?",
        ),
        quarter,
        QUARTERS,
    ),
}

# CarRacing. The road is 13.3 m wide, the car 2.8.

BENDS = ("left", "right", "straight")
PACES = ("slow", "medium", "fast")
PLACES = {
    "left": "on the left of the road",
    "middle": "in the middle of the road",
    "right": "on the right of the road",
}
OFF_ROAD = "off the road"
DEEDS = ("do nothing", "accelerate", "turn left", "turn right", "brake")
AIMS = ("right", "ahead", "left")


def bend(facts: Facts) -> str:
    """Over the next 30 m; an S is none of the three."""
    turns = [facts[f"bend_{d}m_deg"] for d in (10, 20, 30)]
    if max(map(abs, turns)) < 8:
        return "straight"
    if turns[-1] > 20 and min(turns) > -8:
        return "left"
    return "right" if turns[-1] < -20 and max(turns) < 8 else ""


def place(facts: Facts) -> str:
    if road(facts) != "yes":
        return ""
    return sorted_by(facts["offset_m"], tuple(PLACES), [(-2.9, -1.6), (1.6, 2.9)])


def road(facts: Facts) -> str:
    """`yes` where the whole car is on it, `no` where all of it is beside."""
    return sorted_by(abs(facts["offset_m"]), ("yes", "no"), [(5.2, 8.1)])


def pace(facts: Facts) -> str:
    return sorted_by(facts["speed_mps"], PACES, [(25.0, 35.0), (60.0, 70.0)])


def heading(facts: Facts) -> str:
    return whole(facts["heading_deg"])


def offset(facts: Facts) -> str:
    return whole(facts["offset_m"])


def decision(facts: Facts) -> tuple[str, str]:
    """What to do and the reason for it. Brake before a bend, then steer at the road, then mind the speed."""
    ahead, speed = bend(facts), pace(facts)
    side = sorted_by(facts["aim_deg"], AIMS, [(-14.0, -8.0), (8.0, 14.0)])
    if not speed or not side or (not ahead and (speed == "fast" or side == "ahead")):
        return "", ""
    if speed == "fast" and ahead in SIDES:
        return "brake", brake_because(ahead)
    if side in SIDES:
        return f"turn {side}", turn_because(side)
    if ahead == "straight":
        return ("do nothing", FAST_ENOUGH) if speed == "fast" else ("accelerate", NOT_FAST)
    return ("accelerate", slow_in(ahead)) if speed == "slow" else ("do nothing", well_in(ahead))


FAST_ENOUGH = "The road is straight and the car is fast"
NOT_FAST = "The road is straight and the car is not fast"


def brake_because(side: str) -> str:
    return f"The road bends {side} ahead and the car is fast"


def turn_because(side: str) -> str:
    return f"The road lies to the {side} of where the car points"


def slow_in(side: str) -> str:
    return f"The road bends {side} ahead but the car is slow"


def well_in(side: str) -> str:
    return f"The road bends {side} ahead and the car is neither fast nor slow"


def deed(facts: Facts) -> str:
    return decision(facts)[0]


def deed_and_why(facts: Facts) -> str:
    what, why = decision(facts)
    return f"{why}: {what}." if what else ""


def road_and_car(bend: str, pace: str, where: str) -> str:
    course = "is straight" if bend == "straight" else f"bends {bend}"
    return f"The road {course} ahead and the {pace} car is {where}."


def carracing_seen(facts: Facts) -> str:
    where = OFF_ROAD if road(facts) == "no" else PLACES.get(place(facts), "")
    parts = bend(facts), pace(facts), where
    return road_and_car(*parts) if all(parts) else ""


REASONS = (
    *(f"{brake_because(side)}: brake." for side in SIDES),
    *(f"{turn_because(side)}: turn {side}." for side in SIDES),
    *(f"{slow_in(side)}: accelerate." for side in SIDES),
    *(f"{well_in(side)}: do nothing." for side in SIDES),
    f"{FAST_ENOUGH}: do nothing.",
    f"{NOT_FAST}: accelerate.",
)

CARRACING = {
    "bend": Kind(
        (
            "Which way does the road bend: left, right or straight?",
            "Does the road ahead bend left, bend right, or go straight?",
            "Where does the road go from here?",
        ),
        bend,
        BENDS,
    ),
    "place": Kind(
        (
            "Where on the road is the car: left, middle or right?",
            "On which part of the road is the car?",
            "Is the car on the left, in the middle or on the right of the road?",
        ),
        place,
        tuple(PLACES),
    ),
    "on_road": Kind(
        ("Is the car on the road?", "Is the car on the road: yes or no?", "Does the car drive on the road?"),
        road,
        ("yes", "no"),
    ),
    "speed": Kind(
        (
            "How fast is the car: slow, medium or fast?",
            "Is the car slow, medium or fast?",
            "What does the white bar say about the speed of the car?",
        ),
        pace,
        PACES,
    ),
    "heading": Kind(
        (
            "By how many degrees is the car turned against the road? Left is positive.",
            "How far does the car point away from the road, in degrees, positive to the left?",
            "What is the angle between the car and the road in degrees? Right is negative.",
        ),
        heading,
    ),
    "offset": Kind(
        (
            "How far is the car from the middle of the road, in metres? Right is positive.",
            "How many metres is the car off the middle of the road, positive to the right?",
            "What is the offset of the car in metres? Left is negative.",
        ),
        offset,
    ),
    "action": Kind(
        ("What should the vehicle do in this scenario?", "What should the car do now?", "What should be done here?"),
        deed,
        DEEDS,
    ),
    "why": Kind(
        ("What should the vehicle do in this scenario, and why?", "What should the car do now, and for what reason?"),
        deed_and_why,
        REASONS,
    ),
    "caption": Kind(
        ("Describe the picture.", "What is in the picture?", "Say what you see."),
        carracing_seen,
        tuple(road_and_car(*parts) for parts in product(BENDS, PACES, (*PLACES.values(), OFF_ROAD))),
    ),
}

KINDS: dict[str, Mapping[str, Kind]] = {"cartpole": CARTPOLE, "pendulum": PENDULUM, "carracing": CARRACING}
