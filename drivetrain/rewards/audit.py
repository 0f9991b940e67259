"""Is a judge fit to teach? Measured on frames whose truth is known, before anybody learns from it.

    report = audit(sheet, answerer, frames, truths)         arrays only: no environment
    report["verdict"]                                       {"fit": False, "why": ["tilt: 1 distinct answer, ..."]}

A loss, a mean error, even a trained policy prove little: a judge that always says 45 has a small error where poles lean far,
and one that always says 5 teaches CartPole as long as the world itself ends the episodes. So what counts is whether the answers
follow the truth (rank correlation, distinct answers), whether bad states are rewarded, whether the answers come from the
picture (blank and shuffled ones must leave nothing), and whether small things throw them (a shift by a few pixels, noise).
What other wordings do is told and not judged: a model that knows one way to be asked can be asked that way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drivetrain import stats
from drivetrain.rewards.formula import formula
from drivetrain.rewards.sheet import Ask, Sheet
from drivetrain.rewards.vlm import Answerer, Constant, Guess, Judge, Truth

SHIFT_SHARE, NOISE = 0.03, 8.0  # of the width; deviation of noise, of 255
ALONE = 16  # frames that are judged one by one, for the price of it
BINS = 10
CONTROLS: tuple[Answerer, ...] = (Constant(45.0), Constant(30.0), Constant(5.0), Guess(), Truth())


@dataclass(frozen=True)
class Limits:
    """What a judge must reach to be called fit."""

    rank: float = 0.8  # rank correlation of the reward with the true reward
    rank_of_question: float = 0.7  # of each answer with the truth
    distinct: int = 5  # answers to a question that wants a number, where the truth has as many
    unread: float = 0.05  # share of answers that cannot be read
    false_positives: float = 0.1  # share of bad states that are rewarded
    blind: float = 0.3  # rank correlation that may be left on shuffled or blank pictures
    steady: float = 0.6  # rank correlation that must be left under a shift or noise
    ends_missed: float = 0.3  # share of states in which the episode is over, and the judge does not say so
    ends_early: float = 0.1  # share of the others in which it says so


LIMITS = Limits()
Truths = Mapping[str, np.ndarray]


def audit(
    sheet: Sheet,
    answerer: Answerer,
    frames: np.ndarray,
    truths: Truths,
    *,
    limits: Limits = LIMITS,
    controls: bool = True,
) -> dict[str, Any]:
    """Everything about a judge on frames [N, H, W, 3] with the true answers [N] to each question."""
    judge = Judge(sheet, answerer)
    start = time.perf_counter()
    judged = judge(frames, truths)
    seconds = time.perf_counter() - start
    report: dict[str, Any] = {
        "judge": answerer.name,
        "frames": len(frames),
        "questions": {name: of_answers(judged.values[name], truths[name]) for name in sheet.ask},
        "reward": of_rewards(sheet, judged.reward, judged.ends, truths),
        "seconds_per_1000": 1000 * seconds / len(frames),
        "seconds_per_1000_one_by_one": one_by_one(sheet, answerer, frames, truths),
        "unread": float(np.isnan(np.stack(list(judged.values.values()))).any(0).mean()),
    }
    report["disturbed"] = disturbed(sheet, answerer, frames, truths)
    report["verdict"] = verdict(report, sheet, truths, limits)
    if controls:
        report["controls"] = {}
        for control in CONTROLS:
            found = audit(sheet, control, frames, truths, limits=limits, controls=False)
            report["controls"][control.name] = {key: found[key] for key in ("questions", "reward", "verdict")}
    rows = {name: judged.values[name].tolist() for name in sheet.ask}
    report["rows"] = {
        "answers": rows,
        "reward": judged.reward.tolist(),
        "true_reward": true_rewards(sheet, truths).tolist(),
    }
    return report


def true_rewards(sheet: Sheet, truths: Truths) -> np.ndarray:
    """What the sheet's formula makes of the truth; a probability's logarithm is kept from being infinite."""
    given = {name: np.asarray(value, dtype=np.float64) for name, value in truths.items()}
    for name, ask in sheet.ask.items():
        if ask.way == "log_yes":
            given[name] = np.log(np.clip(given[name], 1e-3, 1.0))
    count = len(next(iter(given.values())))
    return np.broadcast_to(np.asarray(formula(sheet.reward)(**given), dtype=np.float64), count)


def of_answers(values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How a question's answers follow the truth."""
    read = ~np.isnan(values)
    said = values[read]
    found: dict[str, Any] = {"unread": float((~read).mean()), "distinct": len(set(said.round(6).tolist()))}
    if read.sum() < 3:
        return {**found, "error": None, "correlation": None, "rank": None, "slope": None}
    true = truth[read]
    return {
        **found,
        "error": float(np.abs(said - true).mean()),
        "correlation": correlated(said, true),
        "rank": rank_correlation(said, true),
        "slope": calibration(said, true),
        "commonest": float(np.unique(said, return_counts=True)[1].max() / len(said)),
    }


def correlated(a: np.ndarray, b: np.ndarray) -> dict[str, float] | None:
    if np.std(a) < 1e-9 or np.std(b) < 1e-9:
        return None
    found: dict[str, float] = stats.correlation(a, b).to_json()
    return found


def rank_correlation(said: np.ndarray, true: np.ndarray) -> float:
    """Spearman's; where the truth is one of two things, how much more often the answer is higher for the higher one than lower
    (ties make Spearman's smaller than 1 for perfect answers). 0 where one side never changes."""
    mine, theirs = ranks(said), ranks(true)
    if np.std(mine) < 1e-9 or np.std(theirs) < 1e-9:
        return 0.0
    if len(set(true.tolist())) == 2:
        high = true == true.max()
        return float(2 * (mine[high].mean() - mine[~high].mean()) / len(mine))
    return float(np.corrcoef(mine, theirs)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """From 0, the mean of their places for equal ones."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts) + (ends - 1))[inverse] / 2


def calibration(said: np.ndarray, true: np.ndarray) -> float | None:
    """By how much the truth grows when the answer grows by 1; 1 is right, 0 says nothing."""
    spread = float(np.var(said))
    return float(np.cov(said, true, bias=True)[0, 1] / spread) if spread > 1e-12 else None


def of_rewards(sheet: Sheet, reward: np.ndarray, ends: np.ndarray, truths: Truths) -> dict[str, Any]:
    true = true_rewards(sheet, truths)
    found: dict[str, Any] = {
        "correlation": correlated(reward.astype(np.float64), true),
        "rank": rank_correlation(reward, true),
        "error": float(np.abs(reward - true).mean()),
    }
    if sheet.bad:
        count = len(true)
        bad = np.broadcast_to(np.asarray(formula(sheet.bad)(**truths), dtype=bool), count)
        good = ~bad & (true >= sheet.good_reward)
        rewarded = reward >= sheet.good_reward
        found["false_positives"] = share(rewarded[bad])
        found["false_negatives"] = share(~rewarded[good])
    if sheet.ends:
        over = np.broadcast_to(np.asarray(formula(sheet.ends)(**truths), dtype=bool), len(true))
        found["ends_missed"], found["ends_too_early"] = share(~ends[over]), share(ends[~over])
    return found


def share(found: np.ndarray) -> dict[str, Any] | None:
    """With its interval; None of nothing."""
    return {**stats.wilson(int(found.sum()), len(found)).to_json(), "of": len(found)} if len(found) else None


def one_by_one(sheet: Sheet, answerer: Answerer, frames: np.ndarray, truths: Truths) -> float:
    count = min(ALONE, len(frames))
    judge = Judge(sheet, answerer)
    start = time.perf_counter()
    for i in range(count):
        judge(frames[i : i + 1], {name: truth[i : i + 1] for name, truth in truths.items()})
    return 1000 * (time.perf_counter() - start) / count


def disturbed(sheet: Sheet, answerer: Answerer, frames: np.ndarray, truths: Truths) -> dict[str, Any]:
    """The reward's rank correlation with the truth that is left when something is done to pictures or words."""
    random = np.random.default_rng(0)
    shift = max(round(SHIFT_SHARE * frames.shape[2]), 1)
    noisy = np.clip(frames + random.normal(0, NOISE, frames.shape), 0, 255).astype(np.uint8)
    pictures = {
        "shifted": np.concatenate([frames[:, :, :1].repeat(shift, 2), frames[:, :, :-shift]], 2),
        "noisy": noisy,
        "blank": np.full_like(frames, int(np.median(frames))),
        "shuffled": frames[random.permutation(len(frames))],
    }
    true = true_rewards(sheet, truths)

    def left(asked: Sheet, shown: np.ndarray, told: Truths | None) -> dict[str, float]:
        judged = Judge(asked, answerer)(shown, told)
        each = {name: rank_correlation(np.nan_to_num(values), truths[name]) for name, values in judged.values.items()}
        return {"reward": rank_correlation(judged.reward, true), **each}

    untold = ("blank", "shuffled") if not isinstance(answerer, Truth) else ()
    found = {name: left(sheet, shown, None if name in untold else truths) for name, shown in pictures.items()}
    for i in range(max((len(ask.reworded) for ask in sheet.ask.values()), default=0)):
        asked = replace(sheet, ask={name: reworded(ask, i) for name, ask in sheet.ask.items()})
        found[f"reworded {i + 1}"] = left(asked, frames, truths)
    return found


def reworded(ask: Ask, number: int) -> Ask:
    return replace(ask, prompt=ask.reworded[min(number, len(ask.reworded) - 1)]) if ask.reworded else ask


def verdict(report: Mapping[str, Any], sheet: Sheet, truths: Truths, limits: Limits) -> dict[str, Any]:
    """Fit to teach, or all that speaks against it."""
    why: list[str] = []
    for name, found in report["questions"].items():
        wanted = min(limits.distinct, len(set(np.asarray(truths[name]).round(3).tolist())))
        if found["unread"] > limits.unread:
            why.append(f"{name}: {found['unread']:.0%} of the answers cannot be read")
        elif found["distinct"] < wanted:
            many = "answer" if found["distinct"] == 1 else "answers"
            why.append(f"{name}: {found['distinct']} distinct {many} to {report['frames']} frames")
        elif found["rank"] < limits.rank_of_question:
            why.append(f"{name}: answers follow the truth at {found['rank']:.2f}, wanted {limits.rank_of_question}")
    reward = report["reward"]
    if reward["rank"] < limits.rank:
        why.append(f"the reward follows the true one at {reward['rank']:.2f}, wanted {limits.rank}")
    wrongly = reward.get("false_positives")
    if wrongly and wrongly["value"] > limits.false_positives:
        why.append(f"{wrongly['value']:.0%} of bad states are rewarded")
    for name, left in report["disturbed"].items():
        if name in ("blank", "shuffled"):
            if report["judge"] != "truth" and left["reward"] > limits.blind:
                whose = "other frames'" if name == "shuffled" else "blank"
                why.append(f"on {whose} pictures the reward still follows the truth at {left['reward']:.2f}")
        elif not name.startswith("reworded") and left["reward"] < limits.steady:
            why.append(f"{name}, the reward follows the truth at {left['reward']:.2f} only")
    for key, most, what in (
        ("ends_missed", limits.ends_missed, "of the ends are missed"),
        ("ends_too_early", limits.ends_early, "of the states before are taken for an end"),
    ):
        if (said := reward.get(key)) and said["value"] > most:
            why.append(f"{said['value']:.0%} {what}")
    return {"fit": not why, "why": why}


def in_a_line(report: Mapping[str, Any]) -> str:
    said = report["verdict"]
    if said["fit"]:
        return f"{report['judge']}: fit to teach"
    more = f" (and {len(said['why']) - 3} more)" if len(said["why"]) > 3 else ""
    return f"{report['judge']}: not fit to teach: {'; '.join(said['why'][:3])}{more}"
