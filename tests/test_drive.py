"""Driving in real time: deadlines are kept or counted. Mostly by a clock that is only told the time, for machines stall."""

import json
import threading
import time
import urllib.request

import numpy as np
import pytest

from drivetrain import cli, drive
from drivetrain.errors import BadConfig
from drivetrain.sample import STATE


class Told:
    """Time that passes where somebody sleeps, and nowhere else."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class Slow:
    """A policy that takes its time at some pictures and says which picture it answers."""

    def __init__(self, slow, wait_s):
        self.slow, self.wait_s, self.count = slow, wait_s, -1

    def initial(self, batch_size):
        return {}

    def act(self, observation, memory, *, greedy, generator):
        self.count += 1
        self.took_s = self.wait_s if self.count in self.slow else 0.0
        return observation[STATE].copy(), memory, {}


class Foretold(drive.Pilot):
    """A pilot who knows at once what it will say, and says it when it would be done."""

    def __init__(self, actor, clock):
        self.actor, self.memory, self.clock, self.busy = actor, {}, clock, False

    def ask(self, seen):
        free = not self.busy
        if free:
            action, _ = drive.act(self.actor, seen, {})
            self.busy, self.due_s, self.word = True, self.clock.now_s + self.actor.took_s, (action, self.actor.took_s)
        return free

    def answer(self, by_s):
        self.clock.now_s = max(self.clock.now_s, min(by_s, self.due_s))
        if self.due_s > by_s:
            return None
        self.busy = False
        return self.word

    def end(self):
        pass


class World:
    """It counts its steps, keeps what it was told and when, and may take long itself."""

    def __init__(self, steps, slow=(), clock=time):
        self.steps, self.slow, self.clock, self.told, self.at_s = steps, slow, clock, [], []

    def reset(self, seed):
        self.number = 0
        return {STATE: np.array([0.0])}, {}

    def step(self, action):
        self.at_s.append(self.clock.perf_counter())
        self.told.append(float(action[0]))
        if self.number in self.slow:
            self.clock.sleep(0.15)
        self.number += 1
        over = self.number >= self.steps
        return {STATE: np.array([float(self.number)])}, 0.0, over, False, {"score": {}, "town": "told"}


@pytest.fixture
def clock(monkeypatch):
    told = Told()
    monkeypatch.setattr(drive, "time", told)
    return told


def driven(pilot, world, period_s=0.05):
    deadlines = drive.Deadlines(period_s)
    drive.one_route(world, 0, pilot, deadlines, None, None, [{}])
    pilot.end()
    return deadlines


def test_a_quick_policy_is_never_late_and_the_world_keeps_its_pace(clock):
    world = World(20, clock=clock)
    deadlines = driven(Foretold(Slow((), 0.0), clock), world)
    assert (len(deadlines.world_s), deadlines.misses, deadlines.world_late) == (20, 0, 0)
    assert world.told == [float(n) for n in range(20)]
    assert np.diff(world.at_s) == pytest.approx(0.05)


def test_a_late_action_is_counted_and_the_last_one_held(clock):
    world = World(12, clock=clock)
    # The first call is before the clock runs, so this is the sixth picture.
    deadlines = driven(Foretold(Slow({6}, 0.12), clock), world)
    assert deadlines.misses == 3, "twice there was nothing, and once what there was came from an old picture"
    assert world.told[4:9] == [4.0, 4.0, 4.0, 5.0, 8.0], (
        "held twice; then what it said of the old picture; then on time"
    )
    assert np.diff(world.at_s) == pytest.approx(0.05), "the world does not wait for it"
    said = deadlines.to_json()
    assert said["most_ms"] == pytest.approx(120)
    assert said["p50_ms"] == 0


def test_a_world_that_is_late_is_not_the_policys_fault(clock):
    deadlines = driven(Foretold(Slow((), 0.0), clock), World(12, slow={5}, clock=clock))
    assert (deadlines.misses, deadlines.world_late) == (0, 1)


def test_a_policy_that_is_always_too_slow_is_always_late(clock):
    deadlines = driven(Foretold(Slow(range(100), 0.09), clock), World(12, clock=clock))
    assert deadlines.misses == 12


def test_a_pilot_thinks_in_a_thread_of_its_own_and_answers_one_picture_at_a_time():
    class Held(Slow):
        def act(self, *words, **more):
            begun.set()
            assert go.wait(60)
            return super().act(*words, **more)

    begun, go = threading.Event(), threading.Event()
    pilot = drive.Pilot(Held((), 0.0))
    assert pilot.ask({STATE: np.array([1.0])})
    assert begun.wait(60)  # its time runs from here at the latest
    assert pilot.answer(time.perf_counter() + 0.02) is None
    assert not pilot.ask({STATE: np.array([2.0])}), "it is still at the first"
    go.set()
    action, took_s = pilot.answer(time.perf_counter() + 60)
    assert action.tolist() == [1.0]
    assert took_s >= 0.02
    assert pilot.ask({STATE: np.array([3.0])})
    assert pilot.answer(time.perf_counter() + 60)[0].tolist() == [3.0]
    pilot.end()


def test_what_goes_wrong_in_the_policy_is_not_swallowed():
    class Broken(Slow):
        def act(self, *words, **more):
            super().act(*words, **more)
            if self.count == 3:
                raise ZeroDivisionError
            return words[0][STATE], {}, {}

    with pytest.raises(ZeroDivisionError):
        driven(drive.Pilot(Broken((), 0.0)), World(12))


def test_the_picture_is_streamed():
    screen = drive.Screen(0)
    assert b"/stream" in urllib.request.urlopen(screen.url).read()
    stream = urllib.request.urlopen(screen.url + "stream")
    for _ in range(1500):
        time.sleep(0.02)
        if screen.wanted:
            break
    screen.show(np.full((36, 64, 3), 200, np.uint8))
    assert b"image/jpeg" in stream.read(60)
    with pytest.raises(BadConfig, match="choose another"):
        drive.Screen(screen.http.server_address[1])
    screen.close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--hz", "7"], "hz=7"), (["--video", "film.gif"], "mp4"), (["--env", "cartpole"], "expected carla")],
)
def test_mistakes_are_one_line(flags, said, capsys):
    pytest.importorskip("carla")
    assert cli.main(["drive", "carla", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_expert_at_the_wheel(capsys, tmp_path):
    for package in ("carla", "msgpack", "numba"):
        pytest.importorskip(package)
    film = tmp_path / "film.mp4"
    world = "carla:town=roundabout,length=40,turns=0,camera=32x18"
    assert cli.main(["drive", "carla", "--env", world, "--video", str(film), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["routes"][0]["ended"] == "finished"
    assert said["deadlines"]["steps"] > 60
    assert said["deadlines"]["period_ms"] == 50
    assert said["deadlines"]["deadline_ms"] == pytest.approx(50 - said["deadlines"]["world_p50_ms"])
    assert said["deadlines"]["world_p50_ms"] > 0
    assert film.stat().st_size > 10_000
