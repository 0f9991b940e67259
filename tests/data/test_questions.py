"""From facts to text: right answers, none where a picture could not tell, and no answer that never comes."""

from collections import Counter

import numpy as np
import pytest

from drivetrain import catalog
from drivetrain.data import questions
from drivetrain.data.questions import KINDS, ask, caption, sorted_by
from drivetrain.errors import BadConfig, UnknownName

LEVEL = {
    "speed_mps": 50.0,
    "offset_m": 0.0,
    "on_road": 1.0,
    "heading_deg": 0.0,
    "bend_10m_deg": 0.0,
    "bend_20m_deg": 0.0,
    "bend_30m_deg": 0.0,
    "aim_deg": 0.0,
}
LEFT_BEND = {"bend_10m_deg": 10.0, "bend_20m_deg": 30.0, "bend_30m_deg": 50.0}
RIGHT_BEND = {key: -value for key, value in LEFT_BEND.items()}

CARTPOLE = [
    ({"tilt_deg": 7.4, "position_m": -1.234}, "tilt", "7"),
    ({"tilt_deg": -3.6, "position_m": 0.0}, "tilt", "-4"),
    ({"tilt_deg": -0.3, "position_m": 0.0}, "tilt", "0"),
    ({"tilt_deg": 7.4, "position_m": 2.35}, "tilt", ""),
    ({"tilt_deg": 7.44, "position_m": 0.0}, "tenths", "7.4"),
    ({"tilt_deg": -0.04, "position_m": 0.0}, "tenths", "0.0"),
    ({"tilt_deg": -10.06, "position_m": 0.0}, "tenths", "-10.1"),
    ({"tilt_deg": 7.4, "position_m": 2.35}, "tenths", ""),
    ({"tilt_deg": 1.0, "position_m": 0.0}, "urgency", "not urgent"),
    ({"tilt_deg": -6.0, "position_m": 0.0}, "urgency", "soon"),
    ({"tilt_deg": 9.5, "position_m": 0.0}, "urgency", "now"),
    ({"tilt_deg": -8.0, "position_m": 0.0}, "urgency", ""),
    ({"tilt_deg": 1.0, "position_m": 2.35}, "urgency", ""),
    ({"tilt_deg": 7.4, "position_m": 2.35}, "lean", ""),
    ({"tilt_deg": 2.1, "position_m": 0.0}, "lean", "right"),
    ({"tilt_deg": -2.1, "position_m": 0.0}, "lean", "left"),
    ({"tilt_deg": 0.9, "position_m": 0.0}, "lean", "upright"),
    ({"tilt_deg": 1.5, "position_m": 0.0}, "lean", ""),
    ({"tilt_deg": -1.5, "position_m": 0.0}, "lean", ""),
    ({"tilt_deg": 0.0, "position_m": -1.234}, "position", "-123"),
    ({"tilt_deg": 0.0, "position_m": -1.0}, "third", "left"),
    ({"tilt_deg": 0.0, "position_m": 0.8}, "third", ""),
    ({"tilt_deg": 0.0, "position_m": 2.4}, "third", "right"),
    ({"tilt_deg": 5.0, "position_m": -2.0}, "action", "push right"),
    ({"tilt_deg": -5.0, "position_m": -2.0}, "why", "The pole leans left: push left."),
    ({"tilt_deg": 0.5, "position_m": 0.0}, "action", ""),
    (
        {"tilt_deg": 0.5, "position_m": 0.0},
        "caption",
        "The cart is in the middle third of the track and the pole stands upright.",
    ),
]
CARRACING = [
    ({}, "bend", "straight"),
    (LEFT_BEND, "bend", "left"),
    (RIGHT_BEND, "bend", "right"),
    ({"bend_30m_deg": 14.0}, "bend", ""),
    ({"bend_10m_deg": -20.0, "bend_30m_deg": 30.0}, "bend", ""),
    ({"offset_m": 4.0}, "place", "right"),
    ({"offset_m": -4.0}, "place", "left"),
    ({"offset_m": 2.2}, "place", ""),
    ({"offset_m": 6.0}, "place", ""),
    ({"offset_m": -9.0}, "place", ""),
    ({"offset_m": -9.0}, "on_road", "no"),
    ({"offset_m": -4.0}, "on_road", "yes"),
    ({"offset_m": 6.5}, "on_road", ""),
    ({"speed_mps": 10.0}, "speed", "slow"),
    ({"speed_mps": 30.0}, "speed", ""),
    ({"speed_mps": 90.0}, "speed", "fast"),
    ({"heading_deg": -12.6}, "heading", "-13"),
    ({"offset_m": -3.4}, "offset", "-3"),
    ({"speed_mps": 80.0, **LEFT_BEND}, "why", "The road bends left ahead and the car is fast: brake."),
    ({"speed_mps": 80.0, "aim_deg": 30.0, **LEFT_BEND}, "action", "brake"),
    ({"speed_mps": 50.0, "aim_deg": 30.0, **LEFT_BEND}, "action", "turn left"),
    ({"speed_mps": 50.0, "aim_deg": -30.0}, "action", "turn right"),
    ({"speed_mps": 50.0, "aim_deg": -11.0}, "action", ""),
    ({"speed_mps": 50.0}, "action", "accelerate"),
    ({"speed_mps": 80.0}, "why", "The road is straight and the car is fast: do nothing."),
    ({"speed_mps": 10.0, **RIGHT_BEND}, "why", "The road bends right ahead but the car is slow: accelerate."),
    ({"speed_mps": 50.0, **RIGHT_BEND}, "action", "do nothing"),
    ({"speed_mps": 65.0, "aim_deg": 30.0}, "action", ""),
    ({"speed_mps": 80.0, "bend_30m_deg": 14.0, "aim_deg": 30.0}, "action", ""),
    ({"offset_m": 4.0, **RIGHT_BEND}, "caption", "The road bends right ahead and the medium car is on the right of the road."),
    ({"offset_m": 9.0}, "caption", "The road is straight ahead and the medium car is off the road."),
]  # fmt: skip
PENDULUM = [
    ({"angle_deg": -12.4}, "angle", "-12"),
    ({"angle_deg": 179.7}, "angle", "180"),
    ({"angle_deg": 3.0}, "quarter", "up"),
    ({"angle_deg": 90.0}, "quarter", "right"),
    ({"angle_deg": -90.0}, "quarter", "left"),
    ({"angle_deg": 180.0}, "quarter", "down"),
    ({"angle_deg": -176.0}, "quarter", "down"),
    ({"angle_deg": 44.0}, "quarter", ""),
]
CASES = [("cartpole", *case) for case in CARTPOLE] + [("pendulum", *case) for case in PENDULUM]
CASES += [("carracing", LEVEL | case[0], *case[1:]) for case in CARRACING]


@pytest.mark.parametrize(("world", "facts", "kind", "answer"), CASES)
def test_the_answer_follows_from_the_facts(world, facts, kind, answer):
    assert KINDS[world][kind].answer(facts) == answer
    asked = ask(world, facts, np.random.default_rng(0), [kind])
    assert [q.answer for q in asked] == [answer] * bool(answer)


@pytest.mark.parametrize("world", KINDS)
def test_every_kind_is_tried_above(world):
    assert {kind for name, _, kind, _ in CASES if name == world} == set(KINDS[world])


@pytest.fixture(scope="module")
def asked():
    """All that is asked about many hard scenes, undrawn, by world."""
    random, found = np.random.default_rng(0), {}
    for world in KINDS:
        scenes = catalog.find("scenes", world)()
        if world == "carracing":
            scenes.seeds, scenes.racing._drawn = range(20), lambda: None
        everything = tuple(KINDS[world])
        found[world] = [q for _ in range(2500) for q in ask(world, scenes.draw(random, 1.0)[1], random, everything)]
    return found


def test_extras_are_asked_only_where_they_are_named():
    random, facts = np.random.default_rng(0), {"tilt_deg": 7.4, "position_m": 0.0}
    assert not {"tenths", "urgency"} & {q.kind for q in ask("cartpole", facts, random)}
    assert [q.answer for q in ask("cartpole", facts, random, ("tenths",))] == ["7.4"]
    with pytest.raises(BadConfig, match="nothing called 'weight' is asked about cartpole"):
        questions.kinds_of("cartpole", ("weight",))


def test_every_world_with_scenes_has_questions():
    assert set(KINDS) == set(catalog.SCENES)


@pytest.mark.parametrize("world", KINDS)
def test_every_choice_and_every_wording_comes_and_numbers_are_numbers(world, asked):
    for name, kind in KINDS[world].items():
        mine = [q for q in asked[world] if q.kind == name]
        assert {q.text for q in mine} == set(kind.texts)
        assert len(set(kind.texts)) == len(kind.texts)
        if kind.choices:
            assert {q.answer for q in mine} == set(kind.choices) == {c for q in mine for c in q.choices}
        else:
            assert len({float(q.answer) for q in mine}) > 15
            assert not any(q.choices for q in mine)


@pytest.mark.parametrize("world", KINDS)
def test_no_answer_is_much_likelier_than_the_others(world, asked):
    """A model that does not look is right about as often as chance has it."""
    for name, kind in KINDS[world].items():
        if kind.choices and name not in ("why", "caption"):
            counts = Counter(q.answer for q in asked[world] if q.kind == name)
            assert max(counts.values()) / counts.total() < 1.5 / len(kind.choices), (name, counts)
        decided = sum(q.kind == name for q in asked[world]) / 2500
        assert decided > 0.4, f"{name} is seldom asked"


def test_a_wording_is_one_of_its_own_kind():
    texts = [t for kinds in KINDS.values() for k in kinds.values() for t in k.texts]
    repeated = {t for t, n in Counter(texts).items() if n > 1}
    assert repeated == set(questions.CARTPOLE["caption"].texts)
    assert "What should the vehicle do in this scenario?" in questions.CARRACING["action"].texts


def test_captions_have_three_styles():
    facts = LEVEL | LEFT_BEND | {"speed_mps": 90.0, "offset_m": -4.0}
    assert caption("carracing", facts, "plain") == "Brake."
    assert caption("carracing", facts) == "The road bends left ahead and the car is fast: brake."
    seen = "The road bends left ahead and the fast car is on the left of the road."
    assert caption("carracing", facts, "seen") == seen
    assert caption("cartpole", {"tilt_deg": 1.5, "position_m": 0.0}, "plain") == ""
    with pytest.raises(BadConfig, match="use plain, why, seen"):
        caption("carracing", facts, "poem")
    with pytest.raises(UnknownName, match="did you mean cartpole"):
        caption("cartpol", facts)


def test_margins_are_open_between_the_names():
    borders = [(1.0, 2.0)]
    assert [sorted_by(v, "ab", borders) for v in (0.0, 1.0, 1.5, 2.0, 3.0)] == ["a", "a", "", "b", "b"]
