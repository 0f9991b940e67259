"""EnvPool's CarRacing: worlds side by side in C++, for training with steering wheel and pedals.

    drivetrain train ppo --env carracing-continuous:drawing=envpool,repeat=4,stack=4

It uses every core. For each core's second it plays half as much again as `drawing=fast` where every frame is looked at,
but at `repeat=4` only half as much, because it draws the frames in between (`bench/carracing.py`). Its pictures are not
quite Gymnasium's (smaller digits, harder edges, skid marks), it hides the track, so `infos` are empty and no expert can
drive, and it has no choices among labels. So train here and evaluate elsewhere.

EnvPool would begin an ended episode anew only in the step after, whose action counts for nothing; here it is told to at
once, so that these worlds answer as `Worlds` do. Its own count of steps would call the end of a lap in the very last
step a truncation; we count ourselves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from drivetrain.envs.carracing import TIME_LIMIT
from drivetrain.envs.words import joined, make_env, shrunk, split_name, with_options
from drivetrain.envs.worlds import Finished, Step, Worlds
from drivetrain.errors import BadConfig, MissingExtra
from drivetrain.sample import FRONT, Sample

ENV, GAME = "carracing-continuous", "CarRacing-v3"
NEVER = 2**31 - 1  # steps


class PoolWorlds(Worlds):
    """`count` worlds of EnvPool; what a seed gives does not depend on how many threads play."""

    def __init__(self, name: str, count: int):
        base, options = split_name(name)
        if base != ENV:
            raise BadConfig(f"BadConfig: drawing=envpool is for {ENV} alone, got {name!r}; use drawing=fast, or none")
        drawn_here = make_env(with_options(name, drawing="fast"))
        for option in options:
            if option not in ("drawing", "repeat", "shrink", "stack"):
                raise BadConfig(
                    f"BadConfig: drawing=envpool cannot do {option}, got {name!r}; use drawing=fast, or none"
                )
        self.name, self.count = name, count
        self.sample_spec = replace(drawn_here.get_wrapper_attr("sample_spec"), env=name)
        self.infos = [{} for _ in range(count)]
        self.repeat: int = options.get("repeat", 1)
        self.shrink: int = options.get("shrink", 1)
        self._seen: deque[np.ndarray] = deque(maxlen=options.get("stack", 1))  # [N, H, W, 3] each, oldest first
        self._finished: list[Finished] = []
        self._pool: Any = None
        self._make = _envpool().make_gymnasium
        drawn_here.close()

    def rebuild(self, *seed: int) -> Sample:
        """New worlds, at the start of new episodes; a function of the seed alone."""
        self.close()
        seeds = np.random.SeedSequence(seed).generate_state(self.count) >> 1  # EnvPool's are signed
        self._pool = self._make(GAME, num_envs=self.count, env_seed=seeds.tolist(), max_episode_steps=NEVER)
        self._ages = np.zeros(self.count, dtype=int)  # steps of the game, of which `repeat` are one of ours
        self._totals, self._lengths = np.zeros(self.count), np.zeros(self.count, dtype=int)
        pictures = shrunk(self._pool.reset()[0], self.shrink)
        self._seen.extend([pictures] * (self._seen.maxlen or 1))
        return self._observation()

    def step(self, actions: np.ndarray) -> Step:
        pictures, reward, terminated = self._play(np.asarray(actions, dtype=np.float32))
        truncated = (self._ages >= TIME_LIMIT) & ~terminated
        ended = terminated | truncated
        self._totals += reward
        self._lengths += 1
        self._seen.append(pictures)
        final = observation = self._observation()
        if ended.any():
            self._begin_anew(np.flatnonzero(ended))
            observation = self._observation()
        return Step(observation, reward, terminated, truncated, final, [{} for _ in range(self.count)])

    def _play(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each action for `repeat` steps of the game, less where the episode ends before."""
        pictures = np.empty_like(self._seen[-1])
        reward, terminated = np.zeros(self.count, dtype=np.float32), np.zeros(self.count, dtype=bool)
        playing = np.arange(self.count, dtype=np.int32)
        for _ in range(self.repeat):
            seen, gained, over, _, info = self._pool.step(actions[playing], playing)
            pictures[playing] = shrunk(seen, self.shrink)
            assert np.array_equal(info["env_id"], playing), f"asked for {playing}, answered {info['env_id']}"
            self._ages[playing] += 1
            reward[playing] += gained
            terminated[playing] = over
            playing = playing[~over & (self._ages[playing] < TIME_LIMIT)]
            if not playing.size:
                break
        return pictures, reward, terminated

    def _begin_anew(self, ended: np.ndarray) -> None:
        self._finished += [Finished(float(self._totals[i]), int(self._lengths[i])) for i in ended]
        self._totals[ended] = self._lengths[ended] = self._ages[ended] = 0
        begun = shrunk(self._pool.reset(ended.astype(np.int32))[0], self.shrink)
        for age, pictures in enumerate(self._seen):
            fresh = pictures.copy()
            fresh[ended] = begun
            self._seen[age] = fresh

    def _observation(self) -> Sample:
        rows = joined([pictures.reshape(-1, *pictures.shape[2:]) for pictures in self._seen])
        return {FRONT: rows.reshape(self._seen[-1].shape[:-1] + rows.shape[-1:])}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None


def _envpool() -> Any:
    try:
        import envpool
    except ModuleNotFoundError as lack:
        raise MissingExtra(lack.name or "envpool", "fast", "drawing=envpool") from lack
    except FileNotFoundError as lack:  # its data files are packages of their own
        raise MissingExtra("envpool-assets-mujoco-large", "fast", "drawing=envpool") from lack
    return envpool
