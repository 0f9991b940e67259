"""The tables of README.md, made from what the commands under bench/ wrote.

python scripts/tables.py            writes them
python scripts/tables.py --check    exit status 1 where they are stale
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- tables: made by scripts/tables.py from bench/results -->\n", "<!-- end of tables -->"


def main(arguments: list[str]) -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    fresh = f"{head}{BEGIN}\n{tables()}\n{END}{tail}"
    if arguments == ["--check"]:
        if fresh != text:
            print("README.md is stale; run python scripts/tables.py", file=sys.stderr)
        return int(fresh != text)
    readme.write_text(fresh)
    return 0


def tables() -> str:
    parts = [
        "What it learns: the mean return of 20 greedy episodes on each of three seeds (`python bench/learn.py`).",
        table(["task", "steps", "wanted", "each seed", "all 60, 95% interval"], learned()),
        "How fast it trains beside Stable-Baselines3, at the same settings and on one thread, in one run "
        "(`python bench/online_rl.py`).",
        table(["training", "steps/s: ours, theirs", "times as fast", "return: ours, theirs"], beside_sb3()),
        "How fast CarRacing draws, with the same pixels (`python bench/carracing.py`).",
        table(["CarRacing, game steps per second", "every step seen", "every fourth seen"], carracing()),
        "How fast the embedded CARLA server goes through the official client, 20 vehicles of traffic, every picture drawn "
        "anew; what is watched is on a vehicle of the client's (`python bench/sim.py`).",
        table(["watched", "ticks/s, each round", "times CarRacing's steps"], embedded()),
        *driving(),
        *stages(),
        "How fast stages train beside Hugging Face's `Trainer`: same weights, rows and batch, on one thread, in one run "
        "(`python bench/vlm_training.py`).",
        table(["training of a small model", "pictures/s: ours, theirs", "times as fast"], beside_trainer()),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def learned() -> list[list[str]]:
    rows = []
    for path in sorted((RESULTS / "learn").glob("*.json")):
        said = read(path)
        case, everything = said["case"], said["all"]
        means = ", ".join(f"{run['mean']:.1f}" for run in said["runs"])
        name = f"{case['algorithm'].upper()} on {case['env']}"
        rows.append([name, f"{case['steps']:,}", f"{said['wanted']:g}", means, within(everything, "mean", ".1f")])
    return rows


def beside_sb3() -> list[list[str]]:
    rows = []
    for path in sorted(RESULTS.glob("online_rl-*.json")):
        said = read(path)
        ours, theirs = (middle(said[side]) for side in ("ours_steps_per_s", "theirs_steps_per_s"))
        returns = f"{within(said['ours_return'], 'mean', '.0f')}, {within(said['theirs_return'], 'mean', '.0f')}"
        rows.append(
            [said["title"], f"{ours:,.0f}, {theirs:,.0f}", within(said["times_as_fast"], "value", ".2f"), returns]
        )
    return rows


def carracing() -> list[list[str]]:
    path = RESULTS / "carracing_speed.json"
    if not path.exists():
        return []
    said, rows = read(path), []
    for side, name in (("gymnasium", "Gymnasium"), ("fast", "ours"), ("envpool", "EnvPool, other pixels")):
        cells = [said[skip].get(side) for skip in ("skip_1", "skip_4")]
        if all(cells):
            rows.append(
                [name, *(f"{c['steps_per_s']['value']:,} ({c['times_gymnasium']['value']:.1f} x)" for c in cells)]
            )
    return rows


def embedded() -> list[list[str]]:
    path = RESULTS / "sim.json"
    if not path.exists():
        return []
    said = read(path)
    beside = said["gymnasium_carracing_steps_per_s"]
    rows = []
    for name, case in said["cases"].items():
        rounds = ", ".join(f"{one['ticks_per_s']:.0f}" for one in case["rounds"])
        rows.append([name, rounds, f"{case['ticks_per_s'] / beside:.2f} x"])
    return [*rows, ["Gymnasium's CarRacing, 96x96", f"{beside:.0f} steps", "1"]]


def driving() -> list[str]:
    path = RESULTS / "driving.json"
    if not path.exists():
        return []
    said, rows = read(path), []
    for part, who in (("expert", "expert, 20 other cars"), ("policy", "clone, nobody else")):
        for place, case in said.get(part, {}).items():
            found = case["driving"]
            shares = [
                f"{100 * found[key]['mean']:.1f}% ({100 * found[key]['low']:.1f} to {100 * found[key]['high']:.1f})"
                for key in ("completion", "driving")
            ]
            broken = ", ".join(
                f"{r['value']:.2f} {k.replace('_', ' ')}" for k, r in found["per_km"].items() if r["value"]
            )
            episodes = f"{len(case['episodes'])} routes, {found['km']:.1f} km"
            rows.append([who, place, episodes, *shares, broken or "none"])
    head = ["who", "where", "driven", "route completion", "driving score", "infractions per km"]
    return [
        "Driving in CARLA on the embedded server, routes of 300 m or more with two turns or more, means with their 95% "
        "intervals (`python bench/driving.py`).",
        table(head, rows),
    ]


def stages() -> list[str]:
    """What a small LLaVA and a small GIT learn, from bench/vlm_stages.py."""
    path = RESULTS / "vlm_stages.json"
    if not path.exists():
        return []
    said = read(path)
    kinds = [
        [kind, found["measure"], within(found["ours"], "value", ".2f"), within(found["blind"], "value", ".2f")]
        for kind, found in said["kinds"].items()
    ]
    captions = [
        [name, within(right, "value", ".2f")]
        for name, right in said.get("captions_right", {}).items()
        if isinstance(right, dict)
    ]
    return [
        f"What a new LLaVA of 1.4 million parameters knows about held-out pictures after stages 0, 1a and 1b, which took "
        f"{said['minutes']:.0f} minutes of one core, beside one that was trained on other rows' pictures "
        "(`python bench/vlm_stages.py`).",
        table(["question", "measure", "ours", "blind"], kinds),
        "Captions of held-out pictures that are right to the word, by a new GIT with a fixed prompt (the same command).",
        table(["GIT", "right"], captions),
    ]


def beside_trainer() -> list[list[str]]:
    said = read(RESULTS / "vlm_training.json")
    rows = []
    for case in ("captions", "instructions"):
        ours, theirs = (middle(said[case][side]) for side in ("ours", "theirs"))
        rows.append([case, f"{ours:,.0f}, {theirs:,.0f}", within(said[case]["times_as_fast"], "value", ".2f")])
    return rows


def within(said: dict[str, Any], key: str, digits: str) -> str:
    if said["low"] is None:
        return f"{said[key]:{digits}}"
    return f"{said[key]:{digits}} ({said['low']:{digits}} to {said['high']:{digits}})"


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def read(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text())
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
