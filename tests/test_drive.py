"""Driving in real time: deadlines are kept or counted."""

import json
import time
import urllib.request

import numpy as np
import pytest

from drivetrain import cli, drive
from drivetrain.errors import BadConfig
from drivetrain.sample import STATE


class Slow:
    """A policy that takes its time at some pictures and says which picture it answers."""

    def __init__(self, slow, wait_s):
        self.slow, self.wait_s, self.count = slow, wait_s, -1

    def initial(self, batch_size):
        return {}

    def act(self, observation, memory, *, greedy, generator):
        self.count += 1
        if self.count in self.slow:
            time.sleep(self.wait_s)
        return observation[STATE].copy(), memory, {}


class Clock:
    """A world that counts its steps, keeps what it was told, and may take long itself."""

    def __init__(self, steps, slow=()):
        self.steps, self.slow, self.told, self.at_s = steps, slow, [], []

    def reset(self, seed):
        self.number = 0
        return {STATE: np.array([0.0])}, {}

    def step(self, action):
        self.at_s.append(time.perf_counter())
        self.told.append(float(action[0]))
        if self.number in self.slow:
            time.sleep(0.15)
        self.number += 1
        over = self.number >= self.steps
        return {STATE: np.array([float(self.number)])}, 0.0, over, False, {"score": {}, "town": "clock"}


def driven(policy, world, period_s=0.05):
    deadlines = drive.Deadlines(period_s)
    pilot = drive.Pilot(policy)
    drive.one_route(world, 0, pilot, deadlines, None, None, [{}])
    pilot.end()
    return deadlines


def test_a_quick_policy_is_never_late_and_the_world_keeps_its_pace():
    world = Clock(20)
    deadlines = driven(Slow((), 0.0), world)
    assert (len(deadlines.world_s), deadlines.misses, deadlines.world_late) == (20, 0, 0)
    assert world.told == [float(n) for n in range(20)]
    assert world.at_s[-1] - world.at_s[0] == pytest.approx(19 * 0.05, abs=0.04)


def test_a_late_action_is_counted_and_the_last_one_held():
    world = Clock(12)
    deadlines = driven(Slow({6}, 0.12), world)  # the first call is before the clock runs, so this is the sixth picture
    assert deadlines.misses == 3, "twice there was nothing, and once what there was came from an old picture"
    assert world.told[4:9] == [4.0, 4.0, 4.0, 5.0, 8.0], (
        "held twice; then what it said of the old picture; then on time"
    )
    said = deadlines.to_json()
    assert said["most_ms"] >= 120
    assert said["p50_ms"] < 20


def test_a_world_that_is_late_is_not_the_policys_fault():
    deadlines = driven(Slow((), 0.0), Clock(12, slow={5}))
    assert (deadlines.misses, deadlines.world_late) == (0, 1)


def test_a_policy_that_is_always_too_slow_is_always_late():
    deadlines = driven(Slow(range(100), 0.09), Clock(12))
    assert deadlines.misses == 12


def test_what_goes_wrong_in_the_policy_is_not_swallowed():
    class Broken(Slow):
        def act(self, *words, **more):
            super().act(*words, **more)
            if self.count == 3:
                raise ZeroDivisionError
            return words[0][STATE], {}, {}

    with pytest.raises(ZeroDivisionError):
        driven(Broken((), 0.0), Clock(12))


def test_the_picture_is_streamed():
    screen = drive.Screen(0)
    assert b"/stream" in urllib.request.urlopen(screen.url).read()
    stream = urllib.request.urlopen(screen.url + "stream")
    for _ in range(50):
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
    assert 0 < said["deadlines"]["deadline_ms"] < 50
    assert film.stat().st_size > 10_000
