"""DQN against other people's numbers, its own definitions, and worlds whose values are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drivetrain import checkpoint, config
from drivetrain.envs.rollout import rollout
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.models.heads import Greedy
from drivetrain.run import Run
from drivetrain.sample import STATE
from drivetrain.training.online_rl import dqn
from drivetrain.training.online_rl.dqn import Config, losses, worth

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SMALL = Network(hidden=(32,), activation="relu")
CONSTANT = Config(
    env="constant:length=2", steps=800, warmup=64, train_every=16, updates=16, lr=5e-3, target_every=16, gamma=0.5,
    network=SMALL,
)  # fmt: skip


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("dqn", config.to_json(settings))
    return dqn.train(settings, run)


def values(policy, *seen):
    observation = {STATE: np.array(seen, dtype=np.float32)}
    _, _, info = policy.act(observation, policy.initial(len(seen)), greedy=True, generator=None)
    return policy.head(info["features"]).values.detach()


class Given:
    """Stands where a policy stands: what it sees is what each choice is worth, times `sign`."""

    recurrent, keys = False, (STATE,)

    def __init__(self, sign=1.0):
        self.sign = sign

    def initial(self, count):
        return {}

    def features(self, sequence, memory, is_first):
        return sequence[STATE], memory

    def head(self, seen):
        return Greedy(self.sign * seen)


def golden_batch():
    g = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in GOLDEN["inputs"]["dqn"].items()}
    q = g["q"].requires_grad_()
    rows = {name: g[name].unsqueeze(1) for name in ("action", "reward", "terminated")}
    batch = {STATE: torch.stack([q, g["next_q"]], 1), "is_first": torch.zeros(8, 2, dtype=torch.bool), **rows}
    batch |= {"discount": torch.full((8, 1), g["gamma"]), "share": torch.full((8, 1), 1 / 8)}
    return batch, q, g


@pytest.mark.parametrize("whose", ["sb3", "torchrl"])
def test_the_loss_is_that_of_others(whose):
    batch, q, _ = golden_batch()
    found = losses(Given(), batch, worth(Given(), Given(), batch, Config()))["loss/value"]
    assert float(found.detach()) == pytest.approx(GOLDEN[whose]["dqn"]["loss"], abs=1e-6)
    found.backward()
    np.testing.assert_allclose(q.grad, GOLDEN["sb3"]["dqn"]["q_grad"], atol=1e-6)


def test_a_termination_is_worth_its_reward_and_nothing_more():
    batch, _, g = golden_batch()
    found = worth(Given(), Given(), batch, Config())
    ends = g["terminated"]
    torch.testing.assert_close(found[ends], g["reward"][ends])
    onward = g["next_q"].amax(1)
    torch.testing.assert_close(found[~ends], (g["reward"] + g["gamma"] * onward)[~ends])


def test_double_learning_takes_the_choice_of_one_and_the_value_of_the_other():
    batch, _, g = golden_batch()
    found = worth(Given(-1.0), Given(), batch, Config(double=True))  # the online network likes the least
    expected = g["reward"] + g["gamma"] * g["next_q"].amin(1) * ~g["terminated"]
    torch.testing.assert_close(found, expected)


def test_the_error_is_what_priorities_are_made_of():
    batch, _, g = golden_batch()
    found = losses(Given(), batch, g["reward"])
    thought = g["q"].gather(1, g["action"].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found["error"], (thought - g["reward"]).detach())
    assert not found["error"].requires_grad


def test_a_row_without_a_share_teaches_nothing():
    """Padding and weights come in as the share each row has in the loss."""
    batch, q, g = golden_batch()
    batch["share"] = torch.zeros(8, 1)
    batch["share"][3] = 1
    losses(Given(), batch, g["reward"])["loss/value"].backward()
    assert q.grad[3].abs().sum() > 0
    assert q.grad.abs().sum() == q.grad[3].abs().sum()


@pytest.mark.slow
@pytest.mark.parametrize(("n_step", "double", "prioritised"), [(1, False, False), (3, True, False), (1, False, True)])
def test_a_reward_of_1_under_a_time_limit_is_worth_1_over_1_minus_gamma(
    n_step, double, prioritised, toy_worlds, tmp_path
):
    settings = replace(CONSTANT, n_step=n_step, double=double, prioritised=prioritised)
    np.testing.assert_allclose(values(trained(settings, tmp_path), [1.0]), 2, atol=0.1)


@pytest.mark.parametrize(("n_step", "expected"), [(1, 1 / (1 - 0.5 / 2)), (3, (1 + 1.5) / 2)])
def test_and_less_where_the_limit_is_an_end(n_step, expected, toy_worlds, tmp_path):
    """All observations are the same, and every second step ends: one step at a time Q is 1 + gamma * Q / 2."""
    found = values(trained(replace(CONSTANT, env="constant:length=2,ends=death", n_step=n_step), tmp_path), [1.0])
    np.testing.assert_allclose(found, expected, atol=0.12)


@pytest.mark.slow
def test_one_that_remembers_learns_what_one_that_does_not_cannot(toy_worlds, tmp_path):
    settings = Config(
        env="recall:wait=1", steps=2_400, worlds=2, warmup=200, train_every=32, updates=8, batch_size=32, lr=1e-2,
        length=3, n_step=1, explore_fraction=0.5, explore_end=0.1, network=replace(SMALL, memory="lstm", memory_width=16),
    )  # fmt: skip
    for network, good in ((settings.network, True), (SMALL, False)):
        policy = trained(replace(settings, network=network), tmp_path / network.memory)
        mean = np.mean([episode.total for episode in rollout(policy, "recall:wait=1", range(100))])
        assert mean > 0.95 if good else mean < 0.7


def test_exploration_falls_from_always_to_its_end(toy_worlds):
    settings = Config(env="identity", steps=1000, explore_fraction=0.5, explore_end=0.1)
    explorer = dqn.Explorer(Worlds("identity", 1), None, settings, checkpoint.Randomness(0))
    assert [explorer.epsilon(step) for step in (0, 250, 500, 999)] == pytest.approx([1, 0.55, 0.1, 0.1])


def test_the_target_network_is_renewed_by_steps(toy_worlds, tmp_path):
    """Far apart it never is, and keeps the weights that the policy began with."""
    settings = Config(
        env="identity", steps=256, warmup=32, train_every=32, updates=4, target_every=10**6, network=SMALL
    )
    policy = trained(settings, tmp_path / "never")
    target = checkpoint.read(checkpoint.resolve(tmp_path / "never"), "target")["weights"]
    torch.manual_seed(settings.seed)
    start = dqn.build_policy(policy.spec, SMALL, "q").state_dict()
    assert all(torch.equal(target[key], start[key]) for key in target)
    trained(replace(settings, target_every=64), tmp_path / "often")
    target = checkpoint.read(checkpoint.resolve(tmp_path / "often"), "target")["weights"]
    assert not all(torch.equal(target[key], start[key]) for key in target)


def test_actions_that_are_numbers_are_refused(tmp_path):
    with pytest.raises(BadConfig, match="use sac or ppo"):
        trained(replace(dqn.DEBUG, env="pendulum"), tmp_path)


def test_settings_that_would_count_wrongly_or_learn_from_others_are_refused(toy_worlds, tmp_path):
    with pytest.raises(BadConfig, match="must be a multiple of --worlds"):
        trained(replace(dqn.DEBUG, worlds=3, train_every=16), tmp_path / "one")
    with pytest.raises(BadConfig, match=r"network\.dropout 0"):
        trained(replace(dqn.DEBUG, network=replace(dqn.DEBUG.network, dropout=0.1)), tmp_path / "other")
