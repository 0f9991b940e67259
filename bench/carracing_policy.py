"""A vision-language model that drives CarRacing: every number about it, from nothing to the table.

    python bench/carracing_policy.py                   all of it, some eight hours of one core; finished parts are left alone
    python bench/carracing_policy.py discrete-0        one part, with what it stands on; `--list` names them
    python bench/carracing_policy.py --workers 2       two parts at a time, on one core each

Every part is a handful of `drivetrain` commands with one thread. Returns are on tracks from seed 190,000 on, which no training
draws and nothing was chosen on, at the last checkpoint; those over 100 tracks are in Gymnasium's own drawing, all others in
ours, which has the same pixels. Runs go to runs/carracing/, each part to bench/results/carracing_policy/PART.json with its
commands and the seconds each took.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts import Log, do, main, minutes

from drivetrain import checkpoint, stats

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "carracing_policy"
RUNS, DATA = Path("runs/carracing"), Path("data")
TRACKS, MANY, EACH, SOME = 190_000, 100, 40, 30
PROMPT = "What should the vehicle do in this scenario?"
NOISE = "Banana trousers under the quiet tax of seven umbrellas."

ENVS = {"discrete": "carracing", "continuous": "carracing-continuous:repeat=2"}
LAPS = {"discrete": ("20", "10"), "continuous": ("30", "16")}  # of the expert, and of each round: as many frames
HEADS = {"discrete": ["--smoothing", "0.02"], "continuous": ["--head", "gaussian"]}
EYES = ["--backbone", "tiny-git", "--prompt", PROMPT, "--words", "0.3"]
ROUNDS, ROUND_STEPS = 5, 600
DAGGER = ["--round-steps", str(ROUND_STEPS), "--lr", "6e-4", "--beta", "0.2", "--checkpoint-every", str(ROUND_STEPS),
          "--keep", str(ROUNDS)]  # fmt: skip
FEWER = 3  # rounds of what is compared; each begins and ends as the recipe's own
PPO = ["--env", ENVS["discrete"], "--worlds", "8", "--rollout", "128", "--minibatch", "256", "--epochs", "5", "--gamma", "0.99",
       "--gae-lambda", "0.95", "--clip", "0.1", "--lr", "1e-4", "--normalise-returns", "--clip-reward", "5",
       "--value-warmup", "20480", "--anchor", "0.02", "--freeze", "--no-anneal"]  # fmt: skip


def judge(
    log: Log, who: Path | str, tracks: int, *flags: str, against: Path | str = "", fast: bool = True
) -> dict[str, Any]:
    """In our own drawing, which has the same pixels, or in Gymnasium's."""
    more = [*(["--against", str(against)] if against else []), *(["--fast"] if fast else [])]
    said = json.loads(
        log.run("eval", str(who), "--episodes", str(tracks), "--seed", str(TRACKS), "--json", *more, *flags)
    )
    kept = ("env", "step", "summary", "solved", "laps_finished", "returns", "unread", "asked")
    brief = {side: {k: v for k, v in said[side].items() if k in kept} for side in ("result", "against") if side in said}
    return {**brief, **({"paired": said["paired"]} if "paired" in said else {})}


def measure(log: Log, what: str, run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(log.script("carracing_words.py", what, str(run)))
    return found


def collected(log: Log, kind: str) -> Path:
    """The expert's own episodes, its hand slipping at one step in ten."""
    wanted = ["--env", ENVS[kind], "--by", "carracing", "--noise", "0.1", "--episodes", LAPS[kind][0]]
    return log.collect(DATA / f"carracing-{kind}", *wanted)


def imitated(log: Log, kind: str, seed: int, *eyes: str, name: str = "", after: int = ROUNDS) -> Path:
    data = collected(log, kind)
    flags = [*(eyes or EYES), *HEADS[kind], *DAGGER, "--steps", str(after * ROUND_STEPS), "--episodes", LAPS[kind][1]]
    flags += ["--seed", str(seed)]
    return log.train(RUNS / (name or f"{kind}-{seed}"), "dagger", "--dataset", str(data), *flags)


def main_result(kind: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, seed)
        tracks, fast = (MANY, False) if seed == 0 else (EACH, True)
        return {"minutes": minutes(run), "weights": weights(run), **judge(log, run, tracks, fast=fast)}

    return part


def rounds(kind: str) -> Callable[[Log], dict[str, Any]]:
    """What each round made of seed 0, cloning first."""

    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, 0)
        steps = range(ROUND_STEPS, ROUNDS * ROUND_STEPS + 1, ROUND_STEPS)
        return {str(i): judge(log, run / "checkpoints" / f"{step:09d}", SOME) for i, step in enumerate(steps)}

    return part


def variant(name: str, kind: str, *eyes: str) -> Callable[[Log], dict[str, Any]]:
    """The recipe with one thing changed, stopped after three rounds."""

    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, 0, *eyes, name=name, after=FEWER)
        return {"minutes": minutes(run), **judge(log, run, SOME)}

    return part


def untrained(log: Log) -> dict[str, Any]:
    return judge(log, imitated(log, "discrete", 0), SOME, against="untrained")["against"]


def experts(log: Log) -> dict[str, Any]:
    return {kind: judge(log, "carracing", MANY, "--env", env) for kind, env in ENVS.items()}


def captions(log: Log) -> dict[str, Any]:
    """LoRA on the frames that the expert drove, and the model that results at the wheel."""
    data, folder, found = collected(log, "discrete"), DATA / "carracing-labels", {}
    log.collect(folder, "--as", "captions", "--dataset", str(data), "--style", "plain", "--scenes", "10000")
    run = log.train(RUNS / "captions", "caption", "--backbone", "tiny-git", "--dataset", str(folder), "--steps", "2000")
    for how in ("score", "parse"):
        found[how] = judge(log, run, SOME, "--env", ENVS["discrete"], "--answers", how)
    right = json.loads((run / "examination.json").read_text())
    return {"minutes": minutes(run), "right": right, **found}


def noise(log: Log) -> dict[str, Any]:
    """The same policy, its prompt replaced by words that mean nothing here."""
    run = imitated(log, "discrete", 0)
    return judge(log, run, SOME, "--prompt", NOISE, against=run)


def obedient(log: Log) -> dict[str, Any]:
    """A policy that learned where orders are given, and what it does on each."""
    data = DATA / "carracing-orders"
    env = f"{ENVS['discrete']}:order=any"
    log.collect(data, "--env", env, "--by", "carracing", "--noise", "0.1", "--episodes", "25")
    flags = [*EYES, *HEADS["discrete"], *DAGGER, "--steps", str(ROUNDS * ROUND_STEPS), "--episodes", "12"]
    run = log.train(RUNS / "orders", "dagger", "--dataset", str(data), *flags)
    return {"minutes": minutes(run), **measure(log, "orders", run)}


def commentary(log: Log) -> dict[str, Any]:
    return {kind: measure(log, "commentary", imitated(log, kind, 0)) for kind in ENVS}


def speed(log: Log) -> dict[str, Any]:
    return measure(log, "speed", imitated(log, "discrete", 0))


def improved(log: Log) -> dict[str, Any]:
    """PPO from the finished imitation, on the same tracks."""
    start = imitated(log, "discrete", 0)
    run = log.train(RUNS / "ppo", "ppo", "--policy", str(start), *PPO, "--steps", "122880")
    do("discrete-0", PARTS["discrete-0"], RESULTS)
    before = json.loads((RESULTS / "discrete-0.json").read_text())
    if before["weights"] != weights(start):
        raise RuntimeError(f"{start} is not what was judged in {RESULTS / 'discrete-0.json'}; remove that")
    found = judge(log, run, MANY, fast=False)
    paired = stats.paired(found["result"]["returns"], before["result"]["returns"]).to_json()
    return {"minutes": minutes(run), **moved(run), **found, "against": before["result"], "paired": paired}


def weights(run: Path) -> str:
    """A hash of the policy of a run's last checkpoint."""
    files = checkpoint.read_manifest(checkpoint.resolve(run))["files"]
    return str(files["policy.safetensors"]["sha256"])


def early(log: Log) -> tuple[Path, str]:
    """A clone that was stopped early, where a choice holds for two frames; and that world."""
    data, env = DATA / "carracing-twos", f"{ENVS['discrete']}:repeat=2"
    log.collect(data, "--env", env, "--by", "carracing", "--noise", "0.1", "--episodes", LAPS["discrete"][0])
    flags = [*EYES, *HEADS["discrete"], "--steps", "900", "--lr", "6e-4"]
    return log.train(RUNS / "early", "bc", "--dataset", str(data), *flags), env


def rescued(log: Log) -> dict[str, Any]:
    start, env = early(log)
    run = log.train(RUNS / "ppo-early", "ppo", "--policy", str(start), *PPO[2:], "--env", env, "--steps", "102400")
    return {"minutes": minutes(run), **moved(run), **judge(log, run, EACH, against=start)}


def by_groups(log: Log) -> dict[str, Any]:
    """GRPO from the same clone: no value, groups that share a track and a beginning."""
    start, env = early(log)
    flags = ["--env", env, "--groups", "2", "--lr", "2e-4", "--anchor", "0.02", "--freeze", "--steps", "204800"]
    run = log.train(RUNS / "grpo-early", "grpo", "--policy", str(start), *flags)
    return {"minutes": minutes(run), **moved(run), **judge(log, run, EACH, against=start)}


def moved(run: Path) -> dict[str, Any]:
    """The divergence from where it started, over the last tenth of the run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    anchored = [row["loss/anchor"] for row in rows if "loss/anchor" in row]
    weight = json.loads((run / "config.json").read_text())["config"]["anchor"]
    last = anchored[-max(len(anchored) // 10, 1) :]
    return {"divergence": sum(last) / len(last) / weight, "steps": rows[-1]["step"]}


def from_scratch(log: Log) -> dict[str, Any]:
    """PPO alone, a small CNN, as many decisions as imitation and PPO saw together."""
    alone = PPO[: PPO.index("--value-warmup")]
    flags = [*alone, "--lr", "3e-4", "--network.hidden", "256", "--network.activation", "relu"]
    run = log.train(RUNS / "ppo-scratch", "ppo", *flags, "--steps", "204800")
    return {"minutes": minutes(run), **judge(log, run, SOME)}


PARTS: dict[str, Callable[[Log], dict[str, Any]]] = {
    **{f"{kind}-{seed}": main_result(kind, seed) for seed in range(3) for kind in ENVS},
    "ppo": improved,
    "orders": obedient,
    "ppo-early": rescued,
    "grpo-early": by_groups,
    "experts": experts,
    "captions": captions,
    "noise": noise,
    "commentary": commentary,
    "rounds-discrete": rounds("discrete"),
    "rounds-continuous": rounds("continuous"),
    "untrained": untrained,
    "frozen": variant("frozen", "continuous", *EYES, "--tune", "frozen", "--words", "0"),
    "lora": variant("lora", "continuous", *EYES, "--tune", "lora"),
    "pooled": variant("pooled", "continuous", *EYES, "--look", "pooled"),
    "cnn": variant("cnn", "continuous", "--network.camera", "cnn"),
    "llava": variant("llava", "continuous", "--backbone", "tiny-llava", *EYES[2:]),
    "ppo-scratch": from_scratch,
    "speed": speed,
}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", PARTS, RESULTS))
