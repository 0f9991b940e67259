"""PPO against sums done by hand, other people's numbers, and worlds whose answer is known.

`golden.json` is written by bench/golden.py from Stable-Baselines3 and TorchRL.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain import checkpoint, config
from drivetrain.checkpoint import Randomness
from drivetrain.envs.rollout import rollout
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.models.heads import Categorical, Gaussian
from drivetrain.run import Run, read_metrics
from drivetrain.sample import STATE
from drivetrain.training.flat import Adam
from drivetrain.training.online_rl import ppo
from drivetrain.training.online_rl.ppo import Actor, Config, RewardScale, Rollout, advantages, losses, moved

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SMALL = Network(hidden=(32,), activation="tanh")
CONSTANT = Config(
    env="constant", steps=6_000, lr=1e-2, epochs=10, minibatch=64, gamma=0.9, gae_lambda=0.9, network=SMALL
)


def trained(settings, folder, **how):
    run = Run(folder, checkpoint_every=10**9, quiet=True, **how)
    run.begin("ppo", config.to_json(settings))
    return ppo.train(settings, run)


def mean_return(policy, env, episodes=60):
    return np.mean([episode.total for episode in rollout(policy, env, range(episodes))])


def tensors(name):
    return {k: torch.tensor(v) if isinstance(v, list) else v for k, v in GOLDEN["inputs"][name].items()}


def by_hand(reward, value, after, terminated, ended, gamma, lam):
    """The definition: a sum of one-step errors, each weighted by (gamma lambda)^k, that stops where the episode does."""
    found = np.zeros_like(reward)
    for t in range(len(reward)):
        for k in range(t, len(reward)):
            onward = 0.0 if terminated[k] else gamma * after[k]
            found[t] += (gamma * lam) ** (k - t) * (reward[k] + onward - value[k])
            if ended[k]:
                break
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.9, 1.0]),
    st.sampled_from([0.0, 0.8, 1.0]),
)
def test_gae_matches_the_hand_written_sum(seed, steps, gamma, lam):
    random = np.random.default_rng(seed)
    reward, value, after = random.standard_normal((3, steps, 2))
    ended = random.random((steps, 2)) < 0.3
    terminated = ended & (random.random((steps, 2)) < 0.5)
    found = advantages(reward, value, after, terminated, ended, gamma, lam)
    for world in range(2):
        columns = (x[:, world] for x in (reward, value, after, terminated, ended))
        np.testing.assert_allclose(found[:, world], by_hand(*columns, gamma, lam), atol=1e-9)


@pytest.mark.parametrize("whose", ["sb3", "torchrl"])
def test_gae_is_what_others_compute(whose):
    g = {k: np.array(v) for k, v in GOLDEN["inputs"]["gae"].items()}
    ended = g["terminated"] | g["truncated"]
    found = advantages(g["reward"], g["value"], g["next_value"], g["terminated"], ended, 0.9, 0.8)
    np.testing.assert_allclose(found, GOLDEN[whose]["gae"]["advantage"], atol=1e-5)


class Given:
    """Stands where a policy stands: what it sees is its logits and, in the last column, its value."""

    def features(self, sequence, memory, is_first):
        return sequence[STATE], memory

    def head(self, seen):
        return Categorical(seen[..., :-1])


def golden_losses():
    g = tensors("ppo")
    seen = torch.cat([g["logits"], g["value"].unsqueeze(-1)], -1).requires_grad_()  # [B, K + 1]
    first = torch.zeros(8, 1, dtype=torch.bool)
    told = (g[name].unsqueeze(1) for name in ("action", "old_log_prob", "advantage", "returns"))
    how = Config(value_weight=g["value_weight"], entropy_weight=g["entropy_weight"], minibatch=8)
    data = Rollout({STATE: seen.unsqueeze(1)}, first, {}, *told)  # eight steps of one world
    batch = next(iter(ppo.minibatches(data, how, False, torch.Generator())))
    return seen, losses(Given(), lambda seen: seen[..., -1], batch, how, g["clip"]), g


def test_the_losses_are_those_of_stable_baselines():
    seen, parts, g = golden_losses()
    theirs = GOLDEN["sb3"]["ppo"]
    watched = moved(parts["log_ratio"], g["clip"])
    found = {
        "policy_gradient_loss": parts["loss/policy"],
        "value_loss": parts["loss/value"] / g["value_weight"],
        "entropy_loss": parts["loss/entropy"] / g["entropy_weight"],
        "approx_kl": watched["watch/kl"],
        "clip_fraction": watched["watch/clipped"],
        "loss": sum(v for k, v in parts.items() if k.startswith("loss/")),
    }
    for name, value in found.items():
        assert float(value.detach()) == pytest.approx(theirs[name], abs=1e-5), name
    found["loss"].backward()
    np.testing.assert_allclose(seen.grad[:, :-1], theirs["logits_grad"], atol=1e-6)
    np.testing.assert_allclose(seen.grad[:, -1], theirs["value_grad"], atol=1e-6)


def test_the_losses_are_those_of_torchrl():
    _, parts, _ = golden_losses()
    pairs = {"loss/policy": "loss_objective", "loss/value": "loss_critic", "loss/entropy": "loss_entropy"}
    for ours, theirs in pairs.items():
        assert float(parts[ours].detach()) == pytest.approx(GOLDEN["torchrl"]["ppo"][theirs], abs=1e-5)


def worth_of(policy, value, shown=(1.0,)):
    seen, _ = policy.features({STATE: torch.tensor([[shown]])}, policy.initial(1), torch.ones(1, 1, dtype=torch.bool))
    return float(value(seen).detach().squeeze())


def learned_value(settings, folder):
    """What the value network says of the one thing there is to see."""
    policy = trained(settings, folder)
    _, value = ppo.begin(settings, Worlds(settings.env, 1))
    checkpoint.load(checkpoint.resolve(folder), {"value": value})
    return worth_of(policy, value)


@pytest.mark.slow
def test_a_reward_of_1_under_a_time_limit_is_worth_1_over_1_minus_gamma(toy_worlds, tmp_path):
    assert learned_value(CONSTANT, tmp_path) == pytest.approx(1 / (1 - CONSTANT.gamma), abs=0.7)


def test_and_much_less_where_the_limit_is_an_end(toy_worlds, tmp_path):
    """The mean over 1 to 8 steps left of (1 - gamma^k) / (1 - gamma)."""
    expected = np.mean([(1 - 0.9**k) / (1 - 0.9) for k in range(1, 9)])
    worth = learned_value(replace(CONSTANT, env="constant:ends=death"), tmp_path)
    assert worth == pytest.approx(expected, abs=0.7)
    assert worth < 5


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return():
    random = np.random.default_rng(0)
    scale, returns, history = RewardScale(3, 0.9), np.zeros(3), []
    for _ in range(400):
        reward, ended = 5 + 7 * random.standard_normal(3), random.random(3) < 0.1
        returns = 0.9 * returns + reward
        history.append(returns.copy())
        returns[ended] = 0
        scaled = scale(reward, ended)
    np.testing.assert_allclose(scaled, reward / np.std(history), rtol=1e-3)
    again = RewardScale(3, 0.9)
    again.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    scale.restart()
    np.testing.assert_array_equal(again(reward, ended), scale(reward, ended))


def collected(settings, folder=None):
    """One rollout of an untrained policy."""
    random = Randomness(settings.seed)
    worlds = Worlds(settings.world, settings.worlds)
    policy, value = ppo.begin(settings, worlds)
    actor = Actor(worlds, settings, RewardScale(settings.worlds, settings.gamma), random)
    actor.rebuild(policy, 0)
    return policy, value, actor, actor.rollout(policy, value)


def test_clipped_rewards_stay_within_bounds(toy_worlds):
    """With gamma 0 an advantage is the reward less the value, and so `returns` is the reward."""
    settings = Config(env="identity-continuous", worlds=2, gamma=0.0, network=SMALL)
    _, _, _, plain = collected(settings)
    _, _, _, clipped = collected(replace(settings, clip_reward=0.5))
    assert plain.returns.min() < -1
    torch.testing.assert_close(clipped.returns, plain.returns.clamp(-0.5, 0.5), atol=1e-6, rtol=0)
    _, _, _, both = collected(replace(settings, clip_reward=0.5, normalise_returns=True))
    assert both.returns.abs().max() <= 0.5 + 1e-6


def test_what_lies_beyond_a_time_limit_is_the_value_of_the_true_last_observation(toy_worlds):
    """identity shows a new number at each reset, so bootstrapping from the next episode would be seen."""
    settings = Config(env="identity", worlds=3, rollout=8, gamma=0.5, gae_lambda=0.0, network=SMALL)
    policy, value, actor, _ = collected(settings)
    actor.rebuild(policy, 1)
    seen = []
    step = actor.worlds.step
    actor.worlds.step = lambda action: seen.append(step(action)) or seen[-1]
    data = actor.rollout(policy, value)
    assert seen[-1].truncated.all()
    assert not np.array_equal(seen[-1].final[STATE], seen[-1].observation[STATE])
    for t, went in enumerate(seen):
        after = value(torch.from_numpy(went.final[STATE])).detach()
        torch.testing.assert_close(data.returns[t], torch.from_numpy(went.reward) + 0.5 * after)


@pytest.mark.parametrize(("memory", "minibatch"), [("none", 16), ("none", 10**6), ("lstm", 16), ("gru", 10**6)])
@pytest.mark.parametrize("env", ["recall", "identity", "identity-continuous"])
def test_replaying_the_sequence_gives_the_same_chances(memory, minibatch, env, toy_worlds):
    """The first ratio is 1 for every minibatch, through ends of episodes and with memory carried into the rollout."""
    how = {"epochs": 1, "minibatch": minibatch, "network": replace(SMALL, memory=memory)}
    settings = Config(env=env, worlds=4, rollout=13, **how)
    policy, value, actor, _ = collected(settings)
    data = actor.rollout(policy, value)  # the second one begins with the memory that the first one left
    if memory != "none":
        assert any(part.abs().max() > 0 for part in data.memory.values())
    count = 0
    for batch in ppo.minibatches(data, settings, policy.recurrent, torch.Generator().manual_seed(0)):
        with torch.no_grad():
            parts = losses(policy, value, batch, settings, settings.clip)
        assert parts["log_ratio"].abs().max() < 1e-5
        count += len(parts["log_ratio"])
    assert count == 4 * 13


def test_the_gradient_raises_what_went_well_and_lowers_what_did_not():
    seen, parts, g = golden_losses()
    parts["loss/policy"].backward()
    slope = seen.grad[torch.arange(8), g["action"]]
    better = g["advantage"] > g["advantage"].mean()
    ratio = parts["log_ratio"].exp()
    free = torch.where(better, ratio < 1 + g["clip"], ratio > 1 - g["clip"])  # the others are clipped: no gradient
    assert free.any()
    assert not free.all()
    assert (slope[better & free] < 0).all()
    assert (slope[~better & free] > 0).all()
    assert (slope[~free] == 0).all()


def epochs_taken(settings, folder, monkeypatch):
    """Gradient steps of each update."""
    counts = []
    update, clip = ppo.update, ppo.Flat.clip
    monkeypatch.setattr(ppo, "update", lambda *a, **k: counts.append(0) or update(*a, **k))
    monkeypatch.setattr(ppo.Flat, "clip", lambda *a: counts.__setitem__(-1, counts[-1] + 1) or clip(*a))
    trained(settings, folder)
    return counts


def test_an_update_stops_once_the_policy_has_moved_too_far(toy_worlds, tmp_path, monkeypatch):
    settings = Config(env="identity", steps=512, epochs=20, minibatch=256, lr=3e-2, anneal=False, network=SMALL)
    assert epochs_taken(settings, tmp_path / "free", monkeypatch) == [20, 20]
    monkeypatch.undo()
    from toys import in_catalog

    with in_catalog():
        stopped = epochs_taken(replace(settings, target_kl=0.01), tmp_path / "held", monkeypatch)
    assert all(0 < count < 20 for count in stopped)


def test_the_learning_rate_falls_to_nothing(toy_worlds, tmp_path, monkeypatch):
    rates = []
    step = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: rates.append(self.lr) or step(self))
    settings = Config(env="identity", steps=1024, epochs=1, minibatch=256, lr=0.1, network=SMALL)
    trained(settings, tmp_path / "falling")
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    rates.clear()
    trained(replace(settings, anneal=False), tmp_path / "level")
    assert rates == pytest.approx([0.1] * 4)


def test_frames_are_stacked_and_actions_repeated(tmp_path):
    settings = replace(ppo.DEBUG, env="pendulum", frame_stack=3, action_repeat=4)
    policy = trained(settings, tmp_path)
    assert policy.spec.observations[STATE].shape == (9,)
    assert policy.spec.env == "pendulum:stack=3,repeat=4"
    episode = next(iter(rollout(checkpoint.load_policy(tmp_path), policy.spec.env, [0])))
    assert episode.length == 50  # of 200 steps


@pytest.mark.slow
def test_one_that_remembers_learns_what_one_that_does_not_cannot(toy_worlds, tmp_path):
    settings = Config(
        env="recall", steps=16_000, rollout=32, epochs=8, minibatch=128, lr=1e-2, gamma=0.99, gae_lambda=0.95,
        entropy_weight=0.01, network=replace(SMALL, memory="lstm", memory_width=16),
    )  # fmt: skip
    assert mean_return(trained(settings, tmp_path / "with"), "recall") > 0.95
    without = replace(settings, network=SMALL, steps=8_000)
    assert mean_return(trained(without, tmp_path / "without"), "recall", 200) < 0.65


def test_the_value_warms_up_before_the_policy_moves(toy_worlds, tmp_path):
    start = replace(ppo.DEBUG, env="identity", network=SMALL)
    trained(start, tmp_path / "first")
    settings = replace(start, policy=str(tmp_path / "first"), value_warmup=start.steps, lr=1e-2)
    before = checkpoint.load_policy(tmp_path / "first").state_dict()
    after = trained(settings, tmp_path / "warm").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    value = checkpoint.read(checkpoint.resolve(tmp_path / "warm"), "value")
    fresh = checkpoint.read(checkpoint.resolve(tmp_path / "first"), "value")
    assert any(not torch.equal(value[key], fresh[key]) for key in value)
    moved_on = trained(replace(settings, value_warmup=0), tmp_path / "cold").state_dict()
    assert any(not torch.equal(before[key], moved_on[key]) for key in before)


@pytest.mark.parametrize("head", ["categorical", "gaussian"])
def test_divergences_are_those_of_torch(head):
    random = torch.Generator().manual_seed(0)
    one, other = (torch.randn(6, 4, generator=random) for _ in range(2))
    if head == "categorical":
        wanted = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (one, other)))
        ours, theirs = Categorical(one), Categorical(other)
    else:
        pairs = [x.chunk(2, -1) for x in (one, other)]
        wanted = torch.distributions.kl_divergence(*(torch.distributions.Normal(m, s.exp()) for m, s in pairs)).sum(-1)
        ours, theirs = (Gaussian(*pair) for pair in pairs)
    assert torch.allclose(ours.divergence(theirs), wanted, atol=1e-5)
    assert torch.allclose(ours.divergence(ours.of(theirs.numbers())), wanted, atol=1e-5)


@pytest.mark.parametrize("freeze", [False, True])
def test_an_anchor_holds_the_policy_where_it_began(freeze, toy_worlds, tmp_path):
    """The heavier, the less it moves away, by what is logged and by what the policy holds likely."""
    start = replace(CONSTANT, steps=64, rollout=8)
    first = trained(start, tmp_path / "first")
    seen = torch.zeros(1, 1, 1)
    moved_by = {}
    for weight in (1e-6, 100.0):
        settings = replace(CONSTANT, policy=str(tmp_path / "first"), anchor=weight, freeze=freeze, steps=3_000)
        later = trained(settings, tmp_path / f"{weight}")
        chances = [p.head(p.features({STATE: seen}, {}, torch.zeros(1, 1))[0]) for p in (later, first)]
        moved_by[weight] = float(chances[0].divergence(chances[1]).detach())
        assert read_metrics(tmp_path / f"{weight}")[-1]["loss/anchor"] > 0
    assert moved_by[100.0] < 0.05 * moved_by[1e-6]


def test_what_is_frozen_stays_and_its_heads_learn_the_same_as_unfrozen_ones(toy_worlds, tmp_path):
    """Where encoders have no weights, looking once or at every epoch is all the same."""
    start = replace(ppo.DEBUG, env="identity", network=SMALL)
    trained(start, tmp_path / "first")
    settings = replace(start, policy=str(tmp_path / "first"), steps=512)
    free, frozen = (trained(replace(settings, freeze=f), tmp_path / str(f)).state_dict() for f in (False, True))
    assert all(torch.equal(free[key], frozen[key]) for key in free)
    deep = replace(start, network=replace(SMALL, state_layers=(8,)))
    trained(deep, tmp_path / "deep")
    held = trained(replace(deep, policy=str(tmp_path / "deep"), freeze=True, lr=1e-2), tmp_path / "held").state_dict()
    before = checkpoint.load_policy(tmp_path / "deep").state_dict()
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], held[key])} == {"head"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"anchor": 0.1}, "there is none; add --policy RUN"),
        ({"freeze": True, "network": replace(SMALL, memory="gru")}, "--freeze is for policies without memory"),
    ],
)
def test_what_an_anchor_or_a_freeze_needs_is_said(changes, says, toy_worlds, tmp_path):
    with pytest.raises(BadConfig, match=says):
        trained(replace(ppo.DEBUG, **{"env": "identity", "network": SMALL, **changes}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head": "deterministic", "env": "identity-continuous"}, "a policy that draws its actions"),
        ({"head": "q"}, "a policy that draws its actions"),
        ({"log_std": -1.0}, "--log-std is of a gaussian head, this one is categorical"),
        ({"freeze": True, "network": replace(SMALL, normalise=True)}, "a new one knows nothing"),
    ],
)
def test_what_could_not_learn_or_would_be_ignored_is_refused(changes, says, toy_worlds, tmp_path):
    with pytest.raises(BadConfig, match=says):
        trained(replace(ppo.DEBUG, **{"env": "identity", "network": SMALL, **changes}), tmp_path)


def test_who_goes_on_acts_where_it_is_trained_now(tmp_path):
    trained(replace(ppo.DEBUG, env="cartpole", network=SMALL), tmp_path / "first")
    after = trained(
        replace(ppo.DEBUG, env="cartpole:repeat=2", network=SMALL, policy=str(tmp_path / "first")), tmp_path / "second"
    )
    assert after.spec.env == "cartpole:repeat=2"


def test_the_first_steps_after_a_warm_up_are_no_larger_than_any_first_step(toy_worlds, tmp_path, monkeypatch):
    """Adam's memory of the zeros it met by then would make them several times as large."""
    begun = []
    monkeypatch.setattr(Adam, "forget", lambda self, forget=Adam.forget: begun.append(int(self.steps)) or forget(self))
    start = replace(ppo.DEBUG, env="identity", network=SMALL)
    trained(start, tmp_path / "first")
    assert not begun
    settings = replace(start, policy=str(tmp_path / "first"), steps=3 * start.batch, value_warmup=start.batch)
    trained(settings, tmp_path / "warm")
    assert len(begun) == 1
    assert begun[0] > 0


def test_dropout_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="dropout"):
        trained(replace(ppo.DEBUG, network=replace(SMALL, dropout=0.1)), tmp_path)


def test_a_policy_that_acts_otherwise_than_it_learns_is_noticed(toy_worlds, tmp_path, monkeypatch):
    from drivetrain.models.driver import Driver

    honest = Driver.act

    def off(self, *a, **k):
        action, memory, info = honest(self, *a, **k)
        chances = info["chances"]
        return action, memory, {**info, "chances": SimpleNamespace(log_prob=lambda x: chances.log_prob(x) - 0.01)}

    monkeypatch.setattr(Driver, "act", off)
    with pytest.raises(AssertionError, match="first ratio"):
        trained(replace(ppo.DEBUG, env="identity", network=SMALL), tmp_path)


def test_what_is_summed_is_what_is_logged(toy_worlds, tmp_path):
    trained(replace(ppo.DEBUG, env="identity", entropy_weight=0.1, network=SMALL), tmp_path)
    for row in read_metrics(tmp_path):
        assert row["loss"] == pytest.approx(sum(v for k, v in row.items() if k.startswith("loss/")), abs=1e-5)
