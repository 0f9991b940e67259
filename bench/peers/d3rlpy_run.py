"""d3rlpy on a file in D4RL's format, as its documentation has it: how fast, and how good afterwards.

    .venv-d3rlpy/bin/python bench/peers/d3rlpy_run.py iql data.hdf5 --steps 50000 --env Hopper-v5 --episodes 20

Prints one JSON object: seconds of the steps after the first few, of all and of each, and the returns. Settings are those of
ours. What stays its own: where deviations begin, and CQL's target, which takes the likeliest action instead of a drawn one.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import pairwise
from typing import Any

warnings.filterwarnings("ignore")

import d3rlpy  # noqa: E402
import gymnasium as gym  # noqa: E402
import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

FIRST = 10  # steps that are not timed
EPOCH = 1000  # steps; its notes of them are averaged anew every few steps, and grow until here


def algorithm(name: str, width: int, batch_size: int, steps: int) -> Any:
    def layers(count: int) -> Any:
        return d3rlpy.models.VectorEncoderFactory([width] * count)

    two, three = layers(2), layers(3)
    scaler = d3rlpy.preprocessing.StandardObservationScaler()
    common = {"batch_size": batch_size, "gamma": 0.99, "tau": 0.005, "observation_scaler": scaler}
    both = {"actor_encoder_factory": two, "critic_encoder_factory": two}
    if name == "iql":
        falling = d3rlpy.optimizers.lr_schedulers.CosineAnnealingLRFactory(T_max=steps)
        config: Any = d3rlpy.algos.IQLConfig(
            **common, **both, value_encoder_factory=two, actor_learning_rate=3e-4, critic_learning_rate=3e-4,
            actor_optim_factory=d3rlpy.optimizers.AdamFactory(lr_scheduler_factory=falling),
            expectile=0.7, weight_temp=3.0, max_weight=100.0,
        )  # fmt: skip
    elif name == "td3bc":
        config = d3rlpy.algos.TD3PlusBCConfig(
            **common, **both, actor_learning_rate=3e-4, critic_learning_rate=3e-4, alpha=2.5, update_actor_interval=2,
        )  # fmt: skip
    elif name == "cql":
        config = d3rlpy.algos.CQLConfig(
            **common, actor_encoder_factory=three, critic_encoder_factory=three, actor_learning_rate=1e-4,
            critic_learning_rate=3e-4, temp_learning_rate=1e-4, alpha_learning_rate=0.0, initial_alpha=1.0,
            conservative_weight=5.0, n_action_samples=10,
        )  # fmt: skip
    else:
        raise SystemExit(f"no {name} here")
    return config.create(device="cpu:0")


def dataset(path: str, scale: bool) -> Any:
    with h5py.File(path) as file:
        arrays = {key: np.asarray(file[key]) for key in ("observations", "actions", "rewards", "terminals", "timeouts")}
    rewards = arrays["rewards"]
    if scale:
        ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"])
        sums = np.cumsum(np.concatenate([[0.0], rewards]))
        returns = np.diff(sums[np.concatenate([[0], ends + 1])])
        rewards = rewards * 1000 / (returns.max() - returns.min())
    return d3rlpy.dataset.MDPDataset(
        arrays["observations"], arrays["actions"], rewards.astype(np.float32), arrays["terminals"], arrays["timeouts"]
    )


def returns(learner: Any, env: str, seeds: range) -> list[float]:
    found, world = [], gym.make(env)
    for seed in seeds:
        seen, _ = world.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            seen, reward, terminated, truncated, _ = world.step(learner.predict(seen[None].astype(np.float32))[0])
            total, over = total + float(reward), terminated or truncated
        found.append(total)
    return found


def asked(*places: str, **defaults: Any) -> argparse.Namespace:
    """What the command line says: words in these places, and flags."""
    parser = argparse.ArgumentParser()
    for place in places:
        parser.add_argument(place)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--env", default="")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=95_000)
    parser.set_defaults(**defaults)
    return parser.parse_args()


def main() -> None:
    options = asked("algorithm", "data")
    torch.set_num_threads(1)
    d3rlpy.seed(options.seed)
    d3rlpy.logging.set_log_context()
    learner = algorithm(options.algorithm, options.width, options.batch_size, options.steps)
    data = dataset(options.data, scale=options.algorithm == "iql")
    marks: list[float] = []
    learner.fit(
        data,
        n_steps=options.steps,
        n_steps_per_epoch=min(EPOCH, options.steps),
        show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        callback=lambda *_: marks.append(time.perf_counter()),
    )
    each = [after - before for before, after in pairwise(marks)][FIRST:]
    said: dict[str, Any] = {"steps": options.steps, "seconds": sum(each), "each_s": each}
    if options.env:
        first = options.first_seed
        said["returns"] = returns(learner, options.env, range(first, first + options.episodes))
    print(json.dumps(said))


if __name__ == "__main__":
    main()
