"""Driving in real time: a policy at the wheel of a CARLA vehicle, a deadline for every picture, and a page to watch it on.

    drivetrain drive runs/carla --host 127.0.0.1 --port 2000 --hz 20
    drivetrain drive runs/carla --routes 3 --video drive.mp4 --json

The world goes on at `--hz` whatever the policy does. An action has to be there before the next picture; where it is not, the
last one is held and a miss is counted, and the late one serves from the next picture on. At the end: how long the policy took
(median, 99th percentile), how often it was late, how often the world was, and the routes' scores. Where nobody listens at the
port, a server of ours is started.
"""

from __future__ import annotations

import io
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from drivetrain import catalog
from drivetrain.checkpoint import load_policy, resolve
from drivetrain.collect import find_actor
from drivetrain.envs.rollout import Actor
from drivetrain.envs.words import make_env, spec_of, split_name, with_options
from drivetrain.errors import BadConfig
from drivetrain.film import Film
from drivetrain.sample import Memory, Sample

FAMILY = "carla"
SHOWN_HZ = 10.0
LONGEST_S = 3600.0
PAGE = b"""<!doctype html><title>drivetrain</title><body style="margin:0;background:#111;color:#ccc;font:14px sans-serif">
<img src="/stream" style="width:100%;max-width:960px;display:block;margin:auto"></body>"""


@dataclass(frozen=True)
class Config:
    host: str = ""  # of CARLA; empty is what the env says
    port: int = 0  # of CARLA; 0 is what the env says and, where it says none, a server of our own
    env: str = ""  # another carla env than the one the policy was trained in, with its options
    hz: int = 20  # pictures and actions per second, whatever the policy was trained at
    routes: int = 1  # driven one after another
    seed: int = 7_000  # the first route's; the others count on from it
    page: bool = True  # a live picture at a port of this machine, which is printed
    page_port: int = 0
    video: str = ""  # keep what was to be seen as this .mp4
    json: bool = False  # one JSON object on stdout, and nothing else


@dataclass
class Deadlines:
    """How long the policy took, and how often that was too long. What the world's own step leaves of a period is all it has."""

    period_s: float
    took_s: list[float] = field(default_factory=list)
    world_s: list[float] = field(default_factory=list)
    misses: int = 0
    world_late: int = 0  # pictures that came when the one after them was due

    def to_json(self) -> dict[str, Any]:
        took, world = (np.array(values or [0.0]) * 1000 for values in (self.took_s, self.world_s))
        return {
            "period_ms": self.period_s * 1000,
            "world_p50_ms": float(np.percentile(world, 50)),
            "deadline_ms": self.period_s * 1000 - float(np.percentile(world, 50)),
            "steps": len(self.world_s),
            "misses": self.misses,
            "world_late": self.world_late,
            "p50_ms": float(np.percentile(took, 50)),
            "p99_ms": float(np.percentile(took, 99)),
            "most_ms": float(took.max()),
        }


class Pilot:
    """The policy in a thread of its own: it is given pictures, and asked for what it has to say by a certain time."""

    def __init__(self, actor: Actor):
        self.actor, self.memory = actor, actor.initial(1)
        self.asked: queue.Queue[Sample | None] = queue.Queue()
        self.said: queue.Queue[tuple[Any, float]] = queue.Queue()
        self.busy = False
        threading.Thread(target=self.think, name="pilot", daemon=True).start()

    def think(self) -> None:
        while (seen := self.asked.get()) is not None:
            try:
                start_s = time.perf_counter()
                action, self.memory = act(self.actor, seen, self.memory)
                self.said.put((action, time.perf_counter() - start_s))
            except Exception as error:  # noqa: BLE001  raised where the answer is awaited
                self.said.put((error, 0.0))

    def ask(self, seen: Sample) -> bool:
        """Whether it looks at this picture; it does not while it is still at an earlier one, which it answers first."""
        free = not self.busy
        if free:
            self.asked.put(seen)
            self.busy = True
        return free

    def answer(self, by_s: float) -> tuple[Any, float] | None:
        """What to do, and how long it took; None where there is nothing by then."""
        try:
            action, took_s = self.said.get(timeout=min(max(by_s - time.perf_counter(), 0.0), LONGEST_S))
        except queue.Empty:
            return None
        self.busy = False
        if isinstance(action, Exception):
            raise action
        return action, took_s

    def begin(self) -> None:
        """A new route: what it remembers of the last one goes, and an answer still to come with it."""
        if self.busy:
            self.answer(math.inf)
        self.memory = self.actor.initial(1)

    def end(self) -> None:
        self.asked.put(None)


def act(actor: Actor, seen: Sample, memory: Memory) -> tuple[Any, Memory]:
    batch = {key: np.asarray(value)[None] for key, value in seen.items()}
    action, memory, _ = actor.act(batch, memory, greedy=True, generator=None)
    return action[0], memory


class Screen:
    """The last picture as a stream that browsers show (motion JPEG), drawn while anybody looks."""

    def __init__(self, port: int):
        self.jpeg, self.fresh, self.watchers, self.last_s = b"", threading.Condition(), 0, 0.0
        screen = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/stream":
                    self.answer("text/html")
                    self.wfile.write(PAGE)
                    return
                self.answer("multipart/x-mixed-replace; boundary=frame")
                screen.serve(self.wfile)

            def answer(self, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()

            def log_message(self, format: str, *words: Any) -> None:
                return

        try:
            self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise BadConfig(
                f"BadConfig: cannot show the picture at port {port}: {error.strerror}; choose another --page-port"
            ) from None
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"
        threading.Thread(target=self.http.serve_forever, name="screen", daemon=True).start()

    def serve(self, out: Any) -> None:
        self.watchers += 1
        try:
            while True:
                with self.fresh:
                    self.fresh.wait(timeout=5)
                    jpeg = self.jpeg
                out.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n")
        except OSError:
            return
        finally:
            self.watchers -= 1

    @property
    def wanted(self) -> bool:
        return bool(self.watchers) and time.perf_counter() - self.last_s > 1 / SHOWN_HZ

    def show(self, pixels: np.ndarray) -> None:
        from PIL import Image

        self.last_s = time.perf_counter()
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=80)
        with self.fresh:
            self.jpeg = out.getvalue()
            self.fresh.notify_all()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def drive(path: str, config: Config, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Everything there is to say about it, as one object; on an interrupt, about what was driven."""
    if not 1 <= config.hz <= 20 or 20 % config.hz:
        raise BadConfig(f"BadConfig: got hz={config.hz}, expected 1, 2, 4, 5, 10 or 20: the world's steps are 0.05 s")
    if config.video and Path(config.video).suffix != ".mp4":
        raise BadConfig(f"BadConfig: a film is an .mp4 file, got {config.video}; rename it")
    actor, name = pilot_and_world(path, config)
    env: Any = make_env(name)
    deadlines, scores = Deadlines(1 / config.hz), list[dict[str, Any]]()
    film = Film(Path(config.video), config.hz) if config.video else None
    trained_hz = getattr(getattr(actor, "spec", None), "fps", config.hz)
    if trained_hz != config.hz:
        tell(f"trained at {trained_hz:.0f} pictures a second, driving at {config.hz}")
    screen = Screen(config.page_port) if config.page else None
    if screen:
        tell(f"to be seen at {screen.url}")
    pilot, interrupted = Pilot(actor), False
    try:
        for seed in range(config.seed, config.seed + config.routes):
            scores.append({})
            one_route(env, seed, pilot, deadlines, screen, film, scores)
            tell(f"route {len(scores)} in {scores[-1]['town']}: {scores[-1]['ended'] or 'broken off'}")
    except KeyboardInterrupt:
        interrupted = True
    finally:
        pilot.end()
        env.close()
        if screen:
            screen.close()
        if film:
            film.close()
    driven = [score for score in scores if score]
    return {"policy": path, "env": name, "interrupted": interrupted, "deadlines": deadlines.to_json(), "routes": driven}


def pilot_and_world(path: str, config: Config) -> tuple[Actor, str]:
    world = {
        "hz": config.hz,
        "host": config.host,
        "port": config.port,
        **({"film": 1} if config.video or config.page else {}),
    }
    expert = path in catalog.EXPERTS
    policy = None if expert else load_policy(resolve(path))
    env = config.env or (policy.spec.env if policy else FAMILY)
    if split_name(env)[0] != FAMILY:
        raise BadConfig(f"BadConfig: {path} would drive in {env or 'no env'}, expected carla; add --env carla:OPTIONS")
    name = with_options(env, **world)
    if policy is None:
        return find_actor(path, spec_of(name)), name
    policy.spec.require(spec_of(name))
    return policy, name


def one_route(
    env: Any,
    seed: int,
    pilot: Pilot,
    deadlines: Deadlines,
    screen: Screen | None,
    film: Film | None,
    scores: list[dict[str, Any]],
) -> None:
    observation, info = env.reset(seed=seed)
    pilot.begin()
    privileged = getattr(pilot.actor, "privileged", False)
    hold, _ = act(
        pilot.actor, observation | info if privileged else observation, pilot.actor.initial(1)
    )  # also warms it up
    next_s, over = time.perf_counter(), False
    while not over:
        next_s += deadlines.period_s
        if time.perf_counter() >= next_s:
            deadlines.world_late += 1
            next_s = time.perf_counter() + deadlines.period_s
        seen = observation | info if privileged else observation
        fresh = pilot.ask({k: v for k, v in seen.items() if k.startswith(("observation.", "privileged."))})
        show(env, screen, film)
        answer = pilot.answer(next_s)
        deadlines.misses += answer is None or not fresh
        if answer is not None:
            hold = answer[0]
            deadlines.took_s.append(answer[1])
        time.sleep(max(next_s - time.perf_counter(), 0.0))
        begun_s = time.perf_counter()
        observation, _, terminated, truncated, info = env.step(hold)
        deadlines.world_s.append(time.perf_counter() - begun_s)
        scores[-1] = {**info["score"], "town": info["town"], "seed": seed}
        over = terminated or truncated


def show(env: Any, screen: Screen | None, film: Film | None) -> None:
    watched = screen is not None and screen.wanted
    if film is None and not watched:
        return
    picture = env.render()
    if film is not None:
        film.add(picture)
    if screen is not None and watched:
        screen.show(picture)


def in_words(said: dict[str, Any]) -> str:
    d = said["deadlines"]
    lines = [
        f"{said['policy']}: {d['steps']} actions, a picture every {d['period_ms']:.0f} ms of which the world "
        f"takes {d['world_p50_ms']:.0f}: the policy's median {d['p50_ms']:.1f} ms, "
        f"99th percentile {d['p99_ms']:.1f} ms, most {d['most_ms']:.1f} ms; {d['misses']} late"
        + (f"; the world itself was late {d['world_late']} times" if d["world_late"] else "")
    ]
    for one in said["routes"]:
        broken = ", ".join(f"{count} {kind}" for kind, count in one["infractions"].items() if count) or "no infraction"
        lines.append(
            f"  {one['town']} (seed {one['seed']}): {100 * one['completion']:.1f}% of the route, driving score "
            f"{100 * one['driving']:.1f}, {broken}, {one['ended'] or 'broken off'} after {one['time_s']:.0f} s"
        )
    return "\n".join(lines)
