"""Vision-language models as judges: can they be taught to read a pole's tilt, and can a learner be taught by what they read?

    python bench/judges.py                    all of it, some five hours of one core; finished parts are left alone
    python bench/judges.py read-0 plain       these parts; `--list` names them
    python bench/judges.py --workers 2        two parts at a time, on one core each

    read-0 .. read-2      a new LLaVA reads the tilt to a tenth of a degree, by an adaptive curriculum; 6 minutes of one core
    plain                 all scenes from the start, and pictures normalised as published: how judges come to be blind
    plain-centred         all scenes from the start
    curriculum-alone      the curriculum, and pictures normalised as published
    read-long             the curriculum for 13 minutes
    audits                the judges of this list, those that ship, and those that nobody should trust
    speed                 frames a second, one by one and together
    taught-0 .. taught-2  DQN on CartPole by a judge's reward and ends alone, everything else hidden; 40,000 steps
    true-reward, oracle, constant-45, constant-5, shuffled, constant-5-visible
                          the same learner under the true reward, the true readings, and judges that nobody should trust
    ppo                   PPO on CartPole by the same judge
    pendulum-judge, pendulum, pendulum-shuffled
                          a judge of the pendulum's angle, SAC by it, and SAC by its answers to other frames
    carracing             PPO on CarRacing, from nothing, by whether the car is on the road and gets on

Every result lies in bench/results/judges/PART.json with its commands and seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts import Log, main, minutes

HERE = Path(__file__).resolve().parent
RESULTS, RUNS = HERE / "results" / "judges", Path("runs/judges")
SEED, EPISODES = 95_000, 100
READ = ["pretrain", "--worlds", "cartpole", "--kinds", "tenths,position,lean,urgency",
        "--patches", "1", "--gate", "0.7", "--patience", "5"]  # fmt: skip
SHORT, LONG = 1_200, 3_000  # gradient steps: 6 and 13 minutes of one core
PUBLISHED = "--no-own-colours"  # pictures are normalised by the colours of photographs
DQN = ["dqn", "--env", "cartpole", "--steps", "40000", "--worlds", "16"]
PENDULUM = ["pretrain", "--worlds", "pendulum", "--steps", "1500"]
PPO = ["ppo", "--env", "cartpole", "--steps", "61440", "--worlds", "16"]
CARRACING = ["ppo", "--env", "carracing:repeat=4", "--frame-stack", "2", "--steps", "81920", "--rollout", "128",
             "--epochs", "4", "--lr", "3e-4", "--gamma", "0.99", "--gae-lambda", "0.95", "--entropy-weight", "0.01",
             "--network.hidden", "256", "--network.activation", "relu"]  # fmt: skip
SHIPPED = "tiny-git"
ANYWAY = "--judge.anyway"


def read(name: str, *more: str) -> Callable[[Log], dict[str, Any]]:
    """A judge from nothing, and its audit by its own generated words, to a tenth of a degree."""

    def part(log: Log) -> dict[str, Any]:
        run = log.train(RUNS / name, *READ, *more)
        made = log.commands[0]
        whole = "cpu_seconds" in made and "--resume" not in made["command"]  # or nobody knows what it took
        used = {"cpu_minutes": made["cpu_seconds"] / 60} if whole else {}
        return {"minutes": minutes(run), **used, "audit": audited(log, str(run), "cartpole-tenths")}

    return part


def audited(log: Log, backbone: str, sheet: str) -> dict[str, Any]:
    env = sheet.partition("-")[0]
    said = json.loads(log.run("audit", "--backbone", backbone, "--env", env, "--sheet", sheet, "--frames", "400", "--json",
                              allowed=(0, 3)))  # fmt: skip
    within = [abs(t) <= 12 for t in said["truths"].get("tilt", [])]
    answers = said["rows"]["answers"].get("tilt", [])
    pairs = [
        (a, t)
        for a, t, near in zip(answers, said["truths"].get("tilt", []), within, strict=True)
        if near and a is not None
    ]
    kept = ("judge", "frames", "questions", "reward", "disturbed", "verdict", "seconds_per_1000", "unread")
    found = {key: said[key] for key in kept}
    if pairs:
        found["tilt_error_within_12"] = sum(abs(a - t) for a, t in pairs) / len(pairs)
        found["distinct_on_200"] = len(set(answers[:200]))
    return found


def audits(log: Log) -> dict[str, Any]:
    """By sheet, the verdict on each judge; those made here stand on their own runs."""
    judges = {"cartpole": [SHIPPED, "tiny-llava", "constant:45", "constant:5", "random"],
              "carracing": [SHIPPED, "tiny-llava", "constant:0.5", "random"],
              "cartpole-tenths": [str(RUNS / "plain"), str(RUNS / "read-0")]}  # fmt: skip
    log.train(RUNS / "read-0", *READ, "--steps", str(SHORT), "--seed", "0")
    log.train(RUNS / "plain", *READ, "--steps", str(SHORT), "--difficulty", "1", PUBLISHED)
    return {sheet: {judge: audited(log, judge, sheet)["verdict"] for judge in names} for sheet, names in judges.items()}


def speed(log: Log) -> dict[str, Any]:
    """Alone on the machine, or the numbers mean nothing."""
    found = {}
    for judge in (SHIPPED, "tiny-llava"):
        said = json.loads(log.run("audit", "--backbone", judge, "--env", "cartpole", "--json", allowed=(0, 3)))
        together, alone = 1000 / said["seconds_per_1000"], 1000 / said["seconds_per_1000_one_by_one"]
        found[judge] = {"together_per_s": together, "one_by_one_per_s": alone, "times": together / alone}
    return found


def evaluated(log: Log, run: Path, env: str = "cartpole") -> dict[str, Any]:
    said = json.loads(
        log.run("eval", str(run), "--env", env, "--episodes", str(EPISODES), "--seed", str(SEED), "--json")
    )
    return {"summary": said["result"]["summary"], "step": said["result"]["step"]}


def pendulum_judge(log: Log) -> dict[str, Any]:
    run = log.train(RUNS / "pendulum-judge", *PENDULUM)
    return {"minutes": minutes(run), "audit": audited(log, str(run), "pendulum")}


def by_the_pendulum(name: str, shuffled: bool) -> Callable[[Log], dict[str, Any]]:
    """SAC on the pendulum; how fast it turns cannot be seen, so the judge pays for the angle alone."""

    def part(log: Log) -> dict[str, Any]:
        judge = log.train(RUNS / "pendulum-judge", *PENDULUM)
        more = ["--backbone", f"shuffled:{judge}", ANYWAY] if shuffled else ["--backbone", str(judge)]
        if not shuffled:
            log.run("audit", "--backbone", str(judge), "--env", "pendulum")
        run = log.train(RUNS / name, "sac", "--env", "pendulum", "--steps", "15000", "--reward", "vlm", *more)
        return {"minutes": minutes(run), **evaluated(log, run, "pendulum")}

    return part


def on_the_road(log: Log) -> dict[str, Any]:
    """PPO with a small CNN on CarRacing by the judge alone, beside itself before and a random driver."""
    log.run("audit", "--backbone", SHIPPED, "--env", "carracing")
    run = log.train(RUNS / "carracing", *CARRACING, "--reward", "vlm", "--backbone", SHIPPED)
    found: dict[str, Any] = {"minutes": minutes(run)}
    for other in ("untrained", "random"):
        flags = ["--episodes", "30", "--seed", str(SEED), "--fast", "--against", other, "--json"]
        said = json.loads(log.run("eval", str(run), *flags))
        found |= {"trained": said["result"]["summary"], other: said["against"]["summary"]}
        found[f"against {other}"] = said["paired"]
    return found


def taught(name: str, *more: str) -> Callable[[Log], dict[str, Any]]:
    """DQN by a judge; the reward and the end of the world are hidden from it."""

    def part(log: Log) -> dict[str, Any]:
        if "--reward" in more and ANYWAY not in more:
            log.run("audit", "--backbone", more[more.index("--backbone") + 1], "--env", "cartpole")
        run = log.train(RUNS / name, *(DQN if name != "ppo" else PPO), *more)
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        judged = {key: value for key, value in last.items() if key.startswith("judge/")}
        return {"minutes": minutes(run), **evaluated(log, run), **judged}

    return part


def by(judge: str, seed: int, *more: str) -> list[str]:
    return ["--reward", "vlm", "--backbone", judge, "--seed", str(seed), *more]


PARTS: dict[str, Callable[[Log], dict[str, Any]]] = {
    **{f"read-{seed}": read(f"read-{seed}", "--steps", str(SHORT), "--seed", str(seed)) for seed in range(3)},
    "plain": read("plain", "--steps", str(SHORT), "--difficulty", "1", PUBLISHED),
    "plain-centred": read("plain-centred", "--steps", str(SHORT), "--difficulty", "1"),
    "curriculum-alone": read("curriculum-alone", "--steps", str(SHORT), PUBLISHED),
    "read-long": read("read-long", "--steps", str(LONG)),
    "audits": audits,
    **{f"taught-{seed}": taught(f"taught-{seed}", *by(SHIPPED, seed)) for seed in range(3)},
    "true-reward": taught("true-reward", "--seed", "0"),
    "oracle": taught("oracle", *by("truth", 0, ANYWAY)),
    "constant-45": taught("constant-45", *by("constant:45", 0, ANYWAY)),
    "constant-5": taught("constant-5", *by("constant:5", 0, ANYWAY)),
    "shuffled": taught("shuffled", *by(f"shuffled:{SHIPPED}", 0, ANYWAY)),
    "constant-5-visible": taught("constant-5-visible", *by("constant:5", 0, ANYWAY, "--judge.visible-ends")),
    "ppo": taught("ppo", *by(SHIPPED, 0)),
    "pendulum-judge": pendulum_judge,
    "pendulum": by_the_pendulum("pendulum", shuffled=False),
    "pendulum-shuffled": by_the_pendulum("pendulum-shuffled", shuffled=True),
    "carracing": on_the_road,
    "speed": speed,
}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", PARTS, RESULTS))
