"""d3rlpy's IQL and ours side by side: from the same first weights, step by step on the same batches.

    .venv-d3rlpy/bin/python bench/peers/d3rlpy_beside.py data/offline/halfcheetah-medium-replay data.hdf5 --steps 50000

What two libraries score apart is half chance: other first weights, other batches. Here nothing is left to it but rounding, so
that a difference is the algorithm's. Three things stay each one's own: where the policy's deviations begin and how they are
held, whether its step follows the critics' or goes with them, and d3rlpy's 0.001 more in the scale of what is seen. Prints one
JSON object: the returns of both, by the same loop, and how far the weights are apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the environment it runs in has d3rlpy, but not this

import d3rlpy_run as peer
import numpy as np
import torch
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor, nn

from drivetrain.data.transitions import NEXT
from drivetrain.models.driver import Driver, Network
from drivetrain.models.mlp import MLP
from drivetrain.sample import STATE
from drivetrain.training.offline_rl import iql
from drivetrain.training.offline_rl.given import given

NOTED = (10, 100, 1000)  # steps after which it is said how far apart they are


class Ours:
    """As d3rlpy's learners are asked."""

    def __init__(self, policy: Driver):
        self.policy = policy.eval()

    def predict(self, seen: np.ndarray) -> np.ndarray:
        done: np.ndarray = self.policy.act({STATE: seen}, {}, greedy=True, generator=None)[0]
        return done


def alike(ours: iql.Learner, theirs: Any) -> Iterator[tuple[MLP, list[nn.Linear]]]:
    """Networks that stand for each other."""
    modules = theirs.impl.modules
    sides = [(ours.policy.head.net, modules.policy._mu, modules.policy)]
    sides += [(ours.value.net, modules.value_func._fc, modules.value_func)]
    sides += [(net, one._fc, one) for net, one in zip(ours.critics.nets, modules.q_funcs, strict=True)]
    sides += [(net, one._fc, one) for net, one in zip(ours.targets.nets, modules.targ_q_funcs, strict=True)]
    for net, last, whole in sides:
        yield net, [layer for layer in [*whole._encoder.modules(), last] if isinstance(layer, nn.Linear)]


@torch.no_grad()
def begin_alike(ours: iql.Learner, theirs: Any) -> None:
    for net, layers in alike(ours, theirs):
        for i, layer in enumerate(layers):
            net.weights[i].copy_(layer.weight)
            net.biases[i].copy_(layer.bias)


@torch.no_grad()
def apart(ours: iql.Learner, theirs: Any) -> list[float]:
    """By how much of their length the weights differ: policy, value, critics, targets."""
    found = []
    for net, layers in alike(ours, theirs):
        off = sum((mine - layer.weight).square().sum() for mine, layer in zip(net.weights, layers, strict=True))
        found.append(float((off / sum(layer.weight.square().sum() for layer in layers)) ** 0.5))
    return found


def as_theirs(batch: dict[str, Tensor], scaler: Any) -> TorchMiniBatch:
    count = len(batch["reward"])
    return TorchMiniBatch(
        observations=scaler.transform(batch[STATE][:, 0]).float(),
        actions=batch["action"],
        rewards=batch["reward"].unsqueeze(1),
        next_observations=scaler.transform(batch[NEXT + STATE][:, 0]).float(),
        next_actions=batch["action"],  # it asks for them, and IQL does not read them
        returns_to_go=torch.zeros(count, 1),
        terminals=batch["terminated"].unsqueeze(1).float(),
        intervals=torch.ones(count, 1),
        device="cpu:0",
    )


def main() -> None:
    options = peer.asked("dataset", "file", env="HalfCheetah-v5")
    torch.set_num_threads(1)
    peer.d3rlpy.seed(options.seed)
    peer.d3rlpy.logging.set_log_context()
    theirs = peer.algorithm("iql", options.width, options.batch_size, options.steps)
    data = peer.dataset(options.file, scale=True)
    theirs.build_with_dataset(data)
    theirs.observation_scaler.fit_with_transition_picker(data.episodes, data.transition_picker)
    network = Network(hidden=(options.width,) * 2, activation="relu")
    config = iql.Config(dataset=options.dataset, steps=options.steps, batch_size=options.batch_size, network=network)
    policy, steps = given(config, "bounded")
    ours = iql.Learner(policy.train(), config)
    begin_alike(ours, theirs)
    noted = {}
    for step in range(options.steps):
        batch = steps.batch(options.batch_size, at=step, seed=options.seed)
        theirs.impl.inner_update(as_theirs(batch, theirs.observation_scaler), step)
        ours.update(batch, step)
        if step + 1 in (*NOTED, options.steps):
            noted[step + 1] = apart(ours, theirs)
            print(step + 1, noted[step + 1], file=sys.stderr, flush=True)
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    found = {who: peer.returns(one, options.env, seeds) for who, one in (("ours", Ours(policy)), ("d3rlpy", theirs))}
    print(json.dumps({"steps": options.steps, "apart": noted, **found}))


if __name__ == "__main__":
    main()
