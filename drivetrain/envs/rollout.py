"""Episodes, one after another: the one function that collects, evaluates and films.

An episode is a function of the env's name, its seed and who acts: its world is built for it and thrown away after it, so
neither the episodes before it nor how many run side by side leave a trace in it, as long as who acts draws nothing. Who draws
does so from one generator, in the order in which the worlds come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch

from drivetrain.envs.words import make_env
from drivetrain.envs.worlds import stack
from drivetrain.sample import ACTION, REWARD, TASK, TERMINATED, TRUNCATED, Memory, Sample, Spec, restart

DONE = "done.action"  # in the info of a world that drives by itself: what it did


class Actor(Protocol):
    """Whoever acts: a policy, or an expert (which has `privileged = True`, and then sees `privileged.*` as well).

    What an actor's info holds under `expert.` [N, ...] is kept with the samples.
    """

    def initial(self, batch_size: int) -> Memory: ...
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]: ...


@dataclass
class Episode:
    seed: int
    total: float = 0.0  # the sum of its rewards
    length: int = 0
    terminated: bool = False
    info: dict[str, Any] = field(default_factory=dict)  # of the last step
    samples: list[Sample] = field(default_factory=list)  # where asked for
    frames: list[np.ndarray] = field(default_factory=list)  # where filmed; rgb


class Lane:
    """One world under way."""

    def __init__(self, env_name: str, seed: int, reveal: bool = False):
        self.reveal = reveal
        self.env: gym.Env[Sample, Any] = make_env(env_name)
        self.episode, self.open = Episode(seed), True
        try:
            self.observation, self.info = self.env.reset(seed=seed)
        except BaseException:
            self.close()
            raise

    @property
    def alone(self) -> bool:
        """Whether its world is a server, of which one goes at a time."""
        return bool(getattr(self.env.unwrapped, "waits", False))

    def close(self) -> None:
        if self.open:
            self.env.close()
        self.open = False

    def seen_by(self, actor: Actor) -> Sample:
        if getattr(actor, "privileged", False):
            return self.observation | {k: v for k, v in self.info.items() if k.startswith("privileged.")}
        return self.observation

    def step(self, action: Any, keep: bool, film: Callable[[np.ndarray], np.ndarray] | None, said: Sample) -> bool:
        """One step; says whether it was the last. `said` is kept with the sample, `film` what makes a frame of a picture."""
        before, episode = self.observation, self.episode
        before = before | {k: v for k, v in self.info.items() if k.startswith("privileged.")} if self.reveal else before
        if film:
            episode.frames.append(film(self.env.render()))  # type: ignore[arg-type]
        self.observation, reward, terminated, truncated, self.info = self.env.step(action)
        episode.total += float(reward)
        episode.length += 1
        if keep:
            action = self.info.get(DONE, action)
            after = {REWARD: np.float32(reward), TERMINATED: terminated, TRUNCATED: truncated and not terminated}
            task = self.env.sample_spec.task  # type: ignore[attr-defined]
            episode.samples.append({**before, ACTION: action, **said, **after, TASK: task})
        if terminated or truncated:
            if film:
                episode.frames.append(film(self.env.render()))  # type: ignore[arg-type]
            episode.terminated, episode.info = terminated, self.info
            self.close()
        return terminated or truncated


class Narrator(Protocol):
    """Makes a frame of a film from a picture of the world and what was seen and done there; `row` is this world's in
    `info`."""

    def __call__(
        self, frame: np.ndarray, observation: Sample, action: Any, info: dict[str, Any], row: int, total: float
    ) -> np.ndarray: ...


def framed(
    lane: Lane, action: Any, info: dict[str, Any], row: int, narrate: Narrator | None
) -> Callable[[np.ndarray], np.ndarray]:
    if narrate is None:
        return lambda frame: frame
    before = lane.observation
    return lambda frame: narrate(frame, before, action, info, row, lane.episode.total)


def rollout(
    actor: Actor,
    env_name: str,
    seeds: Sequence[int],
    *,
    greedy: bool = True,
    generator: torch.Generator | None = None,
    lanes: int = 8,
    keep: bool = False,
    film: Iterable[int] = (),
    reveal: bool = False,
    narrate: Narrator | None = None,
) -> Iterator[Episode]:
    """One episode per seed, as they end; `keep` their samples, `reveal` what experts see in them, `film` the
    seeds named, each frame as `narrate` makes it."""
    filmed, waiting = set(film), list(seeds)
    begun: list[Lane] = []
    try:
        while waiting and len(begun) < lanes and not (begun and begun[0].alone):
            begun.append(Lane(env_name, waiting.pop(0), reveal))
        start = memory = actor.initial(len(begun))
        while begun:
            action, memory, info = actor.act(
                stack([lane.seen_by(actor) for lane in begun]), memory, greedy=greedy, generator=generator
            )
            said = {key: value for key, value in info.items() if key.startswith("expert.")}
            ended = np.array(
                [
                    lane.step(
                        a,
                        keep,
                        framed(lane, a, info, i, narrate) if lane.episode.seed in filmed else None,
                        {key: value[i] for key, value in said.items()},
                    )
                    for i, (lane, a) in enumerate(zip(begun, action, strict=True))
                ]
            )
            if not ended.any():
                continue
            yield from (begun[i].episode for i in np.flatnonzero(ended))
            for i in np.flatnonzero(ended):
                if waiting:
                    begun[i] = Lane(env_name, waiting.pop(0), reveal)
                    ended[i] = False
                    memory = restart(memory, start, np.arange(len(begun)) == i)
            begun = [lane for lane, over in zip(begun, ended, strict=True) if not over]
            memory, start = ({k: v[torch.from_numpy(~ended)] for k, v in m.items()} for m in (memory, start))
    finally:
        for lane in begun:
            lane.close()


class RandomActor:
    """Draws any action the spec allows: the floor that every result stands on."""

    def __init__(self, spec: Spec):
        self.action = spec.action

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        count = len(next(iter(observation.values())))
        if self.action.choices:
            return torch.randint(self.action.choices, (count,), generator=generator).numpy(), memory, {}
        low, high = self.action.bounds()
        share = torch.rand((count, *self.action.shape), generator=generator).numpy()
        return low + share * (high - low), memory, {}
