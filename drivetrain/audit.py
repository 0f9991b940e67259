"""Auditing a judge: frames it was never trained on, whose truth is known, before anybody learns from it.

    drivetrain audit --backbone tiny-git --env cartpole
    drivetrain audit --backbone constant:45 --env cartpole --json
    drivetrain audit --backbone my/llava --sheet my/judge.toml

Exit status 0 where it is fit to teach, 3 where it is not. The page (audit.md) has the verdict, the numbers beside those of
judges that nobody should trust, a scatter plot, and the worst cases as pictures. Frames are scenes in any state; only those of
the held-out share of all pictures are used, told by their pixels, so that none equals one that a stage here was trained on (as
long as neither was told another --held-out; a judge that was audited on more may not teach).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFont

from drivetrain import catalog
from drivetrain.data.images import share_of
from drivetrain.envs.words import make_env, split_name
from drivetrain.errors import BadConfig
from drivetrain.rewards import audit as auditing
from drivetrain.rewards.formula import formula
from drivetrain.rewards.sheet import Sheet
from drivetrain.rewards.vlm import captioned, open_answerer
from drivetrain.training.judged import HELD_OUT, Judging, picture_of, record_of, sheet_for
from drivetrain.training.pretrain import UNSEEN

WORST = 6


@dataclass(frozen=True)
class Config:
    backbone: str = "tiny-git"  # the judge: a name, folder or hub id; or constant:45, random, truth, shuffled:NAME
    env: str = "cartpole"  # whose frames it judges; a name of `drivetrain list scenes`
    sheet: str = ""  # what it is asked: a .toml file, or one that ships; empty is named after the env
    prompt: str = ""  # another wording of the sheet's one question
    frames: int = 400
    held_out: float = HELD_OUT  # the share of all pictures that no stage here was trained on
    seed: int = 0  # of the frames
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    device: str = "cpu"  # cpu or cuda
    output_dir: str = ""  # where the page goes; empty is a folder of its own under runs/audits
    json: bool = False  # one JSON object on stdout, and nothing else


def audit(config: Config) -> dict[str, Any]:
    """The report, which also lies in the folder that it names."""
    world = split_name(config.env)[0].partition("-")[0]
    if not 0 < config.held_out <= 1:
        raise BadConfig(f"BadConfig: --held-out must be above 0 and 1 at most, got {config.held_out}")
    if config.frames < 20:
        raise BadConfig(f"BadConfig: an audit needs 20 frames or more, got {config.frames}")
    sheet = sheet_for(Judging(sheet=config.sheet, prompt=config.prompt), config.env)
    if sheet.env != world:
        raise BadConfig(f"BadConfig: the sheet judges {sheet.env}, the env is {config.env}; give another --sheet")
    answerer = open_answerer(config.backbone, dtype=config.dtype, device=config.device)
    frames, truths = gathered(sheet, config)
    report = auditing.audit(sheet, answerer, frames, truths)
    report["judge"] = config.backbone
    folder = Path(config.output_dir) if config.output_dir else record_of(sheet, answerer, Judging().audits)
    folder.mkdir(parents=True, exist_ok=True)
    told = {name: truth.tolist() for name, truth in truths.items()}
    report |= {"sheet": asdict(sheet), "settings": asdict(config), "folder": str(folder), "truths": told}
    report = plain(report)
    record = record_of(sheet, answerer, Judging().audits)
    for place in {folder, record}:  # training looks for the second
        place.mkdir(parents=True, exist_ok=True)
        (place / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    write_page(folder, report, sheet, frames, truths)
    return report


def plain(found: Any) -> Any:
    """With null for what is no number: an answer that could not be read."""
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    if isinstance(found, list):
        return [plain(value) for value in found]
    return None if isinstance(found, float) and not np.isfinite(found) else found


def gathered(sheet: Sheet, config: Config) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Held-out frames [N, H, W, 3], and the true answer to each question [N]."""
    found = list(held_out(sheet, config))
    world = make_env(config.env)
    observation, _ = world.reset(seed=0)
    shape = picture_of(sheet, world, observation).shape
    world.close()
    if shape != found[0][0].shape:
        raise BadConfig(
            f"BadConfig: the sheet shows {list(shape)} of {config.env} while training, and scenes are "
            f"{list(found[0][0].shape)}; mend its sees and rows"
        )
    facts = {key: np.array([fact[key] for _, fact in found]) for key in found[0][1]}
    truths = {}
    for name, ask in sheet.ask.items():
        if not ask.truth:
            raise BadConfig(
                f"BadConfig: [ask.{name}] has no truth to compare with; add a formula of {', '.join(facts)}"
            )
        truths[name] = np.broadcast_to(formula(ask.truth, tuple(facts))(**facts), len(found)).astype(np.float64)
    return np.stack([frame for frame, _ in found]), truths


def held_out(sheet: Sheet, config: Config) -> Iterator[tuple[np.ndarray, dict[str, float]]]:
    scenes = catalog.find("scenes", sheet.env)(**UNSEEN.get(sheet.env, {}))
    random = np.random.default_rng((1 << 41, config.seed))
    seen: set[bytes] = set()
    while len(seen) < config.frames:
        picture, facts = scenes.draw(random, 1.0)
        if share_of(picture) < config.held_out and (key := picture.tobytes()) not in seen:
            seen.add(key)
            yield picture, facts


def write_page(
    folder: Path, report: dict[str, Any], sheet: Sheet, frames: np.ndarray, truths: dict[str, np.ndarray]
) -> None:
    scatter(folder / "scatter.png", report, truths)
    worst = worst_cases(folder, report, sheet, frames, truths)
    lines = [f"# {auditing.in_a_line(report)}", "", *(f"- {why}" for why in report["verdict"]["why"])]
    lines += ["", *header("judge", "question", "error", "correlation", "rank", "slope", "distinct", "unread")]
    judges = {report["judge"]: report, **report["controls"]}
    for judge, said in judges.items():
        lines += [
            f"| {judge} | {name} | {shown(q['error'])} | {shown(q['correlation'])} | {shown(q['rank'])} | {shown(q['slope'])} "
            f"| {q['distinct']} | {100 * q['unread']:.0f}% |"
            for name, q in said["questions"].items()
        ]
    columns = ("reward: rank correlation", "bad states rewarded", "good states not", "ends missed", "ends too early")
    lines += ["", *header("judge", *columns, "verdict")]
    for judge, said in judges.items():
        reward, fit = said["reward"], "fit" if said["verdict"]["fit"] else "not fit"
        keys = ("rank", "false_positives", "false_negatives", "ends_missed", "ends_too_early")
        lines.append(f"| {judge} | {' | '.join(shown(reward.get(key)) for key in keys)} | {fit} |")
    lines += ["", "What is left of the rank correlation when something is done to the pictures or the words:", ""]
    names = list(sheet.ask)
    lines += header("done", "reward", *names)
    for name, left in report["disturbed"].items():
        lines.append(f"| {name} | {left['reward']:.2f} | {' | '.join(f'{left[q]:.2f}' for q in names)} |")
    together, alone = report["seconds_per_1000"], report["seconds_per_1000_one_by_one"]
    lines += [
        "",
        f"A thousand frames take {together:.1f} s together, {alone:.1f} s one by one.",
        "",
        "![scatter](scatter.png)",
    ]
    lines += ["", "## The worst", "", *(f"![{name}]({name})" for name in worst)]
    (folder / "audit.md").write_text("\n".join(lines) + "\n")


def header(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def shown(found: Any) -> str:
    if found is None:
        return "-"
    return f"{found['value']:.2f}" if isinstance(found, dict) else f"{found:.2f}"


def scatter(path: Path, report: dict[str, Any], truths: dict[str, np.ndarray]) -> None:
    """Answers against the truth, a panel for each question, and the reward."""
    from matplotlib.figure import Figure

    answers = report["rows"]["answers"]
    figure = Figure(figsize=(4 * (len(answers) + 1), 4), layout="constrained")
    pairs = [(name, truths[name], np.array(said, dtype=float)) for name, said in answers.items()]
    pairs.append(("reward", np.array(report["rows"]["true_reward"]), np.array(report["rows"]["reward"])))
    for place, (name, true, said) in enumerate(pairs, start=1):
        axes = figure.add_subplot(1, len(pairs), place)
        axes.plot(true, said, ".", markersize=4, alpha=0.5)
        low, high = float(np.min(true)), float(np.max(true))
        axes.plot([low, high], [low, high], color="grey", linewidth=1)
        axes.set(xlabel=f"true {name}", ylabel="judged")
    figure.savefig(path, dpi=100)


def worst_cases(
    folder: Path, report: dict[str, Any], sheet: Sheet, frames: np.ndarray, truths: dict[str, np.ndarray]
) -> list[str]:
    """The frames whose reward is farthest off, with what was answered and what is true."""
    rows, font, names = report["rows"], ImageFont.load_default(13), []
    off = np.abs(np.array(rows["reward"]) - np.array(rows["true_reward"]))
    for place, i in enumerate(np.argsort(-off, kind="stable")[:WORST].tolist()):
        said = {name: rows["answers"][name][i] for name in sheet.ask}
        lines = [
            f"{name}: {'unread' if said[name] is None else format(said[name], 'g')}, truth {truths[name][i]:.2f}"
            for name in sheet.ask
        ]
        lines.append(f"reward {rows['reward'][i]:.3f}, truth {rows['true_reward'][i]:.3f}")
        names.append(f"worst-{place}.png")
        captioned(frames[i], lines, font).save(folder / names[-1])
    return names
