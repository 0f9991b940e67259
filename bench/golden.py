"""The numbers that others get: losses of Stable-Baselines3, and of TorchRL where it is there, on fixed tensors.

    python bench/golden.py          writes tests/training/golden.json, which the tests hold our losses against

Stable-Baselines3 comes with the extra `bench`. TorchRL is optional and is looked for on the path; without it its numbers
are kept as they were:

    pip install --no-deps --target /some/folder torchrl tensordict pyvers orjson cloudpickle importlib_metadata zipp
    PYTHONPATH=/some/folder python bench/golden.py

Their networks are replaced by given outputs, their own code computes the losses, and learning rates are 0.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

PATH = Path(__file__).resolve().parent.parent / "tests" / "training" / "golden.json"
GAMMA, LAMBDA = 0.9, 0.8
CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT = 0.2, 0.5, 0.01
ALPHA, TARGET_ENTROPY = 0.3, -2.0


def main() -> None:
    kept = json.loads(PATH.read_text()) if PATH.exists() else {}
    given = inputs()
    found: dict[str, Any] = {"inputs": given, "sb3": sb3(given)}
    found["torchrl"] = torchrl(given) if importlib.util.find_spec("torchrl") else kept.get("torchrl", {})
    PATH.write_text(json.dumps(found) + "\n")
    print(json.dumps({name: part for name, part in found.items() if name != "inputs"}, indent=1))


def inputs() -> dict[str, Any]:
    random = np.random.default_rng(0)

    def numbers(*shape: int) -> Any:
        return random.standard_normal(shape).round(3).tolist()

    ends = {"terminated": [False, True, False, False, True, False, False, False]}
    return {
        "gae": gae_inputs(random),
        "ppo": {
            **{"logits": numbers(8, 3), "value": numbers(8), "action": random.integers(0, 3, 8).tolist()},
            **{"old_log_prob": (-1.1 + 0.3 * random.standard_normal(8)).round(3).tolist()},
            **{"advantage": numbers(8), "returns": numbers(8)},
            **{"clip": CLIP, "value_weight": VALUE_WEIGHT, "entropy_weight": ENTROPY_WEIGHT},
        },
        "dqn": {
            **{"q": numbers(8, 3), "next_q": numbers(8, 3), "action": random.integers(0, 3, 8).tolist()},
            **{"reward": (2 * random.standard_normal(8)).round(3).tolist(), "gamma": GAMMA, **ends},
        },
        "sac": {
            **{"state": numbers(8, 2), "next_state": numbers(8, 2), "action": numbers(8, 2), "reward": numbers(8)},
            **{
                "drawn": numbers(8, 2),
                "log_prob": numbers(8),
                "next_drawn": numbers(8, 2),
                "next_log_prob": numbers(8),
            },
            **{"critics": numbers(2, 4), "targets": numbers(2, 4), "gamma": GAMMA, "alpha": ALPHA, **ends},
            "target_entropy": TARGET_ENTROPY,
        },
    }


def gae_inputs(random: np.random.Generator) -> dict[str, Any]:
    """Eight steps of three worlds; what follows a step is the next row's value, but where an episode ends."""
    reward, value, beyond = random.standard_normal((3, 8, 3)).round(3)
    terminated, truncated = np.zeros((2, 8, 3), bool)
    terminated[[2, 6], [0, 1]] = True
    truncated[[4, 7, 3], [0, 1, 2]] = True
    after = np.concatenate([value[1:], beyond[-1:]])
    after[terminated | truncated] = beyond[terminated | truncated]
    arrays = {"reward": reward, "value": value, "next_value": after, "terminated": terminated, "truncated": truncated}
    return {name: array.tolist() for name, array in arrays.items()} | {"gamma": GAMMA, "lambda": LAMBDA}


def tensors(given: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.tensor(value) if isinstance(value, list) else value for name, value in given.items()}


class Anywhere(gym.Env[Any, Any]):
    """Spaces, and nothing behind them: what is learned from is handed in."""

    def __init__(self, size: int, action_space: gym.Space[Any]):
        self.observation_space = gym.spaces.Box(-9, 9, (size,), np.float32)
        self.action_space = action_space


def quiet(model: Any) -> Any:
    from stable_baselines3.common.logger import Logger

    model.set_logger(Logger(None, []))
    return model


def logged(model: Any, *names: str) -> dict[str, float]:
    return {name: float(model.logger.name_to_value[f"train/{name}"]) for name in names}


def sb3(given: dict[str, Any]) -> dict[str, Any]:
    import stable_baselines3

    found: dict[str, Any] = {"version": stable_baselines3.__version__}
    for name, compute in {"gae": sb3_gae, "ppo": sb3_ppo, "dqn": sb3_dqn, "sac": sb3_sac}.items():
        found[name] = compute(tensors(given[name]))
    found["squashed"] = sb3_squashed()
    return found


def sb3_squashed() -> dict[str, float]:
    from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution

    chances = SquashedDiagGaussianDistribution(2)
    chances.proba_distribution(torch.tensor([[0.2, -1.0]]), torch.tensor([[0.5, 2.0]]).log())
    free = torch.tensor([[0.9, -0.4]])
    return {"log_prob": float(chances.log_prob(free.tanh(), free))}


def sb3_gae(g: dict[str, Any]) -> dict[str, Any]:
    """Its buffer knows one kind of end; what lies beyond a time limit is added to the reward, as its collector does."""
    from stable_baselines3.common.buffers import RolloutBuffer

    steps, worlds = g["reward"].shape
    ended = g["terminated"] | g["truncated"]
    box = gym.spaces.Box(-1, 1, (1,), np.float32)
    buffer = RolloutBuffer(steps, box, box, gamma=GAMMA, gae_lambda=LAMBDA, n_envs=worlds)
    reward = (g["reward"] + GAMMA * g["next_value"] * g["truncated"]).numpy()
    starts = torch.cat([torch.ones(1, worlds, dtype=torch.bool), ended[:-1]]).numpy()
    nothing = np.zeros((worlds, 1))
    for t in range(steps):
        buffer.add(nothing, nothing, reward[t], starts[t], g["value"][t], torch.zeros(worlds))
    buffer.compute_returns_and_advantage(g["next_value"][-1], ended[-1].numpy())
    return {"advantage": buffer.advantages.tolist()}


def sb3_ppo(g: dict[str, Any]) -> dict[str, Any]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.distributions import CategoricalDistribution
    from stable_baselines3.common.type_aliases import RolloutBufferSamples

    env = Anywhere(3, gym.spaces.Discrete(3))
    weights = {"clip_range": CLIP, "vf_coef": VALUE_WEIGHT, "ent_coef": ENTROPY_WEIGHT, "max_grad_norm": 1e9}
    model = quiet(PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, learning_rate=0.0, **weights))
    logits, value = g["logits"].requires_grad_(), g["value"].requires_grad_()

    def evaluate(_: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chances = CategoricalDistribution(3).proba_distribution(logits)
        return value, chances.log_prob(actions), chances.entropy()

    model.policy.evaluate_actions = evaluate
    rows = (torch.zeros(8, 3), g["action"], torch.zeros(8), g["old_log_prob"], g["advantage"], g["returns"])
    model.rollout_buffer.get = lambda _: [RolloutBufferSamples(*rows)]
    model.train()
    names = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss")
    return {**logged(model, *names), "logits_grad": logits.grad.tolist(), "value_grad": value.grad.tolist()}


def sb3_dqn(g: dict[str, Any]) -> dict[str, Any]:
    from stable_baselines3 import DQN
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    model = quiet(DQN("MlpPolicy", Anywhere(3, gym.spaces.Discrete(3)), learning_rate=0.0, gamma=GAMMA, buffer_size=8))
    q = g["q"].requires_grad_()
    model.q_net.forward = model.q_net_target.forward = lambda seen: seen
    columns = (q, g["action"].view(-1, 1), g["next_q"], g["terminated"].float().view(-1, 1), g["reward"].view(-1, 1))
    model.replay_buffer.sample = lambda *_, **__: ReplayBufferSamples(*columns)
    model.train(gradient_steps=1, batch_size=8)
    return {**logged(model, "loss"), "q_grad": q.grad.tolist()}


def linear(weights: Tensor) -> Any:
    """Twin critics, each a weighted sum of state and action."""

    def critics(state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        return tuple((torch.cat([state, action], 1) * row).sum(1, keepdim=True) for row in weights)

    return critics


def sb3_sac(g: dict[str, Any]) -> dict[str, Any]:
    from stable_baselines3 import SAC
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    env = Anywhere(2, gym.spaces.Box(-1, 1, (2,), np.float32))
    how = {"learning_rate": 0.0, "gamma": GAMMA, "buffer_size": 8, "ent_coef": f"auto_{ALPHA}"}
    model = quiet(SAC("MlpPolicy", env, target_entropy=TARGET_ENTROPY, **how))
    critics, drawn, log_prob = (g[name].requires_grad_() for name in ("critics", "drawn", "log_prob"))
    draws = iter([(drawn, log_prob), (g["next_drawn"], g["next_log_prob"])])  # its order: now, then after
    model.actor.action_log_prob = lambda _: next(draws)
    model.critic.forward, model.critic_target.forward = linear(critics), linear(g["targets"])
    done, reward = g["terminated"].float().view(-1, 1), g["reward"].view(-1, 1)
    rows = ReplayBufferSamples(g["state"], g["action"], g["next_state"], done, reward)
    model.replay_buffer.sample = lambda *_, **__: rows
    gradients: list[Tensor] = []
    model.critic.optimizer.step = lambda: gradients.append(critics.grad.clone())  # of the critics' own loss
    model.train(gradient_steps=1, batch_size=8)
    slopes = {
        "critics": gradients[0],
        "drawn": drawn.grad,
        "log_prob": log_prob.grad,
        "log_alpha": model.log_ent_coef.grad,
    }
    names = ("critic_loss", "actor_loss", "ent_coef_loss")
    return {**logged(model, *names), **{f"{name}_grad": slope.tolist() for name, slope in slopes.items()}}


def torchrl(given: dict[str, Any]) -> dict[str, Any]:
    import torchrl as package

    return {
        "version": package.__version__,
        "gae": torchrl_gae(tensors(given["gae"])),
        "ppo": torchrl_ppo(tensors(given["ppo"])),
        "dqn": torchrl_dqn(tensors(given["dqn"])),
    }


def torchrl_gae(g: dict[str, Any]) -> dict[str, Any]:
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    value, after, reward, terminated, truncated = (
        g[name].T.unsqueeze(-1) for name in ("value", "next_value", "reward", "terminated", "truncated")
    )  # [N, T, 1]
    ended = terminated | truncated
    advantage, _ = generalized_advantage_estimate(GAMMA, LAMBDA, value, after, reward, ended, terminated)
    return {"advantage": advantage.squeeze(-1).T.tolist()}


def torchrl_ppo(g: dict[str, Any]) -> dict[str, Any]:
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
    from torch import nn
    from torchrl.objectives import ClipPPOLoss

    look = TensorDictModule(nn.Identity(), in_keys=["given"], out_keys=["logits"])
    draw = ProbabilisticTensorDictModule(
        ["logits"], ["action"], distribution_class=torch.distributions.Categorical, return_log_prob=True
    )
    actor = ProbabilisticTensorDictSequential(look, draw)
    critic = TensorDictModule(nn.Identity(), in_keys=["judged"], out_keys=["state_value"])
    how = {"clip_epsilon": CLIP, "entropy_coeff": ENTROPY_WEIGHT, "critic_coeff": VALUE_WEIGHT}
    loss = ClipPPOLoss(actor, critic, normalize_advantage=True, loss_critic_type="l2", **how)
    columns = {"given": g["logits"], "judged": g["value"].view(-1, 1), "action": g["action"]}
    columns |= {"advantage": g["advantage"].view(-1, 1), "value_target": g["returns"].view(-1, 1)}
    columns[loss.tensor_keys.sample_log_prob] = g["old_log_prob"]
    found = loss(TensorDict(columns, batch_size=[8]))
    return {name: float(found[name]) for name in ("loss_objective", "loss_critic", "loss_entropy")}


def torchrl_dqn(g: dict[str, Any]) -> dict[str, Any]:
    from tensordict import TensorDict
    from torch import nn
    from torchrl.modules import QValueActor
    from torchrl.objectives import DQNLoss

    actor = QValueActor(nn.Identity(), in_keys=["given"], action_space="categorical")
    loss = DQNLoss(actor, action_space="categorical", loss_function="smooth_l1", delay_value=False)
    loss.make_value_estimator(gamma=GAMMA)
    ends = g["terminated"].view(-1, 1)
    after = {"given": g["next_q"], "reward": g["reward"].view(-1, 1), "done": ends, "terminated": ends}
    batch = TensorDict({"given": g["q"], "action": g["action"], "next": after}, batch_size=[8])
    return {"loss": float(loss(batch)["loss"])}


if __name__ == "__main__":
    main()
