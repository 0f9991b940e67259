"""The tables of README.md and of docs/, made from what the commands under bench/ wrote.

python scripts/tables.py            writes them
python scripts/tables.py --check    exit status 1 where they are stale
"""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from drivetrain import stats
from drivetrain.rungs import picture
from drivetrain.rungs import table as rungs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- tables: made by scripts/tables.py from bench/results -->\n", "<!-- end of tables -->"


def read(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text())
    return said


def part(folder: str, name: str) -> dict[str, Any]:
    """What a bench that is made part by part kept of one; nothing where it has not been made."""
    path = RESULTS / folder / f"{name}.json"
    return read(path) if path.exists() else {}


wheel, judged = partial(part, "carracing_policy"), partial(part, "judges")
dreamt, offline = partial(part, "dreaming"), partial(part, "offline")


def main(arguments: list[str]) -> int:
    stale = []
    for page, made in PAGES.items():
        path = ROOT / page
        text = path.read_text()
        head, rest = text.split(BEGIN)
        _, tail = rest.split(END)
        fresh = f"{head}{BEGIN}\n{made()}\n{END}{tail}"
        if fresh != text:
            stale.append(page)
            if arguments != ["--check"]:
                path.write_text(fresh)
    for name, said in ladders().items():
        path = ROOT / "docs" / "gallery" / f"ladder-{name}.svg"
        if not path.exists() or path.read_text() != picture(said):
            stale.append(str(path.relative_to(ROOT)))
            if arguments != ["--check"]:
                path.write_text(picture(said))
    if arguments == ["--check"] and stale:
        print(f"{', '.join(stale)}: stale; run python scripts/tables.py", file=sys.stderr)
        return 1
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
        *at_the_wheel(),
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


def at_the_wheel() -> list[str]:
    """In short; docs/carracing.md has all of it."""
    rows = drivers()
    if not rows:
        return []
    return [
        "A vision-language model of 1.4 million parameters that drives CarRacing, on tracks no training saw; over 100 tracks "
        "in Gymnasium's own environment, over fewer in ours with the same pixels; 900 is called solved ([all of it]"
        "(docs/carracing.md), `python bench/carracing_policy.py`).",
        table(
            ["who", "return, 95% interval", "tracks", "at 900 or more", "laps finished", "minutes of one core"], rows
        ),
    ]


def driven(who: str, found: dict[str, Any], minutes: float | None = None) -> list[str]:
    share = [f"{100 * found[key]['value']:.0f}%" for key in ("solved", "laps_finished")]
    took = "" if minutes is None else f"{minutes:.0f}"
    return [who, within(found["summary"], "mean", ".1f"), str(len(found["returns"])), *share, took]


def drivers() -> list[list[str]]:
    rows = []
    for kind, what in (("discrete", "five choices"), ("continuous", "steer, gas, brake")):
        for seed in range(3):
            if found := wheel(f"{kind}-{seed}"):
                rows.append(driven(f"tiny-git, {what}, seed {seed}", found["result"], found["minutes"]))
        if experts := wheel("experts"):
            rows.append(driven(f"the expert, {what}", experts[kind]["result"]))
    return rows


def carracing_page() -> str:
    parts: list[str] = []
    if rows := drivers():
        head = ["who", "return, 95% interval", "tracks", "at 900 or more", "laps finished", "minutes of one core"]
        parts += [f"Three seeds of each; at the last checkpoint. {altogether()}", table(head, rows)]
    if rows := [row for kind in ("discrete", "continuous") for row in by_round(kind)]:
        parts += [
            "What each round made of seed 0.",
            table(["actions", "after", "return, 95% interval", "laps finished"], rows),
        ]
    if rows := compared():
        head = [
            "actions",
            "what",
            "return, 95% interval",
            "tracks",
            "at 900 or more",
            "laps finished",
            "minutes",
        ]
        parts += [
            "The same recipe with one thing changed, and what else drives: one training run each, and intervals over its "
            "tracks alone.",
            table(head, rows),
        ]
    if rows := reinforced():
        head = ["what", "steps", "moved (KL)", "before", "after", "on the same tracks"]
        parts += ["What reinforcement learning adds.", table(head, rows)]
    if found := wheel("noise"):
        pair = found["paired"]
        parts.append(
            "The plain recipe knows one prompt, and reads it hardly at all: with nonsense in its place the return on the same "
            f"{len(found['result']['returns'])} tracks changes by {pair['difference']:+.1f} ({pair['low']:+.1f} to "
            f"{pair['high']:+.1f}). A policy that is given orders has to read them."
        )
    if rows := obeyed():
        head = ["order", "speed, m/s", "of the normal speed", "left of the middle, m", "stands within 3 s"]
        parts += [
            "Orders that are given, and in brackets the same trials under labels dealt at random.",
            table(head, rows),
        ]
    if rows := commented():
        head = ["actions", "statement", "right, where clear", "right, all", "always the commonest", "others' pictures"]
        parts += [
            "What it says while it drives: of bend and pace against the truth, by the borders that its teacher had; of the "
            "deed against what it then did.",
            table(head, rows),
        ]
    if found := wheel("speed"):
        parts.append(
            f"One decision on one core takes {found['p50_ms']:.1f} ms (p99 {found['p99_ms']:.1f} ms), "
            f"{found['per_s']:.0f} a second."
        )
    return "\n\n".join(parts) + "\n"


def altogether() -> str:
    """What the three seeds of each kind returned on all their tracks."""
    found = []
    for kind, actions in (("discrete", CHOICES), ("continuous", PEDALS)):
        returns = [x for seed in range(3) for x in wheel(f"{kind}-{seed}").get("result", {}).get("returns", [])]
        if returns:
            said = stats.summary(returns).to_json()
            found.append(f"{within(said, 'mean', '.1f')} by {actions} on {len(returns)}")
    return f"All tracks together: {'; '.join(found)}."


def by_round(kind: str) -> list[list[str]]:
    rows = []
    for number, found in wheel(f"rounds-{kind}").items():
        if number.isdigit():
            name = "cloning" if number == "0" else f"round {number}"
            row = driven(name, found["result"])
            rows.append([kind, row[0], row[1], row[4]])
    return rows


CHOICES, PEDALS = "five choices", "steer, gas, brake"
VARIANTS = {
    "untrained": (CHOICES, "a new head, untrained"),
    "noise": (CHOICES, "the prompt replaced by nonsense"),
    "ppo-scratch": (CHOICES, "PPO alone, small CNN, as many frames"),
    "frozen": (PEDALS, "the backbone frozen, three rounds"),
    "lora": (PEDALS, "LoRA in the backbone, three rounds"),
    "pooled": (PEDALS, "a pooled picture instead of every token, three rounds"),
    "llava": (PEDALS, "tiny-llava instead of tiny-git, three rounds"),
    "cnn": (PEDALS, "a small CNN instead of a language model, three rounds"),
}
ANSWERS = {"score": "captions alone, the likeliest answer", "parse": "captions alone, the answer it gives"}


def compared() -> list[list[str]]:
    rows = []
    for kind, actions in (("discrete", CHOICES), ("continuous", PEDALS)):
        if numbered := [found for number, found in wheel(f"rounds-{kind}").items() if number.isdigit()]:
            rows.append([actions, *driven("the recipe itself", numbered[-1]["result"])])
            if kind == "continuous":
                rows.append([actions, *driven("the recipe itself, three rounds", numbered[2]["result"])])
    for name, (actions, what) in VARIANTS.items():
        if found := wheel(name):
            rows.append([actions, *driven(what, found.get("result", found), found.get("minutes"))])
    if found := wheel("captions"):
        rows += [[CHOICES, *driven(what, found[how]["result"], found["minutes"])] for how, what in ANSWERS.items()]
    return sorted(rows, key=lambda row: row[0] != CHOICES)


def reinforced() -> list[list[str]]:
    rows = []
    early = "cloning stopped early, a choice for two frames"
    for name, what in (
        ("ppo", "PPO from the finished imitation"),
        ("ppo-early", f"PPO from {early}"),
        ("grpo-early", f"GRPO from {early}"),
    ):
        if found := wheel(name):
            pair = found["paired"]
            before, after = (within(found[side]["summary"], "mean", ".1f") for side in ("against", "result"))
            verdict = f"{pair['verdict']} ({pair['difference']:+.1f}, {pair['low']:+.1f} to {pair['high']:+.1f})"
            moved = f"{found['divergence']:.3f}" if "divergence" in found else ""
            rows.append([what, f"{found['steps']:,}", moved, before, after, verdict])
    return rows


def obeyed() -> list[list[str]]:
    found, rows = wheel("orders"), []
    for order, said in found.get("given", {}).items():
        other = found["shuffled"][order]
        cells = [(f"{x['speed_mps']['mean']:.1f}", f"{100 * x['share_of_normal_speed']:.0f}%", f"{x['left_m']['mean']:+.1f}",
                  f"{100 * x['stands']['value']:.0f}%") for x in (said, other)]  # fmt: skip
        rows.append([order, *(f"{mine} ({dealt})" for mine, dealt in zip(*cells, strict=True))])
    return rows


def commented() -> list[list[str]]:
    rows = []
    found_all = wheel("commentary")
    for kind in ("discrete", "continuous") if found_all else ():
        found = found_all[kind]
        for what in ("bend", "pace", "deed"):
            mine, blind = found["seen"][what], found["shuffled"][what]
            cells = [f"{100 * mine[k]['value']:.0f}%" for k in ("right", "right, borderline ones too")]
            rows.append(
                [kind, what, *cells, f"{100 * mine['commonest']:.0f}%", f"{100 * blind['right']['value']:.0f}%"]
            )
    return rows


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


TAUGHT = {
    "taught-0": "tiny-git, its own reward and ends, seed 0",
    "taught-1": "the same, seed 1",
    "taught-2": "the same, seed 2",
    "oracle": "the truth by the same sheet",
    "true-reward": "the world's own reward and ends",
    "constant-45": "a judge that always says 45",
    "constant-5": "a judge that always says 5",
    "shuffled": "tiny-git's answers to other frames",
    "constant-5-visible": "always 5, the world's own ends visible",
    "ppo": "tiny-git again, and PPO instead of DQN",
}


READERS = {
    "plain": "all scenes from the start, colours as published",
    "plain-centred": "all scenes from the start, colours centred",
    "curriculum-alone": "curriculum, colours as published",
    "read-0": "curriculum, colours centred, seed 0",
    "read-1": "the same, seed 1",
    "read-2": "the same, seed 2",
    "read-long": "the same, longer",
}


def judges_page() -> str:
    parts: list[str] = []
    if rows := readers():
        head = [
            "training",
            "minutes of a processor",
            "tilt: error, degrees",
            "correlation",
            "distinct of 200",
            "unread",
            "shuffled",
        ]
        said = (
            "A new LLaVA of 1.4 million parameters learns to read CartPole in 1,200 steps (longer: 3,000); held-out frames, "
            "|tilt| up to 12 degrees. The processor of the curriculum by itself was a slower one."
        )
        parts += [said, table([*head, "cart: error, cm", "audit"], rows)]
    if rows := returns(TAUGHT):
        said = (
            "CartPole, everything but the judge hidden: the true return of 100 greedy episodes at the last checkpoint."
        )
        parts += [said, table(["taught by", "return, 95% interval"], rows)]
    pendulum = {"pendulum": "the judge's reading of the angle", "pendulum-shuffled": "its answers to other frames"}
    if rows := returns(pendulum):
        parts += ["The pendulum after 15,000 steps of SAC.", table(["taught by", "return, 95% interval"], rows)]
    if found := judged("carracing"):
        rows = [[who, within(found[who], "mean", ".1f")] for who in ("trained", "untrained", "random")]
        said = "CarRacing after 81,920 steps of PPO by whether the car is on the road and gets on."
        parts += [said, table(["who", "return, 95% interval"], rows)]
    if rows := verdicts():
        parts += ["Who is fit to judge.", table(["sheet", "judge", "verdict"], rows)]
    if rows := judging_speed():
        said = "Frames of CartPole judged a second, both questions, on one core."
        parts += [said, table(["judge", "one by one", "together", "times"], rows)]
    return "\n\n".join(parts) + "\n"


def readers() -> list[list[str]]:
    rows = []
    for name, what in READERS.items():
        if not (found := judged(name)):
            continue
        audit = found["audit"]
        tilt, place = audit["questions"]["tilt"], audit["questions"]["position"]
        used = f"{found['cpu_minutes']:.1f}" if "cpu_minutes" in found else "-"
        numbers = [used, f"{audit['tilt_error_within_12']:.2f}", shown(tilt["correlation"])]
        numbers += [str(audit["distinct_on_200"]), f"{100 * tilt['unread']:.1f}%"]
        numbers += [f"{audit['disturbed']['shuffled']['tilt']:+.2f}", f"{place['error']:.1f}"]
        rows.append([what, *numbers, "fit" if audit["verdict"]["fit"] else "not fit"])
    return rows


def returns(names: dict[str, str]) -> list[list[str]]:
    return [[what, within(found["summary"], "mean", ".1f")] for name, what in names.items() if (found := judged(name))]


def verdicts() -> list[list[str]]:
    rows = []
    for sheet, judges in made(judged("audits")).items():
        for judge, said in judges.items():
            verdict = "fit" if said["fit"] else f"not fit: {said['why'][0]}"
            rows.append([sheet, judge.rpartition("/")[2], verdict])
    return rows


def judging_speed() -> list[list[str]]:
    return [
        [judge, f"{said['one_by_one_per_s']:.0f}", f"{said['together_per_s']:.0f}", f"{said['times']:.1f}"]
        for judge, said in made(judged("speed")).items()
    ]


def made(found: dict[str, Any]) -> dict[str, Any]:
    """Without how it was made."""
    return {key: value for key, value in found.items() if key not in ("commands", "environment")}


def shown(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['value']:.3f}"


def ladders() -> dict[str, dict[str, Any]]:
    return {path.stem: read(path) for path in sorted((RESULTS / "ladder").glob("*.json"))}


def ladder_page() -> str:
    parts = []
    for name, said in ladders().items():
        parts += [f"## {name}", said["about"], f"![{name}](gallery/ladder-{name}.svg)", rungs(said).rstrip()]
        parts.append(f"`python bench/ladder.py {name}`; the data: `drivetrain {said['data']['command']}`.")
    return "\n\n".join(parts) + "\n"


def worked(found: dict[str, Any]) -> float:
    """Minutes of a processor that a part's training took, whichever part began it; by the clock where not all was counted."""
    training = found["commands"][0]["command"]
    every = [made for path in (RESULTS / "dreaming").glob("*.json") for made in read(path)["commands"]]
    counted = [made["cpu_seconds"] for made in every if made["command"] == training and "cpu_seconds" in made]
    return counted[0] / 60 if counted and "--resume" not in training else float(found["minutes"])


def plans() -> list[list[str]]:
    rows, drawn = [], {seed: dreamt(f"plan-shooting-{seed}") for seed in range(3)}
    for how in ("cem", "mppi", "shooting"):
        found = {seed: one["result"] for seed in range(3) if (one := dreamt(f"plan-{how}-{seed}"))}
        both = [(one["returns"], drawn[seed]["result"]["returns"]) for seed, one in found.items() if drawn[seed]]
        verdict = ""
        if both and how != "shooting":
            mine, theirs = ([value for one in side for value in one] for side in zip(*both, strict=True))
            paired = stats.paired(mine, theirs).to_json()
            verdict = f"{within(paired, 'difference', '+.1f')}: {paired['verdict']}"
        if found:
            whole = stats.nested([one["returns"] for one in found.values()]).to_json()
            each = ", ".join(f"{one['summary']['mean']:.1f}" for one in found.values())
            rows.append([f"`{how}`", within(whole, "value", ".1f"), each, verdict])
    if found := dreamt("plan-true"):
        rows.append(["`cem` in its equations", within(found["result"]["summary"], "mean", ".1f"), "", ""])
    return rows


def dreams_page() -> str:
    parts: list[str] = []
    rows = [
        [f"pendulum, seed {seed}", within(found["result"]["summary"], "mean", ".1f"), f"{worked(found):.0f}"]
        for seed in range(3)
        if (found := dreamt(f"pendulum-{seed}"))
    ]
    if found := dreamt("pixels"):
        before = within(found["against"]["summary"], "mean", ".1f")
        words = f"{within(found['result']['summary'], 'mean', '.1f')}; untrained {before}, {found['paired']['verdict']}"
        rows.append(["cartpole, from pictures", words, f"{worked(found):.0f}"])
    if rows:
        parts += [
            "20,000 steps in the world each.",
            table(["world", "return, 95% interval", "minutes of one core"], rows),
        ]
    if rows := plans():
        said = "Plans on Pendulum, 512 of 20 steps at each step; beside `shooting` on the same models and episodes."
        parts += [said, table(["plans by", "return", "each seed", "than `shooting`"], rows)]
    rows = []
    for name, what in (("foresight", "pendulum"), ("pixels-foresight", "cartpole, from pictures")):
        for key, errors in dreamt(name).get("errors", {}).items():
            mean, last = errors["mean"], {how: errors["by_step"][how][-1] for how in ("dreamed", "copied")}
            rows.append(
                [
                    what,
                    f"`{key}`",
                    *(f"{mean[how]['mean']:.4f}, {last[how]:.4f}" for how in last),
                    errors["paired"]["verdict"],
                ]
            )
    if rows:
        head = ["world", "of what", "dreamed", "copied", "dreams are"]
        parts += ["Squared errors with eyes shut: over 15 steps, and at the last.", table(head, rows)]
    path = RESULTS / "dreamer_speed.json"
    if path.exists():
        rows = []
        for run in read(path)["runs"]:
            for name, found in run["sizes"].items():
                ratios = (found[f"times_{side}"] for side in ("theirs", "theirs_quick"))
                cells = [f"{found[side]['value']:.2f}" for side in ("ours", "theirs", "theirs_quick")]
                faster = [f"{r['value']:.2f} ({r['least']:.2f} to {r['most']:.2f})" for r in ratios]
                rows.append([run["vectors"], name, *cells, *faster])
        head = ["processor", "size", "ours, steps/s", "theirs", "theirs, products as ours", "times as fast", "the same"]
        parts += ["Gradient steps beside TorchRL's DreamerV3, on one thread, in one run.", table(head, rows)]
    return "\n\n".join(parts) + "\n"


LEARNERS = {
    "bc": "`bc`",
    "iql": "`iql`",
    "td3bc": "`td3bc`",
    "cql": "`cql`",
    "dt": "`dt`",
    "d3rlpy-iql": "d3rlpy's IQL",
    "acted-iql": "`iql`, gone on by acting",
    "acted-td3bc": "`td3bc`, gone on by acting",
}
FEW = {
    "bc-few": "`bc`",
    "gail": "`gail --clone 1`",
    "gail-alone": "`gail`",
    "gail-random": "`gail --clone 1`, shown a random player",
}


def over_seeds(names: list[str]) -> list[str]:
    """The mean score over trainings with its interval, and that of each."""
    found = [one for name in names if (one := offline(name))]
    each = ", ".join(f"{one['score']['mean']:.1f}" for one in found)
    return [within(stats.nested([one["scores"] for one in found]).to_json(), "value", ".1f"), each] if found else []


def besides() -> list[list[str]]:
    """Of each pair of trainings both scores; and of all together."""
    found = {str(seed): one for seed in range(3) if (one := offline(f"beside-iql-{seed}"))}
    rows = []
    for seed, one in found.items():
        both = [within(side["score"], "mean", ".1f") for side in (one, one["d3rlpy"])]
        rows.append([seed, *both, f"{within(one['paired'], 'difference', '+.0f')}: {one['paired']['verdict']}"])
    if len(found) > 1:
        sides = [[one["scores"] for one in found.values()], [one["d3rlpy"]["scores"] for one in found.values()]]
        rows.append(["all", *(within(stats.nested(side).to_json(), "value", ".1f") for side in sides), ""])
    return rows


def offline_page() -> str:
    parts: list[str] = []
    sets = {env: offline(f"sets-{env}") for env in ("hopper", "halfcheetah")}
    rows = [
        [
            env,
            kind,
            f"{card['episodes']:,}",
            f"{card['frames']:,}",
            f"{card['returns']['mean']:.1f}",
            card["fingerprint"][:12],
        ]
        for env, found in sets.items()
        for kind, card in found.get("sets", {}).items()
    ]
    if rows:
        head = ["world", "set", "episodes", "steps", "mean return", "fingerprint"]
        parts += ["The sets, made by our own SAC.", table(head, rows)]
    rows = []
    for env, kind in (("hopper", "medium-replay"), ("halfcheetah", "medium-replay"), ("hopper", "medium-expert")):
        for name, what in LEARNERS.items():
            single = name if name.startswith(("d3rlpy", "acted")) else f"{name}-{env}-{kind}"
            here = single != name or (env, kind) == ("halfcheetah", "medium-replay")
            if here and (cells := over_seeds([f"{single}-{seed}" for seed in range(5)])):
                rows.append([f"{env} {kind}", what, *cells])
    if rows:
        said = (
            "Scores: 0 is the random set's mean return, 100 the expert set's. 20 episodes a seed, the last checkpoint. All "
            "have two layers of 128, half of what papers take, and batches of 128; the transformer has three of 64."
        )
        parts += [said, table(["data", "who", "score, 95% interval", "each seed"], rows)]
    if rows := besides():
        said = (
            "IQL on HalfCheetah's medium-replay, ours and d3rlpy's from the same first weights and on the same batches: "
            "what is left between them is the algorithm's."
        )
        parts += [said, table(["seed", "ours", "d3rlpy's", "returns, paired"], rows)]
    rows = []
    for env in ("hopper", "halfcheetah"):
        for name, what in FEW.items():
            names = ["gail-random"] if name == "gail-random" else [f"{name}-{env}-{seed}" for seed in range(3)]
            here = name != "gail-random" or env == "hopper"
            if here and (cells := over_seeds(names)):
                rows.append([env, what, *cells])
    if rows:
        said = (
            "From every twentieth pair of four expert episodes. GAIL acts, and sees no reward: 80,000 steps of Hopper, 40,000 "
            "of HalfCheetah."
        )
        parts += [said, table(["world", "who", "score, 95% interval", "each seed"], rows)]
    rows = []
    for name in ("bc", "iql"):
        if driven := [one for seed in range(3) if (one := offline(f"pixels-{name}-{seed}"))]:
            each = ", ".join(f"{one['summary']['mean']:.1f}" for one in driven)
            over_all = stats.nested([one["returns"] for one in driven]).to_json()
            rows.append([f"`{name}`", within(over_all, "value", ".1f"), each])
    if rows:
        said = "CarRacing from pictures: the rounds of an imitation, good and bad; 30 tracks that none of them drove."
        parts += [said, table(["who", "return, 95% interval", "each seed"], rows)]
    path, sides = RESULTS / "offline_speed.json", ("ours_per_s", "theirs_per_s")
    if path.exists():
        rows = []
        for name, found in read(path).items():
            if name.partition("-")[0] in LEARNERS:
                middle = (statistics.median(turn[side] for turn in found["turns"]) for side in sides)
                times = f"{found['times_as_fast']:.2f} ({found['from']:.2f} to {found['to']:.2f})"
                rows.append([f"`{name.replace('-', ' --precision ')}`", *(f"{value:.3g}" for value in middle), times])
        said = (
            "Updates a second beside d3rlpy 2.8.1: the same sizes, one thread each, in turns; a turn's middle update."
        )
        parts += [said, table(["algorithm", "ours", "d3rlpy", "times as fast"], rows)]
    return "\n\n".join(parts) + "\n"


PAGES = {
    "docs/dreams.md": dreams_page,
    "README.md": tables,
    "docs/carracing.md": carracing_page,
    "docs/judges.md": judges_page,
    "docs/offline.md": offline_page,
    "docs/ladder.md": ladder_page,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
