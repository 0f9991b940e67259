"""Evaluation: fresh episodes on named seeds, greedy, with an interval; and two policies on the same seeds, paired.

    drivetrain eval runs/ppo --episodes 100 --seed 5000 --against runs/bc --video ppo.mp4 --json
    drivetrain eval carla --env carla:traffic=20 --episodes 20        an expert

Training draws its worlds from hashed seeds; evaluation counts up from `--seed`, so the two do not meet by design.
Worlds are Gymnasium's own wherever training may use a faster drawing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from drivetrain import catalog, stats
from drivetrain.checkpoint import built_by, load_policy, read, read_manifest, resolve
from drivetrain.collect import find_actor
from drivetrain.envs.rollout import Actor, Episode, rollout
from drivetrain.envs.words import make_env, spec_of, split_name, with_options
from drivetrain.errors import BadConfig, BadData
from drivetrain.film import write_film
from drivetrain.models.planner import Plan, Planner
from drivetrain.models.speaker import is_speaker, open_speaker
from drivetrain.models.vlm import load_vlm
from drivetrain.narration import Narration
from drivetrain.scores import normalised

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Config:
    episodes: int = 20
    seed: int = 5_000  # the first episode's; the others count on from it
    against: str = ""  # on the same seeds: a second run, an expert, `random`, or `untrained` (this network, new)
    env: str = ""  # another env than the one it was trained in; it must give the same observations
    greedy: bool = True  # the likeliest action; --no-greedy draws
    prompt: str = ""  # for policies with a vision-language model: another prompt than the one they learned with
    plan: Plan = field(default_factory=Plan)  # with a world model: search in dreams before each step
    answers: str = "score"  # of a caption run: the answer it holds likeliest (score), or the one it gives (parse)
    fast: bool = False  # draw CarRacing by our own routine: the same pixels in a fifth of the time
    lanes: int = 8  # episodes side by side; in CARLA one at a time
    video: str = ""  # film the first episode into this .mp4
    json: bool = False  # one JSON object on stdout, and nothing else
    save: str = ""  # keep that object in this file as well


@dataclass(frozen=True)
class Result:
    """What one policy did on the seeds."""

    name: str
    env: str
    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    terminated: tuple[bool, ...]
    checkpoint: str = ""
    step: int = -1
    scores: tuple[dict[str, Any], ...] = ()  # of each episode, where the world keeps one
    laps: tuple[bool, ...] = ()  # whether each ended with a lap finished, where there are laps
    threshold: float | None = None  # the return from which the world's makers call it solved
    unread: int = 0  # answers of a model that speaks which named no action
    asked: int = 0  # of so many

    def to_json(self) -> dict[str, Any]:
        said = {**self.__dict__, "summary": stats.summary(self.returns).to_json()}
        if self.laps:
            said["laps_finished"] = stats.wilson(sum(self.laps), len(self.laps)).to_json()
        if self.threshold is not None:
            said["solved"] = stats.wilson(sum(r >= self.threshold for r in self.returns), len(self.returns)).to_json()
        if (score := normalised(self.env, said["summary"]["mean"])) is not None:
            said["d4rl_score"] = score
        return {**said, "driving": driving(self.scores)} if self.scores else said


def driving(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What CARLA's Leaderboard would say: shares from 0 to 1, and infractions per kilometre, of all episodes together."""
    found: dict[str, Any] = {
        name: stats.summary([score[name] for score in scores]).to_json()
        for name in ("completion", "driving", "penalty")
    }
    km = sum(score["driven_m"] for score in scores) / 1000
    found["per_km"] = {
        kind: stats.per(sum(score["infractions"][kind] for score in scores), max(km, 1e-6)).to_json()
        for kind in scores[0]["infractions"]
    }
    found["km"], found["caused"] = km, sum(score["caused"] for score in scores)
    found["ended"] = {
        how: sum(score["ended"] == how for score in scores) for how in {score["ended"] for score in scores}
    }
    return found


def evaluate(actor: Actor, env: str, config: Config, **about: Any) -> Result:
    """`actor` on the seeds of `config`; a progress line on a terminal."""
    if min(config.episodes, config.lanes) < 1 or config.seed < 0:
        got = f"episodes={config.episodes}, lanes={config.lanes}, seed={config.seed}"
        raise BadConfig(f"BadConfig: episodes and lanes must be 1 or more and seed 0 or more, got {got}")
    seeds = tuple(range(config.seed, config.seed + config.episodes))
    generator = torch.Generator().manual_seed(config.seed)
    film = (config.seed,) if config.video else ()
    narrate = Narration(actor, spec_of(env)) if film else None
    going = rollout(
        actor, env, seeds, greedy=config.greedy, generator=generator, lanes=config.lanes, film=film, narrate=narrate
    )
    done: dict[int, Episode] = {}
    for episode in watched(going, len(seeds), config.json):
        if episode.info.get("lost"):
            raise BadData(
                f"BadData: the world of episode seed {episode.seed} broke down, and a score needs all; evaluate again"
            )
        done[episode.seed] = episode
        if episode.frames:
            write_film(Path(config.video), episode.frames, spec_of(env).fps)
            episode.frames = []
    rows = [done[seed] for seed in seeds]
    return Result(
        about.get("name", ""),
        env,
        seeds,
        tuple(r.total for r in rows),
        tuple(r.length for r in rows),
        tuple(r.terminated for r in rows),
        about.get("checkpoint", ""),
        about.get("step", -1),
        tuple(r.info["score"] for r in rows if "score" in r.info),
        laps(env, rows),
        threshold(env),
        getattr(actor, "unread", 0),
        getattr(actor, "asked", 0),
    )


def laps(env: str, rows: Sequence[Episode]) -> tuple[bool, ...]:
    """Whether each episode was a whole lap; Gymnasium's CarRacing says nothing where time ran out."""
    return tuple(bool(r.info.get("lap_finished")) for r in rows) if split_name(env)[0].startswith("carracing") else ()


def threshold(env: str) -> float | None:
    """As Gymnasium registers it."""
    row = make_env(env)
    row.close()
    return row.spec.reward_threshold if row.spec else None


def watched(episodes: Iterator[Episode], total: int, quiet: bool) -> Iterator[Episode]:
    if quiet or not sys.stderr.isatty():
        yield from episodes
        return
    from tqdm import tqdm

    with tqdm(episodes, total=total, unit="episode", dynamic_ncols=True, file=sys.stderr) as bar:
        for episode in bar:
            bar.set_postfix({"return": f"{episode.total:.4g}"}, refresh=False)
            yield episode


def drawn(env: str, config: Config) -> str:
    """The same world, drawn by Gymnasium itself unless it is to be fast."""
    name, options = split_name(env)
    drawable = name.startswith("carracing") or "drawing" in options
    if config.fast and not drawable:
        raise BadConfig(f"BadConfig: --fast is about CarRacing's drawing, the env is {env}; leave it out")
    return with_options(env, drawing="official") if drawable and not config.fast else env


class Entrant(NamedTuple):
    """Who acts, where, and what to say of them; nothing is played yet."""

    actor: Actor
    env: str
    about: dict[str, Any]


def entrant(path: str, config: Config) -> Entrant:
    """A run or checkpoint in the world it was made for, or the one asked for; or an expert, who needs one."""
    if not config.plan.how and config.plan != Plan():
        raise BadConfig("BadConfig: settings of a plan without a way to search; add --plan.how cem")
    if config.plan.how and not config.greedy:
        raise BadConfig("BadConfig: a plan's first step is taken as it is; leave --no-greedy out")
    if config.answers != "score" and not (is_speaker(path) or is_speaker(config.against)):
        raise BadConfig(f"BadConfig: {path} acts without words; leave --answers out")
    if path in (*catalog.EXPERTS, "random"):  # a run of that name is ./NAME
        if config.prompt:
            raise BadConfig(f"BadConfig: the expert {path} reads no prompt; leave --prompt out")
        if config.plan.how:
            raise BadConfig(f"BadConfig: the expert {path} has no world model to plan in; leave --plan.how out")
        if not config.env:
            raise BadConfig(
                f"BadConfig: the expert {path} needs a world to drive in; add --env NAME (a run of that name is ./{path})"
            )
        env = drawn(config.env, config)
        return Entrant(find_actor(path, spec_of(env)), env, {"name": path})
    if is_speaker(path):
        if config.plan.how:
            raise BadConfig(f"BadConfig: {path} speaks and has no world model to plan in; leave --plan.how out")
        if not config.env:
            raise BadConfig(f"BadConfig: {path} speaks, and does not say of which world; add --env NAME")
        env = drawn(config.env, config)
        speaker = open_speaker(path, spec_of(env), prompt=config.prompt, how=config.answers)
        return Entrant(speaker, env, {"name": path})
    checkpoint = resolve(path)
    policy = load_policy(checkpoint)
    if config.prompt:
        ask(policy, config.prompt, path)
    env = config.env or policy.spec.env
    if not env:
        raise BadConfig(f"BadConfig: {path} does not say which env it was made for; add --env NAME")
    env = drawn(env, config)
    policy.spec.require(spec_of(env))
    step = read_manifest(checkpoint)["step"]
    actor: Actor = Planner(policy, config.plan) if config.plan.how else policy
    return Entrant(actor, env, {"name": path, "checkpoint": str(checkpoint), "step": step})


def evaluate_run(path: str, config: Config) -> Result:
    actor, env, about = entrant(path, config)
    return evaluate(actor, env, config, **about)


def ask(policy: Any, prompt: str, path: str) -> None:
    """Let a policy's vision-language model read another prompt from now on."""
    reader = getattr(policy, "reader", None)
    if reader is None:
        raise BadConfig(f"BadConfig: {path} reads no prompt; leave --prompt out")
    reader.ask([prompt] * len(reader.texts), reader.sentences)


def opponent(against: str, path: str, env: str, config: Config) -> Entrant:
    """The other side of a comparison, in the same env."""
    if against == UNTRAINED:
        return Entrant(untrained(path), env, {"name": UNTRAINED})
    spec = spec_of(env)
    actor = open_speaker(against, spec, how=config.answers) if is_speaker(against) else find_actor(against, spec)
    return Entrant(actor, env, {"name": against})


def untrained(path: str) -> Actor:
    """The policy of a run as it was before it learned anything: its backbone as that came, all else new from a fixed seed."""
    torch.manual_seed(0)
    state = read(resolve(path), "policy")
    policy = built_by(state, path).from_description(state)
    if policy.reader is not None:
        began = load_vlm(policy.network.backbone)
        began.merge()
        policy.reader.vlm.take(began)
    return policy.eval()


def compare(path: str, config: Config) -> dict[str, Any]:
    """Everything `drivetrain eval` has to say, as one object."""
    _can_be_kept(config)
    one = entrant(path, config)
    other = opponent(config.against, path, one.env, config) if config.against else None  # refused before anybody plays
    mine = evaluate(one.actor, one.env, config, **one.about)
    said: dict[str, Any] = {"result": mine.to_json()}
    if other:
        theirs = evaluate(other.actor, other.env, replace(config, video=""), **other.about)
        said |= {"against": theirs.to_json(), "paired": stats.paired(mine.returns, theirs.returns).to_json()}
    if config.save:
        Path(config.save).write_text(json.dumps(said, indent=1) + "\n")
    return said


def _can_be_kept(config: Config) -> None:
    """Said before the episodes are played, not after."""
    if config.video and Path(config.video).suffix != ".mp4":
        raise BadConfig(f"BadConfig: a film is an .mp4 file, got {config.video}; rename it")
    if config.save and not Path(config.save).absolute().parent.is_dir():
        raise BadConfig(f"BadConfig: there is no folder for --save {config.save}; make it first")


def in_words(said: dict[str, Any]) -> str:
    lines = [_line(said["result"])]
    if "paired" in said:
        pair = said["paired"]
        lines.append(_line(said["against"]))
        lines.append(
            f"paired on the same seeds: {pair['verdict']} (difference {pair['difference']:+.1f}, "
            f"{_interval(pair, '+.1f')}, p = {pair['p']:.3g})"
        )
    return "\n".join(lines)


def _line(result: dict[str, Any]) -> str:
    s = result["summary"]
    more = [_driven(result["driving"])] if "driving" in result else []
    shares = {"laps_finished": "laps finished", "solved": f"at {result['threshold']} or more"}
    more += [", ".join(f"{what}: {_share(result[key])}" for key, what in shares.items() if key in result)]
    if "d4rl_score" in result:
        more.append(f"D4RL score {result['d4rl_score']:.1f}")
    if result["unread"]:
        more.append(f"{result['unread']} of {result['asked']} answers named no action")
    return "\n  ".join([_returns(result, s), *filter(None, more)])


def _share(said: dict[str, Any]) -> str:
    return f"{said['value']:.0%} ({said['low']:.0%} to {said['high']:.0%})"


def _driven(said: dict[str, Any]) -> str:
    shares = [
        f"{name} {100 * said[key]['mean']:.1f}%"
        + (f" ({100 * said[key]['low']:.1f} to {100 * said[key]['high']:.1f})" if said[key]["low"] is not None else "")
        for name, key in (("route completion", "completion"), ("driving score", "driving"))
    ]
    broken = [f"{rate['value']:.2f} {kind}" for kind, rate in said["per_km"].items() if rate["value"]]
    return f"{', '.join(shares)}; infractions per km: {', '.join(broken) or 'none'}; {said['km']:.1f} km"


def _returns(result: dict[str, Any], s: dict[str, Any]) -> str:
    return (
        f"{result['name']} in {result['env']}: mean {s['mean']:.1f}, std {s['std']:.1f}, IQM {s['iqm']:.1f}, "
        f"{_interval(s, '.1f')}, {s['n']} episodes, seeds {result['seeds'][0]} on"
    )


def _interval(said: dict[str, Any], digits: str) -> str:
    if said["low"] is None:
        return "no interval from one episode"
    return f"95% interval {said['low']:{digits}} to {said['high']:{digits}}"
