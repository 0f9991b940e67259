"""Learning from data on Hopper and HalfCheetah: the sets, made by our own SAC, and what each algorithm makes of them.

    python bench/offline.py                   all of it, many hours of a slow core; finished parts are left alone
    python bench/offline.py sets-hopper       these parts; `--list` names them
    python bench/offline.py --workers 2       two parts at a time, on one core each

    sets-ENV                SAC, and from it random, medium-replay, medium and expert sets: recipe, hashes, reference scores
    ALGORITHM-SET-SEED      bc, iql, td3bc and cql on medium-replay; bc and dt on medium-expert
    d3rlpy-iql-SEED         the peer on the same set, with as many updates
    beside-iql-SEED         the peer and ours from the same first weights, step by step on the same batches
    acted-ALGORITHM-SEED    iql and td3bc on HalfCheetah go on by acting for 25,000 steps, from what they made of medium-replay
    gail-ENV-SEED, bc-few-ENV-SEED   from every twentieth pair of four expert episodes; gail-random from a random player's,
                            gail-alone-ENV-SEED without cloning them beside
    pixels-ALGORITHM-SEED   IQL and cloning on what a CarRacing policy did well and badly

Scores are 100 * (return - random) / (expert - random) by each set's own references, over 20 episodes from seed 95,000 on, which
no training draws, at the last checkpoint. Everything lies in bench/results/offline/PART.json with its commands and seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carracing_policy import FEWER, imitated
from parts import Log, main, minutes

from drivetrain import stats

HERE = Path(__file__).resolve().parent
RESULTS, RUNS, DATA = HERE / "results" / "offline", Path("runs/offline"), Path("data/offline")
PEER = str(HERE.parent / ".venv-d3rlpy" / "bin" / "python")
SEED, EPISODES, SEEDS = 95_000, 20, (0, 1, 2)
MORE = (3, 4)  # trainings of IQL and of the peer's on HalfCheetah, which scatter
WIDTH, BATCH = 128, 128  # half of what papers take, for everybody: the whole is a matter of hours of one slow core
SIZE = ["--batch-size", str(BATCH), "--network.hidden", str(WIDTH), str(WIDTH)]
SAC = [*SIZE, "--warmup", "5000", "--lr", "1e-3", "--actor-lr", "3e-4", "--keep", "20", "--checkpoint-every", "20000"]
ENVS = {"hopper": ["--worlds", "4", "--updates", "2"], "halfcheetah": []}  # Hopper: half as many updates as steps
MEDIUM, EXPERT = {"hopper": 140_000, "halfcheetah": 40_000}, {"hopper": 400_000, "halfcheetah": 100_000}
MEDIUMS = {"hopper": "300", "halfcheetah": "100"}  # episodes that come to as many steps as a hundred of the expert's
FEW = ["--episodes", "4", "--every", "20"]

# from all that the others learn from
CLONE = ["--head", "deterministic", "--lr", "3e-4", "--held-out", "0", "--as-done"]
CLONE += [*SIZE, "--network.activation", "relu"]
FLAGS = {
    "bc": ["--steps", "50000", *CLONE],
    "iql": ["--steps", "50000", *SIZE],
    "td3bc": ["--steps", "50000", *SIZE],
    "cql": ["--steps", "20000", *SIZE],
    "dt": ["--steps", "10000", "--batch-size", "32", "--attention.width", "64", "--attention.context", "10"],
}
GAIL = ["--network.hidden", str(WIDTH), str(WIDTH), "--sac.batch-size", str(BATCH)]
GAIL += ["--judge-hidden", str(WIDTH), str(WIDTH), "--judge-batch", str(BATCH)]
GAILS = ("gail", "gail-alone")
WHERE_GAIL = {
    "hopper": ["--env", "hopper:absorb=5", "--worlds", "4", "--sac.updates", "2", "--sac.anneal", "--gamma", "0.97"],
    "halfcheetah": ["--env", "halfcheetah"],
}
STEPS_GAIL = {"hopper": 80_000, "halfcheetah": 40_000}


def taught(log: Log, env: str) -> Path:
    """The player that all sets of an environment come from."""
    return log.train(RUNS / f"sac-{env}", "sac", "--env", env, "--steps", str(EXPERT[env]), *SAC, *ENVS[env])


def of(log: Log, env: str, kind: str) -> Path:
    """A set, made from nothing if need be."""
    folder, run = DATA / f"{env}-{kind}", taught(log, env)
    half = run / "checkpoints" / f"{MEDIUM[env]:09d}"
    made = {
        "random": ["--env", env, "--by", "random", "--episodes", "100"],
        "medium": ["--env", env, "--by", str(half), "--no-greedy", "--episodes", MEDIUMS[env]],
        "expert": ["--env", env, "--by", str(run), "--no-greedy", "--episodes", "100", "--seed", "2000000"],
        "medium-replay": ["--as", "replay", "--by", str(half)],
        "few": ["--as", "subset", "--dataset", str(DATA / f"{env}-expert"), *FEW],
        "few-random": ["--as", "subset", "--dataset", str(DATA / f"{env}-random"), *FEW],
    }[kind]
    for needed in {"few": ["expert"], "few-random": ["random"]}.get(kind, []):
        of(log, env, needed)
    return log.collect(folder, *made)


def card(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "meta" / "card.json").read_text())
    return said


def sets(env: str) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        cards = {kind: card(of(log, env, kind)) for kind in ("random", "medium-replay", "medium", "expert")}
        reference = {kind: cards[kind]["returns"]["mean"] for kind in ("random", "expert")}
        return {"minutes": minutes(taught(log, env)), "reference": reference, "sets": cards}

    return part


def scored(log: Log, env: str, returns: list[float]) -> dict[str, Any]:
    cards = {kind: card(of(log, env, kind)) for kind in ("random", "expert")}
    low, high = (one["returns"]["mean"] for one in cards.values())
    scores = [100 * (value - low) / (high - low) for value in returns]
    sets = {kind: one["fingerprint"] for kind, one in cards.items()}
    return {"score": stats.summary(scores).to_json(), "scores": scores, "returns": returns, "scored_by": sets}


def judged(log: Log, run: Path, env: str) -> dict[str, Any]:
    said = json.loads(log.run("eval", str(run), "--episodes", str(EPISODES), "--seed", str(SEED), "--json"))["result"]
    return {"minutes": minutes(run), "step": said["step"], **scored(log, env, said["returns"])}


def learned(algorithm: str, env: str, kind: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        kinds = ["medium", "expert"] if kind == "medium-expert" else [kind]
        data = ",".join(str(of(log, env, each)) for each in kinds)
        flags = ["--dataset", data, *FLAGS[algorithm], "--seed", str(seed)]
        return judged(log, log.train(RUNS / f"{algorithm}-{env}-{kind}-{seed}", algorithm, *flags), env)

    return part


def acted(algorithm: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    """From the critics and the policy that the data made, by acting too; the same evaluation says what it was before."""

    def part(log: Log) -> dict[str, Any]:
        env, kind = "halfcheetah", "medium-replay"
        data = str(of(log, env, kind))
        before = log.train(
            RUNS / f"{algorithm}-{env}-{kind}-{seed}",
            *(algorithm, "--dataset", data, *FLAGS[algorithm], "--seed", str(seed)),
        )
        flags = ["--dataset", data, *SIZE, "--policy", str(before), "--steps", "0", "--acting", "25000"]
        flags += ["--seed", str(seed)]
        run = log.train(RUNS / f"acted-{algorithm}-{seed}", algorithm, *flags)
        first = judged(log, before, env)
        after = judged(log, run, env)
        paired = stats.paired(after["returns"], first["returns"]).to_json()
        return {**after, "before": first["score"], "paired": paired}

    return part


def by_peer(log: Log, script: str, *words: str) -> dict[str, Any]:
    """What a script says that runs in the peer's environment, of networks and episodes as ours have them."""
    flags = ["--steps", "50000", "--env", "HalfCheetah-v5", "--episodes", str(EPISODES), "--first-seed", str(SEED)]
    flags += ["--width", str(WIDTH), "--batch-size", str(BATCH)]
    said = log.call(
        [PEER, str(HERE / "peers" / script), *words, *flags], " ".join([f"bench/peers/{script}", *words, *flags])
    )
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def as_file(log: Log) -> tuple[Path, Path]:
    """HalfCheetah's medium-replay, and the same in D4RL's format."""
    source, file = of(log, "halfcheetah", "medium-replay"), DATA / "halfcheetah-medium-replay.hdf5"
    if not file.exists():
        log.run("collect", "--as", "d4rl", "--dataset", str(source), "--output-dir", str(file))
    return source, file


def peer(seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        _, file = as_file(log)
        said = by_peer(log, "d3rlpy_run.py", "iql", str(file), "--seed", str(seed))
        return {"minutes": said["seconds"] / 60, **scored(log, "halfcheetah", said["returns"])}

    return part


def beside(seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        source, file = as_file(log)
        said = by_peer(log, "d3rlpy_beside.py", str(source), str(file), "--seed", str(seed))
        ours, theirs = (scored(log, "halfcheetah", said[who]) for who in ("ours", "d3rlpy"))
        paired = stats.paired(ours["returns"], theirs["returns"]).to_json()
        return {**ours, "d3rlpy": theirs, "paired": paired, "apart": said["apart"]}

    return part


def from_few(algorithm: str, env: str, kind: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    """From few pairs; GAIL acts too, and is rewarded by nobody but its discriminator, and clones them beside, or does not."""

    def part(log: Log) -> dict[str, Any]:
        data, name = of(log, env, kind), f"{algorithm}-{kind}-{env}-{seed}"
        more = ["--steps", "5000", *CLONE]
        if algorithm in GAILS:
            more = [*GAIL, *WHERE_GAIL[env], "--steps", str(STEPS_GAIL[env])]
            more += ["--clone", "1"] if algorithm == "gail" else []
        who = algorithm.partition("-")[0]
        run = log.train(RUNS / name, who, "--dataset", str(data), *more, "--seed", str(seed))
        return judged(log, run, env)

    return part


def from_pixels(algorithm: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    """The rounds of an imitation: what it did when it knew little, and when it knew much, and not what it was told to do."""

    def part(log: Log) -> dict[str, Any]:
        source = imitated(log, "continuous", 0, "--network.camera", "cnn", name="cnn", after=FEWER) / "rounds"
        data = ",".join(str(path) for path in sorted(source.iterdir()) if (path / "meta").is_dir())
        flags = ["--dataset", data, "--steps", "2000", "--batch-size", "64", "--seed", str(seed)]
        flags += ["--network.hidden", "256", "--network.activation", "relu"]
        flags += ["--held-out", "0", "--as-done"] if algorithm == "bc" else []
        run = log.train(RUNS / f"pixels-{algorithm}-{seed}", algorithm, *flags)
        said = json.loads(log.run("eval", str(run), "--episodes", "30", "--seed", "90000", "--fast", "--json"))[
            "result"
        ]
        return {"minutes": minutes(run), "summary": said["summary"], "returns": said["returns"]}

    return part


ON = {"medium-replay": ("bc", "iql", "td3bc", "cql"), "medium-expert": ("bc", "dt")}
WHERE = {"medium-replay": ("hopper", "halfcheetah"), "medium-expert": ("hopper",)}
PARTS: dict[str, Callable[[Log], dict[str, Any]]] = {
    **{f"sets-{env}": sets(env) for env in ENVS},
    **{
        f"{algorithm}-{env}-{kind}-{seed}": learned(algorithm, env, kind, seed)
        for kind, algorithms in ON.items()
        for env in WHERE[kind]
        for algorithm in algorithms
        for seed in SEEDS
    },
    **{f"acted-{algorithm}-{seed}": acted(algorithm, seed) for algorithm in ("iql", "td3bc") for seed in SEEDS},
    **{f"iql-halfcheetah-medium-replay-{seed}": learned("iql", "halfcheetah", "medium-replay", seed) for seed in MORE},
    **{f"d3rlpy-iql-{seed}": peer(seed) for seed in (*SEEDS, *MORE)},
    **{f"beside-iql-{seed}": beside(seed) for seed in SEEDS},
    **{f"bc-few-{env}-{seed}": from_few("bc", env, "few", seed) for env in ENVS for seed in SEEDS},
    **{f"{who}-{env}-{seed}": from_few(who, env, "few", seed) for who in GAILS for env in ENVS for seed in SEEDS},
    "gail-random": from_few("gail", "hopper", "few-random", 0),
    **{f"pixels-{algorithm}-{seed}": from_pixels(algorithm, seed) for seed in SEEDS for algorithm in ("bc", "iql")},
}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", PARTS, RESULTS))
