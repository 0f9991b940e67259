"""What every offline algorithm begins with: a policy in the shape of its data, and the data as the policy takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain import transforms
from drivetrain.checkpoint import load, read, read_manifest, resolve
from drivetrain.data.card import refuse_thinned
from drivetrain.data.episodes import Episodes
from drivetrain.data.open import open_dataset
from drivetrain.data.transitions import Transitions
from drivetrain.envs.words import spec_of, with_options
from drivetrain.errors import BadConfig, BadData
from drivetrain.models.driver import Driver, build_policy
from drivetrain.run import read_config
from drivetrain.training.start import start_from, undropped, unfed

NEAREST = 1 - 1e-5  # to the bounds of an action: a squashed density is infinite there
RANGE = 1000.0  # of the data's returns, where rewards are scaled


def given(config: Any, of_numbers: str, of_choices: str = "categorical") -> tuple[Driver, Transitions]:
    """By what a config says of `dataset`, `env`, `policy`, `frame_stack`, `scale_rewards` and `network`; with a head for
    actions that are numbers, and one for choices."""
    unfed(config.network)
    undropped(config.network, "offline learning", "targets would be of other networks")
    wanted = spec_of(with_options(config.env, stack=1)) if config.env else None
    refuse_thinned(config.dataset)
    data = open_dataset(config.dataset, wanted).stack(config.frame_stack)
    env = config.env or data.spec.env
    shown = {key: f for key, f in data.spec.features.items() if not key.startswith(("expert.", "privileged."))}
    spec = replace(data.spec, features=shown, env=with_options(env, stack=config.frame_stack) if env else "")
    head = of_choices if spec.discrete else of_numbers
    if config.policy:
        policy = start_from(config.policy, spec, config.network)
        if policy.head_name != head:
            raise BadConfig(
                f"BadConfig: a policy with the head {head!r} is needed, {config.policy} has {policy.head_name!r}; "
                "start from another, or anew"
            )
    else:
        changes = transforms.from_statistics(spec, data.statistics())
        policy = build_policy(spec, config.network, head, changes)
    if policy.recurrent:
        raise BadConfig("BadConfig: single steps teach no memory; leave --network.memory out, or use --frame-stack")
    scale = (brought_scale(config.policy) or reward_scale(data)) if config.scale_rewards else 1.0
    steps = Transitions(data, policy.transforms, scale)
    if not spec.discrete:
        steps.action = steps.action.clamp(-NEAREST, NEAREST).float()
    return policy.train(), steps


def go_on(parts: Mapping[str, Any], path: str, algorithm: str) -> None:
    """Everything that the run at `path` had learned besides its policy, where it is of the same algorithm."""
    if not path:
        return
    found = resolve(path)
    if not (found.parent.parent / "config.json").exists() or read_config(found.parent.parent)["algorithm"] != algorithm:
        return
    rates = [(part, part.lr) for part in parts.values() if hasattr(part, "lr")]
    try:
        load(found, parts)
    except (RuntimeError, ValueError) as error:
        raise BadConfig(
            f"BadConfig: the critics of {path} have other sizes; give the same --network.hidden as it had ({error})"
        ) from error
    for part, rate in rates:  # of this run, not of that
        part.lr = rate


class Scale:
    """A part of checkpoints: by how much rewards were multiplied, for critics know them so."""

    def __init__(self, value: float):
        self.value = value

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = state["value"]


def brought_scale(path: str) -> float:
    """That of the run to go on from; 0 where there is none."""
    if not path or "reward_scale.json" not in read_manifest(resolve(path))["files"]:
        return 0.0
    return float(read(resolve(path), "reward_scale")["value"])


def reward_scale(data: Episodes) -> float:
    returns = data.returns()
    spread = float(returns.max() - returns.min())
    if spread <= 0:
        raise BadData(
            "BadData: all episodes of the data set return the same, which scales nothing; add --no-scale-rewards"
        )
    return RANGE / spread


def seeing(policy: Driver) -> Iterator[nn.Parameter]:
    """Of a policy all that is not its head: what critics may teach as well."""
    return (p for name, p in policy.named_parameters() if not name.startswith("head."))


def features(policy: Driver, batch: dict[str, Tensor], which: str) -> Tensor:
    """[B, D] of the observations here (""), or of those after (NEXT)."""
    seen = {key: batch[which + key] for key in policy.keys}
    found, _ = policy.features(seen, {}, torch.zeros(len(batch["reward"]), 1, dtype=torch.bool))
    return found[:, 0]


def taken(policy: Driver, action: Tensor) -> Tensor:
    """An action as critics take it: numbers, or a choice as one of many."""
    return F.one_hot(action, policy.spec.action.choices).float() if policy.spec.discrete else action
