"""How fast a world model learns beside TorchRL's DreamerV3: the same sizes, on one thread, in one run.

    pip install --no-deps --target /some/folder torchrl tensordict pyvers orjson cloudpickle importlib_metadata zipp
    PYTHONPATH=/some/folder python bench/dreamer_speed.py

A gradient step is model, actor and critic together, on the same random rows: 16 sequences of 32 steps, dreams of 15 steps from
each state. Ours, theirs, ours, theirs, ...; figures are the median of the rounds and of their ratios, with the least and the
most. Each runs as it comes, which for us is with the faster way to multiply that `drivetrain train` chooses (processor.py),
and once more with that choice made for both. TorchRL's replay value loss, which we have not, is left out. How much faster
depends on how fast the processor multiplies, for the products are nearly as many on both sides; so each kind of processor
keeps a result of its own, by its widest vectors.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from drivetrain import processor
from drivetrain.checkpoint import Randomness
from drivetrain.envs.words import spec_of
from drivetrain.models.driver import Network
from drivetrain.models.rssm import Size
from drivetrain.models.world import Dreamer
from drivetrain.run import describe_environment
from drivetrain.sample import ACTION, STATE
from drivetrain.training.world_model import dreamer

RESULT = Path(__file__).resolve().parent / "results" / "dreamer_speed.json"
SIZES = {"small": Size(128, 8, 8, 128), "medium": Size(256, 16, 16, 256)}
BATCH, LENGTH, DREAM, ROUNDS, STEPS, WARM = 16, 32, 15, 5, 3, 2
Step = Callable[[], Any]


def ours(size: Size) -> Step:
    torch.manual_seed(0)
    config = replace(dreamer.Config(), size=size, batch_size=BATCH, length=LENGTH, dream=DREAM)
    network = Network(state_layers=(size.hidden,), activation="silu")
    learner = dreamer.Learner(Dreamer(spec_of("pendulum"), network, size), config, Randomness(0))
    first = torch.zeros(BATCH, LENGTH + 1, dtype=torch.bool)
    first[:, 0] = True
    nothing = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    batch = {
        STATE: torch.randn(BATCH, LENGTH + 1, 3),
        ACTION: torch.rand(BATCH, LENGTH, 1) * 2 - 1,
        "reward": torch.randn(BATCH, LENGTH),
        "terminated": nothing,
        "valid": ~nothing,
        "is_first": first,
    }
    return lambda: learner.update(batch)


def theirs(size: Size) -> Step:
    """As their documentation builds it, with heads of as many layers as ours."""
    from tensordict import TensorDict
    from tensordict.nn import NormalParamExtractor, ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
    from tensordict.nn import TensorDictModule as Named
    from tensordict.nn import TensorDictSequential as Chain
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs.model_based import DreamerEnv
    from torchrl.modules import (
        DreamerV3MLP,
        RSSMPosteriorV3,
        RSSMPriorV3,
        RSSMRolloutV3,
        SymExpTwoHot,
        TanhNormal,
        WorldModelWrapper,
    )
    from torchrl.objectives import (
        DreamerV3ActorLoss,
        DreamerV3Loss,
        DreamerV3ModelLoss,
        DreamerV3ValueLoss,
        SoftUpdate,
    )

    torch.manual_seed(0)
    state, belief, hidden = size.groups * size.classes, size.deterministic, size.hidden
    wide = state + belief
    shape = {
        "hidden_dim": hidden,
        "rnn_hidden_dim": belief,
        "num_categoricals": size.groups,
        "num_classes": size.classes,
    }
    prior_net = RSSMPriorV3(action_shape=torch.Size((1,)), action_dim=1, unimix=0.01, **shape)
    posterior_net = RSSMPosteriorV3(obs_embed_dim=hidden, unimix=0.01, **shape)
    now, after = ["state", "belief"], [("next", "state"), ("next", "belief")]
    prior = Named(prior_net, [*now, "action"], [("next", "prior_logits"), *after])
    posterior = Named(
        posterior_net,
        [("next", "belief"), ("next", "encoded_latents")],
        [("next", "posterior_logits"), ("next", "state")],
    )
    reward_net, told = DreamerV3MLP(wide, 255, depth=1, num_cells=hidden), SymExpTwoHot()
    on_net = DreamerV3MLP(wide, 1, depth=1, num_cells=hidden)
    world = Chain(
        Named(
            DreamerV3MLP(3, None, depth=1, num_cells=hidden), [("next", "observation")], [("next", "encoded_latents")]
        ),
        RSSMRolloutV3(prior, posterior, reset_key="is_init"),
        Named(DreamerV3MLP(wide, 3, depth=1, num_cells=hidden), after, [("next", "reco_pixels")]),
        Named(reward_net, after, [("next", "reward_logits")]),
        Named(told, [("next", "reward_logits")], [("next", "reward")]),
        Named(on_net, after, [("next", "continue_pred")]),
    )
    imagined = WorldModelWrapper(
        Named(prior_net, [*now, "action"], ["_", *now]),
        Chain(Named(reward_net, now, ["reward_logits"]), Named(told, ["reward_logits"], ["reward"])),
    )
    env = DreamerEnv(imagined, prior_shape=(state,), belief_shape=(belief,))
    env.observation_spec = Composite(state=Unbounded(state), belief=Unbounded(belief))
    env.state_spec = env.observation_spec.clone()
    env.action_spec, env.reward_spec = Bounded(-1, 1, (1,)), Unbounded((1,))
    actor = ProbabilisticTensorDictSequential(
        Named(DreamerV3MLP(wide, 2, depth=2, num_cells=hidden), now, ["params"]),
        Named(NormalParamExtractor(), ["params"], ["loc", "scale"]),
        ProbabilisticTensorDictModule(
            ["loc", "scale"], ["action"], distribution_class=TanhNormal, return_log_prob=True
        ),
    )
    value = Chain(
        Named(DreamerV3MLP(wide, 255, depth=1, num_cells=hidden), now, ["state_value_logits"]),
        Named(SymExpTwoHot(), ["state_value_logits"], ["state_value"]),
    )
    goes_on = Chain(
        Named(on_net, now, ["continue_pred"]), Named(torch.nn.Sigmoid(), ["continue_pred"], ["continuation"])
    )
    model_loss = DreamerV3ModelLoss(
        world, lambda_continue=1.0, kl_mode="separate", unimix=0.01, reward_two_hot=True, detach_output=True
    )
    model_loss.set_keys(pixels="observation")
    actor_loss = DreamerV3ActorLoss(
        actor, value, env, continuation_model=goes_on, imagination_horizon=DREAM, use_reinforce=True
    )
    value_loss = DreamerV3ValueLoss(value, value_loss="two_hot", actor_loss=actor_loss, slow_critic_regularization=1.0)
    slow = SoftUpdate(value_loss, tau=0.02)
    loss = DreamerV3Loss(model_loss, actor_loss, value_loss, replay_value_loss_weight=0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4, fused=True)
    nothing = torch.zeros(BATCH, LENGTH, 1, dtype=torch.bool)
    rows = TensorDict(
        {
            "state": torch.zeros(BATCH, LENGTH, state),
            "belief": torch.zeros(BATCH, LENGTH, belief),
            "action": torch.rand(BATCH, LENGTH, 1) * 2 - 1,
            "is_init": nothing.clone(),
            "next": {
                "observation": torch.randn(BATCH, LENGTH, 3),
                "reward": torch.randn(BATCH, LENGTH, 1),
                "done": nothing.clone(),
                "terminated": nothing.clone(),
            },
        },
        [BATCH, LENGTH],
    )

    def step() -> None:
        losses = loss(rows.clone())
        optimizer.zero_grad()
        sum(part for name, part in losses.items() if name.startswith("loss_")).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 100.0)
        optimizer.step()
        slow.step()

    return step


def per_second(step: Step, precision: str) -> float:
    torch.set_float32_matmul_precision(precision)
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS / (time.perf_counter() - start)


def middle(values: list[float]) -> dict[str, float]:
    return {"value": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> int:
    if importlib.util.find_spec("torchrl") is None:
        print(
            "TorchRL is not there; see the head of bench/dreamer_speed.py for how it is put on the path",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    processor.multiply_quickly()
    quick = torch.get_float32_matmul_precision()
    vectors = torch.backends.cpu.get_cpu_capability()
    said: dict[str, Any] = {"vectors": vectors, "quick": quick, "sizes": {}}
    for name, size in SIZES.items():
        sides: dict[str, tuple[Step, str]] = {"ours": (ours(size), quick)}
        other = theirs(size)
        sides |= {"theirs": (other, "highest"), "theirs_quick": (other, quick)}
        for step, _ in sides.values():
            for _ in range(WARM):
                step()
        rounds = [{side: per_second(*how) for side, how in sides.items()} for _ in range(ROUNDS)]
        found: dict[str, Any] = {side: middle([one[side] for one in rounds]) for side in sides}
        for side in ("theirs", "theirs_quick"):
            found[f"times_{side}"] = middle([one["ours"] / one[side] for one in rounds])
        said["sizes"][name] = {"size": size.__dict__, **found}
        print(name, {key: round(value["value"], 2) for key, value in found.items()}, flush=True)
    others = (
        [one for one in json.loads(RESULT.read_text())["runs"] if one["vectors"] != vectors] if RESULT.exists() else []
    )
    runs = [*others, {**said, "environment": describe_environment(0)}]
    whole = {"batch": BATCH, "length": LENGTH, "dream": DREAM, "runs": runs}
    RESULT.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
