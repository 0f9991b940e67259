"""The environment on a server of ours, through the official client; and what happens when servers break down."""

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from alone import INSIDE, alone

from drivetrain import cli, collect
from drivetrain.data.lerobot import open_lerobot
from drivetrain.envs.carla import server
from drivetrain.envs.words import make_env
from drivetrain.envs.worlds import make_worlds
from drivetrain.errors import BadConfig
from drivetrain.experts.choosing import find_expert
from drivetrain.sample import ACTION, FRONT, STATE

pytest.importorskip("carla")
pytest.importorskip("msgpack")
pytest.importorskip("numba")

SMALL = "carla:town=grid,length=60,turns=0,camera=32x18"


def led(env, expert, seed=0, steps=10_000):
    """An episode by the expert, as steps."""
    observation, info = env.reset(seed=seed)
    for _ in range(steps):
        seen = observation | {key: value for key, value in info.items() if key.startswith("privileged.")}
        batch = {key: np.asarray(value)[None] for key, value in seen.items()}
        action, _, _ = expert.act(batch, {}, greedy=True, generator=None)
        observation, reward, terminated, truncated, info = env.step(action[0])
        yield observation, reward, terminated, truncated, info
        if terminated or truncated:
            return


@pytest.mark.slow
@pytest.mark.parametrize("action", ["controls", "path"])
def test_the_expert_drives_the_route(action):
    env = make_env(f"carla:town=roundabout,length=100,turns=1,camera=32x18,state=speed+command+points,action={action}")
    expert = find_expert("carla", env.sample_spec)
    total, told = 0.0, set()
    for observation, reward, *_, info in led(env, expert, seed=3):
        total += reward
        terms = [value for key, value in info.items() if key.startswith("reward.")]
        assert reward == pytest.approx(sum(terms))
        told |= {int(observation[STATE][1:5].argmax())}
    env.close()
    assert info["score"]["ended"] == "finished"
    assert info["score"]["driving"] == 1.0
    assert total > 15.0, "ten metres are worth one, and the end ten"
    assert len(told) > 1, "commands change on the way"


@pytest.mark.slow
def test_what_the_sensors_see():
    env = make_env("carla:town=grid,camera=64x36,sensors=lidar+radar+imu,turns=0,length=60")
    observation, info = env.reset(seed=1)
    for key in ("observation.lidar.top", "observation.radar.front"):
        count = int(observation[f"{key}.count"])
        assert 20 < count < len(observation[key])
        assert np.abs(observation[key][:count]).max() > 1.0
        assert not observation[key][count:].any()
    ranges = np.linalg.norm(observation["observation.lidar.top"][:, :3], axis=1)
    assert ranges.max() <= 50.5
    assert observation["observation.imu"][2] == pytest.approx(9.81, abs=1.0)
    assert observation[FRONT].std() > 10
    assert info["privileged.path"][1, 0] == pytest.approx(1.0, abs=0.6), "the path leads ahead"
    assert abs(info["privileged.path"][5, 1]) < 1.0
    env.close()
    around = make_env("carla:town=grid,camera=64x36,cameras=front+left+right+rear,turns=0,length=60")
    pictures = [value for key, value in around.reset(seed=1)[0].items() if key.startswith("observation.images.")]
    assert len(pictures) == 4
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert np.array_equal(pictures[0], observation[FRONT])
    around.close()
    blank = make_env("carla:town=grid,camera=64x36,turns=0,length=60,blank=1")
    assert not blank.reset(seed=1)[0][FRONT].any()
    blank.close()


def test_a_red_light_run_is_an_infraction():
    env = make_env("carla:town=grid,camera=16x9,length=150,turns=0,hz=20")
    world = env.unwrapped
    for seed in range(20):
        env.reset(seed=seed)
        lines = [stop for stop in world.way.stops if stop.light and 20 < stop.at_m < 120]
        if lines:
            break
    import carla

    for lamp in world.lamps:
        lamp.set_state(carla.TrafficLightState.Red)
    world.world.freeze_all_traffic_lights(True)
    expert = find_expert("carla", env.sample_spec)
    observation, _, _, _, info = env.step(np.zeros(3, np.float32))
    for _ in range(2000):
        blind = info | {"privileged.stops": np.full(2, 999.0, np.float32)}
        seen = {key: np.asarray(value)[None] for key, value in blind.items() if key.startswith("privileged.")}
        observation, _, terminated, truncated, info = env.step(expert.act(seen, {}, greedy=True, generator=None)[0][0])
        if info["score"]["infractions"]["red_light"] or terminated or truncated:
            break
    assert info["score"]["infractions"]["red_light"] == 1
    assert info["reward.rules"] == -3.0
    assert observation[STATE][0] > 1.0
    env.close()


@pytest.mark.slow
def test_two_worlds_side_by_side_are_two_servers():
    worlds = make_worlds(SMALL, 2)
    worlds.rebuild(1)
    ports = {env.unwrapped.server.port for env in worlds.envs}
    assert len(ports) == 2
    for _ in range(5):
        step = worlds.step(np.tile(np.array([0.0, 0.8, 0.0], np.float32), (2, 1)))
    assert (step.observation[STATE][:, 0] > 0.5).all()
    worlds.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("action=wheel", "action=wheel"),
        ("state=speed+smell", "speed, command, points"),
        ("sensors=sonar", "sonar"),
        ("camera=big", "WIDTHxHEIGHT"),
        ("cameras=roof", "front, left, right, rear"),
        ("hz=7", "hz=7"),
        ("weather=hail", "hail"),
        ("autopilot=1,action=path", "autopilot"),
        ("traffic=-1", "traffic"),
    ],
)
def test_mistakes_are_named_before_a_server_is_asked(options, said):
    with pytest.raises(BadConfig, match=said):
        make_env(f"carla:{options}")


@pytest.mark.slow
def test_a_server_of_ours_that_is_killed_is_started_again():
    env = make_env(SMALL)
    env.reset(seed=1)
    first = env.unwrapped.server
    os.kill(first.process.pid, signal.SIGKILL)
    for _ in range(3):
        _, reward, terminated, truncated, info = env.step(np.array([0.0, 0.5, 0.0], np.float32))
        if truncated:
            break
    assert info["lost"]
    assert (reward, terminated, truncated) == (0.0, False, True)
    env.reset(seed=1)
    assert env.unwrapped.server.process.pid != first.process.pid
    env.step(np.zeros(3, np.float32))
    env.close()


@pytest.mark.slow
def test_a_collection_survives_its_server(tmp_path, monkeypatch):
    """Every finished episode stays, the broken one is played again, and the set is the same as without the accident."""
    config = collect.Config(env=SMALL, by="carla", episodes=3, seed=5, output_dir=str(tmp_path / "calm"))
    calm = list(collect.collect(config))
    rollout, hurt = collect.rollout, []

    def accident(actor, env, seeds, **more):
        if seeds == [6] and not hurt:
            hurt.append(server.IDLE[-1])
            timer = threading.Timer(0.4, lambda: os.kill(hurt[0].process.pid, signal.SIGKILL))
            timer.start()
        return rollout(actor, env, seeds, **more)

    monkeypatch.setattr(collect, "rollout", accident)
    config = dataclasses.replace(config, output_dir=str(tmp_path / "hurt"))
    again = list(collect.collect(config))
    assert hurt[0].process.poll() is not None
    assert [episode.length for episode in again] == [episode.length for episode in calm]
    one, two = (open_lerobot(tmp_path / name) for name in ("calm", "hurt"))
    assert np.array_equal(one.values(ACTION), two.values(ACTION))


def vehicles_left(world):
    """A client lists what the last tick told it of, so what was destroyed since stands there until the next one comes."""
    for _ in range(60):
        if not (left := list(world.get_actors().filter("vehicle.*"))):
            break
        world.wait_for_tick(60.0)
    return left


@pytest.mark.slow
def test_a_server_that_is_not_ours_is_left_alone_and_its_end_is_told():
    theirs = server.start()
    server.STARTED.remove(theirs)  # as if somebody else had started it
    try:
        env = make_env(f"{SMALL},port={theirs.port}")
        env.reset(seed=1)
        assert not env.unwrapped.server.ours
        with pytest.raises(server.NoServer, match="one world"):
            make_env(f"{SMALL},port={theirs.port}").reset()
        world = env.unwrapped.client.get_world()
        env.close()
        assert theirs.running, "closing the environment does not end it"
        assert not world.get_settings().synchronous_mode
        assert not vehicles_left(world)
        env = make_env(f"{SMALL},port={theirs.port}")
        env.reset(seed=1)
        map_before = env.unwrapped.client.get_world().id
        env.reset(seed=2)
        assert env.unwrapped.client.get_world().id == map_before, "the town is there already"
        os.kill(theirs.process.pid, signal.SIGKILL)
        theirs.process.wait()
        with pytest.raises(server.NoServer, match="stopped answering"):
            env.step(np.zeros(3, np.float32))
        env.close()
    finally:
        theirs.end()


def test_a_server_that_never_answers_is_told():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start_s = time.monotonic()
        with pytest.raises(server.NoServer, match=rf"127.0.0.1:{port} does not answer"):
            server.connect(server.Server("127.0.0.1", port), answer_s=0.5, knocks=2)
        assert time.monotonic() - start_s < 30


def test_who_speaks_another_language_is_told():
    """CARLA's client would end the process."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet():
            with other.accept()[0] as caller:
                caller.recv(100)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(server.NoServer, match="is not CARLA"):
            server.connect(server.Server("127.0.0.1", other.getsockname()[1]))


def test_nobody_at_another_machine_is_told():
    with pytest.raises(server.NoServer, match=r"nobody listens at 127\.1\.2\.3:9"):
        server.borrow("127.1.2.3", 9, 0)


@pytest.mark.slow
def test_another_release_is_told(monkeypatch):
    import carla

    monkeypatch.setattr(carla.Client, "get_client_version", lambda self: "0.9.15")
    env = make_env(SMALL)
    with pytest.raises(server.NoServer, match=r"is CARLA 0.9.16, the client is 0.9.15; pip install carla==0.9.16"):
        env.reset(seed=0)
    env.close()


def test_a_server_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(server, "command", lambda *_: ["python3", "-c", "import sys; sys.exit('out of order')"])
    with pytest.raises(server.NoServer, match="out of order"):
        server.start()


def test_the_expert_stops_for_who_stands_ahead():
    from drivetrain.experts import carla as driver

    path = np.stack([np.arange(64.0), np.zeros(64)], axis=1)
    car = np.array([2.4, 2.9, 1.2, 1.4, 8.0, 13.9])
    nobody, away = np.zeros((0, 7)), np.full(2, 999.0)
    free = driver.speed(path, car, nobody, away)
    assert free == pytest.approx(10.0)
    standing = np.array([[12.0, 0.0, 0.0, 0.0, 2.4, 1.0, 1]])
    assert driver.speed(path, car, standing, away) < 5.0
    aside = standing + np.array([0, 4.0, 0, 0, 0, 0, 0])
    assert driver.speed(path, car, aside, away) == pytest.approx(free)
    crossing = np.array([[16.0, -16.0, math.pi / 2, 8.0, 2.4, 1.0, 1]])
    assert driver.speed(path, car, crossing, away) < free
    assert driver.speed(path, car, nobody, np.array([20.0, 999.0])) < free, "a red light"
    bend = np.stack([np.minimum(np.arange(64.0), 10), np.maximum(np.arange(64.0) - 10, 0)], axis=1)
    assert driver.speed(bend, car, nobody, away) < 7.0


@pytest.mark.parametrize("aside_m", [0.0, 2.0, 25.0])
def test_the_path_to_follow_begins_at_the_vehicle(aside_m):
    from drivetrain.envs.carla.env import PATH, POINTS_M
    from drivetrain.experts import carla as driver

    way = driver.from_here(np.stack([np.arange(64.0), np.full(64, aside_m)], axis=1))
    points = np.stack([np.interp(POINTS_M, driver.far_along(way), axis) for axis in way.T], axis=1)
    assert (np.hypot(*points.T) <= np.array(POINTS_M) + 1e-6).all()
    low, high = PATH.bounds()
    assert ((low[:-1] <= points.reshape(-1)) & (points.reshape(-1) <= high[:-1])).all()
    assert points[-1, 1] >= min(aside_m, 12.0)


@pytest.mark.slow
def test_the_autopilot_drives_and_what_it_did_is_written(tmp_path):
    words = alone()
    if not words:
        pytest.skip("no loopback-only network namespace can be made here (unshare -n, ip link set lo up)")
    world = "carla:town=roundabout,length=80,turns=1,camera=32x18,sensors=imu"
    flags = ["--env", world, "--by", "autopilot", "--episodes", "2", "--output-dir", str(tmp_path / "set"), "--reveal"]
    command = [*words, "sh", "-c", INSIDE, "sh", sys.executable, "-m", "drivetrain", "collect", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    data = open_lerobot(tmp_path / "set")
    assert data.spec.env == world
    steer, throttle, _ = data.values(ACTION).T
    assert throttle.max() > 0.3
    assert np.abs(steer).max() > 0.01
    assert data.values(STATE)[:, 0].max() > 3.0
    assert data.values("privileged.path").shape[1:] == (64, 2)
    for first, length in zip(data.starts, data.lengths, strict=True):
        assert data.values(STATE)[first : first + length, 0].max() > 3.0, "it drives in every episode"


@pytest.mark.slow
def test_eval_tells_the_scores(capsys, tmp_path):
    film = tmp_path / "film.mp4"
    assert cli.main(["eval", "carla", "--env", f"{SMALL},film=1", "--episodes", "2", "--video", str(film)]) == 0
    told = capsys.readouterr().out
    assert "route completion 100.0%" in told
    assert "driving score 100.0%" in told
    assert "infractions per km: none" in told
    assert film.stat().st_size > 10_000
    assert cli.main(["eval", "carla", "--env", SMALL, "--episodes", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert [score["ended"] for score in result["scores"]] == ["finished"] * 2
    assert result["driving"]["per_km"]["vehicle"]["high"] > result["driving"]["per_km"]["vehicle"]["value"] == 0.0
    assert cli.main(["eval", "carla"]) == 2
    assert "--env" in capsys.readouterr().err


@pytest.mark.slow
def test_what_experts_see_can_be_written(tmp_path):
    config = collect.Config(env=SMALL, by="carla", episodes=1, reveal=True, output_dir=str(tmp_path / "set"))
    (episode,) = collect.collect(config)
    data = open_lerobot(tmp_path / "set")
    path = data.values("privileged.path")
    assert path.shape == (episode.length, 64, 2)
    assert (path[:50, 10, 0] > 5.0).all(), "ahead of the vehicle as it was when it acted"
    assert not [key for key in data.spec.observations if "privileged" in key]


@pytest.mark.slow
def test_who_interrupts_leaves_a_foreign_world_as_it_was(monkeypatch):
    theirs = server.start()
    server.STARTED.remove(theirs)
    try:

        class Impatient:
            def initial(self, batch_size):
                return {}

            def act(self, observation, memory, *, greedy, generator):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(collect.rollout(Impatient(), f"{SMALL},port={theirs.port}", [1]))
        client = server.connect(server.Server("127.0.0.1", theirs.port))
        world = client.get_world()
        assert not world.get_settings().synchronous_mode
        assert not vehicles_left(world)
        with pytest.raises(BadConfig, match="has no town Atlantis"):
            make_env(f"carla:town=Atlantis,port={theirs.port}").reset()
    finally:
        theirs.end()


def test_a_town_that_our_server_does_not_know_is_told():
    env = make_env("carla:town=Atlantis")
    with pytest.raises(BadConfig, match="no town called 'Atlantis'; known: grid"):
        env.reset()
    env.close()


@pytest.mark.slow
def test_a_stop_sign_is_heeded_or_scored():
    env = make_env("carla:town=grid,camera=16x9,length=150,turns=0,hz=20")
    world = env.unwrapped
    for seed in range(40):
        env.reset(seed=seed)
        lines = [stop for stop in world.way.stops if not stop.light and 25 < stop.at_m < 120]
        if lines:
            break
    assert lines, "some route comes over a stop sign"
    expert = find_expert("carla", env.sample_spec)

    def play(blind):
        observation, info = env.reset(seed=seed)
        slowest = 99.0
        for _ in range(3000):
            seen = {key: np.asarray(value)[None] for key, value in info.items() if key.startswith("privileged.")}
            if blind:
                seen["privileged.stops"][:, 1] = 999.0
            action = expert.act(seen, {}, greedy=True, generator=None)[0][0]
            observation, _, terminated, truncated, info = env.step(action)
            if abs(world.row - lines[0].at_m) < 6:
                slowest = min(slowest, float(observation[STATE][0]))
            if terminated or truncated or world.row > lines[0].at_m + 10:
                break
        return slowest, info["score"]["infractions"]["stop_sign"]

    slowest, broken = play(blind=False)
    assert slowest < 0.3
    assert broken == 0
    slowest, broken = play(blind=True)
    assert slowest > 1.0
    assert broken == 1
    env.close()


def test_an_autopilot_does_not_slip(capsys):
    assert cli.main(["collect", "--env", SMALL, "--by", "autopilot", "--noise", "0.1"]) == 2
    assert "--noise" in capsys.readouterr().err


def test_a_collision_is_scored_in_the_step_after_it():
    import carla

    env = make_env("carla:town=grid,camera=16x9,length=60,turns=0,hz=20")
    env.reset(seed=1)
    world = env.unwrapped
    ahead = world.ego.get_transform()
    ahead.location += 9.0 * ahead.get_forward_vector() + carla.Location(z=0.3)
    wall = world.world.spawn_actor(world.world.get_blueprint_library().find("vehicle.audi.tt"), ahead)
    for _ in range(200):
        _, reward, _, _, info = env.step(np.array([0.0, 1.0, 0.0], np.float32))
        if info["score"]["infractions"]["vehicle"]:
            break
    assert info["score"]["infractions"]["vehicle"] == 1
    assert info["reward.collision"] == -10.0
    assert reward < -9.0
    assert info["score"]["caused"] == 1, "the speed before the collision counts"
    assert wall.is_alive
    env.close()
