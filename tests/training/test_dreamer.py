"""Dreamer: lambda-returns by hand, what an end is and what a time limit is, and worlds that teach nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import config
from drivetrain.checkpoint import Randomness
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import spec_of
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.models.rssm import BINS, Size, bins, symlog, two_hot
from drivetrain.models.world import Bounded, Dreamer, Picture
from drivetrain.run import Run
from drivetrain.sample import ACTION, INSTRUCTION, STATE, Feature, Spec
from drivetrain.training.world_model import dreamer

SIZE, NETWORK = Size(16, 3, 4, 16), Network(state_layers=(8,), activation="silu")


def learner(env="cartpole", **changes):
    settings = replace(dreamer.DEBUG, env=env, **changes)
    torch.manual_seed(0)
    return dreamer.Learner(Dreamer(spec_of(env), NETWORK, SIZE), settings, Randomness(0))


def test_lambda_returns_are_the_sum_done_by_hand():
    reward, value = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0], [10.0], [20.0], [30.0]])
    discount = torch.tensor([[0.5], [0.0], [0.9]])
    third = 3 + 0.9 * 30
    second = 2.0
    first = 1 + 0.5 * (0.2 * 10 + 0.8 * second)
    assert dreamer.lambda_returns(reward, value, discount, 0.8).flatten().tolist() == pytest.approx(
        [first, second, third]
    )


def batch(count=2, length=4):
    random = torch.Generator().manual_seed(0)
    first = torch.zeros(count, length + 1, dtype=torch.bool)
    first[:, 0] = True
    return {
        STATE: torch.randn(count, length + 1, 4, generator=random),
        ACTION: torch.randint(2, (count, length), generator=random),
        "reward": torch.ones(count, length),
        "terminated": torch.zeros(count, length, dtype=torch.bool),
        "valid": torch.ones(count, length, dtype=torch.bool),
        "is_first": first,
    }


def saying(head, where):
    """Chances around one of its values, which what it is shown moves."""
    head.net[-1].bias.data = -((torch.arange(BINS) - where) ** 2) / 8.0
    torch.nn.init.normal_(head.net[-1].weight, std=0.3)


def test_what_a_dream_teaches_is_the_sum_done_by_hand(monkeypatch):
    mine = learner(entropy_weight=0.5, gamma=0.9, gae_lambda=0.7)
    for head, where in ((mine.world.reward, 131), (mine.critic, 134), (mine.slow, 129)):
        saying(head, where)
    features = torch.randn(3, 2, mine.world.rssm.width)
    likely, entropy = -torch.rand(2, 2), torch.rand(2, 2)
    monkeypatch.setattr(dreamer, "dreamed", lambda learner, state: dreamer.Dream(features, likely, entropy))
    mine.range = torch.tensor([0.0, 4.0])
    found = dreamer.dream_losses(mine, None, torch.tensor([True, False]))  # the second began at an end
    reward, value = mine.world.reward.mean(features), mine.critic.mean(features)
    on = mine.world.goes_on(features)[..., 0].sigmoid()
    second = reward[2] + 0.9 * on[2] * value[2]
    first = reward[1] + 0.9 * on[1] * (0.3 * value[1] + 0.7 * second)
    returns = torch.stack([first, second])
    weight = torch.stack([torch.ones(2), 0.9 * on[1]]) * torch.tensor([1.0, 0.0])
    spread = torch.quantile(returns.flatten(), torch.tensor([0.05, 0.95]))
    torch.testing.assert_close(mine.range, 0.99 * torch.tensor([0.0, 4.0]) + 0.01 * spread)
    gain = likely * (returns - value[:-1]) / (mine.range[1] - mine.range[0]) + 0.5 * entropy
    torch.testing.assert_close(found["loss/actor"], -(weight * gain).mean())
    told = two_hot(returns, bins()) + two_hot(mine.slow.mean(features[:-1]), bins())
    wanted = -(weight * (told * mine.critic(features[:-1])).sum(-1)).mean()
    torch.testing.assert_close(found["loss/critic"], wanted)


@pytest.mark.parametrize("env", ["cartpole", "pendulum"])
def test_a_dream_tells_what_its_actor_thought_of_what_it_did(env, monkeypatch):
    mine, done = learner(env), []
    remember = mine.world.done
    monkeypatch.setattr(mine.world, "done", lambda action: done.append(action) or remember(action))
    state = mine.world.rssm.initial(3)
    dream = dreamer.dreamed(mine, state)
    chances = mine.policy.actor(dream.features[:-1])
    torch.testing.assert_close(dream.log_prob, chances.log_prob(torch.stack(done)))
    torch.testing.assert_close(dream.entropy, chances.entropy())
    wanted = list(mine.policy.actor.parameters())
    slopes = [torch.autograd.grad(x.sum(), wanted) for x in (dream.log_prob, chances.log_prob(torch.stack(done)))]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert not dream.features.requires_grad


def test_where_nothing_ends_it_goes_on_and_the_slow_critic_follows():
    mine = learner(tau=0.5, actor_lr=0.1)
    mine.world.goes_on[-1].bias.data[:] = 20.0
    assert dreamer.losses(mine, batch())[0]["loss/goes_on"].item() < 1e-3
    before = [p.clone() for p in mine.slow.parameters()]
    mine.update(batch())
    for old, slow, fast in zip(before, mine.slow.parameters(), mine.critic.parameters(), strict=True):
        torch.testing.assert_close(slow, old.lerp(fast, 0.5))


def test_numbers_are_seen_and_told_by_their_symlog():
    world = learner().world
    seen = {STATE: torch.tensor([[[0.0, 9.0, -50.0, 1e4]]])}
    world.encoders[0] = torch.nn.Identity()
    torch.testing.assert_close(world.embed(seen), symlog(seen[STATE]))
    world.tell[0] = torch.nn.Identity()
    assert world.unlike(symlog(seen[STATE]), seen).item() == pytest.approx(0, abs=1e-6)


def test_acting_carries_what_a_recording_says():
    """Step by step it comes by the same states as along the recording of what was seen and done."""
    policy = learner().policy.eval()
    policy.world.rssm.draw = lambda chances, generator: chances.flatten(-2)  # no chance in it
    seen, memory, done, held = torch.randn(1, 4, 4), policy.initial(1), [], []
    for t in range(4):
        _, memory, info = policy.act({STATE: seen[:, t].numpy()}, memory, greedy=True, generator=None)
        done.append(policy.world.done(info["raw"]))
        held.append(memory["deterministic"])
    before = torch.stack([torch.zeros(1, 2), *done[:-1]], 1)
    found = policy.world.look({STATE: seen}, before, torch.tensor([[True, False, False, False]]), None)
    torch.testing.assert_close(torch.stack(held, 1), found.state.deterministic)


def test_every_choice_of_an_actor_stays_possible():
    actor = learner().policy.actor
    actor.net[-1].bias.data = torch.tensor([1e4, 0.0])
    width = actor.net[0][0].in_features
    assert actor(torch.zeros(1, width)).logits.exp().min().item() == pytest.approx(0.01 / 2, rel=1e-3)


def test_what_leads_to_another_episode_teaches_neither_reward_nor_end():
    mine, told = learner(), batch()
    told["valid"][0, 1], told["is_first"][0, 2] = (
        False,
        True,
    )  # the step from an episode's last picture to the next one's first
    found = []
    for reward, over in ((1.0, False), (99.0, True)):
        told["reward"][0, 1], told["terminated"][0, 1] = reward, over
        mine.random = Randomness(0)
        parts, _, alive = dreamer.losses(mine, told)
        found.append((parts["loss/reward"].item(), parts["loss/goes_on"].item(), alive.tolist()))
    assert found[0] == found[1]


def test_a_state_that_is_an_end_counts_for_nothing_in_a_dream():
    mine = learner()
    told = batch()
    told["terminated"][0, 3] = True
    _, state, alive = dreamer.losses(mine, told)
    assert alive.tolist() == [True] * 4 + [False] + [True] * 5
    nothing = dreamer.dream_losses(mine, state, torch.zeros_like(alive))
    assert nothing["loss/actor"].item() == nothing["loss/critic"].item() == 0


def test_the_model_learns_nothing_from_dreams_and_the_actor_nothing_from_what_is_seen():
    mine = learner()
    parts, state, alive = dreamer.losses(mine, batch())
    dreams = dreamer.dream_losses(mine, state, alive)

    def reached(loss, module):
        slopes = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)
        return any(slope is not None and slope.abs().sum() > 0 for slope in slopes)

    assert not reached(dreams["loss/actor"] + dreams["loss/critic"], mine.world)
    assert reached(dreams["loss/actor"], mine.policy.actor)
    assert not reached(dreams["loss/actor"], mine.critic)
    assert reached(dreams["loss/critic"], mine.critic)
    assert reached(parts["loss/seen"], mine.world)
    assert not reached(parts["loss/seen"] + parts["loss/reward"], mine.policy.actor)


def test_returns_are_measured_by_their_range_where_it_is_above_one():
    mine = learner()
    _, state, alive = dreamer.losses(mine, batch())
    losses = []
    for spread in (0.5, 1.0, 10.0):
        mine.range = torch.tensor([0.0, spread])
        mine.random = Randomness(0)
        mine.config = replace(mine.config, entropy_weight=0.0)
        losses.append(dreamer.dream_losses(mine, state, alive)["loss/actor"].item())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[1] == pytest.approx(10 * losses[2], rel=0.02)


def test_a_bounded_actor_stays_within_its_deviations():
    policy = Dreamer(spec_of("pendulum"), NETWORK, SIZE)
    chances = policy.actor(100 * torch.randn(500, policy.world.rssm.width))
    assert isinstance(chances, Bounded)
    assert (chances.mean.abs() <= 1).all()
    assert ((chances.std >= 0.1) & (chances.std <= 1.0)).all()
    drawn = chances.sample(torch.Generator().manual_seed(0))
    assert torch.equal(policy.world.done(drawn), drawn.clamp(-1, 1))


@pytest.mark.parametrize("shape", [(96, 96, 3), (40, 150, 6)])
def test_a_picture_comes_back_in_its_own_shape(shape):
    assert Picture(12, shape)(torch.randn(2, 3, 12)).shape == (2, 3, *shape)


def test_a_memory_or_a_backbone_of_another_kind_is_refused():
    with pytest.raises(BadConfig, match="leave memory and backbone out"):
        Dreamer(spec_of("cartpole"), replace(NETWORK, memory="gru"), SIZE)


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("dreamer", config.to_json(settings))
    return dreamer.train(settings, run)


CONTROL = dreamer.Config(
    env="identity",
    steps=3_000,
    warmup=200,
    train_every=4,
    length=8,
    lr=3e-3,
    actor_lr=3e-3,
    dream=4,
    gamma=0.5,
    size=Size(32, 4, 4, 32),
    network=Network(state_layers=(16,), activation="silu"),
)


@pytest.mark.slow
def test_a_model_that_is_told_other_actions_than_were_taken_teaches_nothing(toy_worlds, tmp_path, monkeypatch):
    """The control, beside the same with the true ones."""

    def mean(folder):
        policy = trained(CONTROL, folder)
        return np.mean([episode.total for episode in rollout(policy, "identity", range(50))])

    true = mean(tmp_path / "true")
    remember, deal = dreamer.Replay.batch, np.random.default_rng(0)

    def dealt(self, size, generator):
        found = remember(self, size, generator)
        return {**found, ACTION: deal.permuted(found[ACTION], axis=0)}

    monkeypatch.setattr(dreamer.Replay, "batch", dealt)
    assert mean(tmp_path / "dealt") < 5.6 < 6.5 < true  # two of three signs, at most


def test_an_observation_that_is_a_choice_is_told_as_one():
    """Each of its five values is another thing to see, and how unlikely the right one was is what is learned from."""
    spec = Spec(
        {STATE: Feature((2,)), INSTRUCTION: Feature((), "int64", choices=5), ACTION: Feature((1,), low=-1.0, high=1.0)}
    )
    torch.manual_seed(0)
    world = Dreamer(spec, NETWORK, SIZE).world
    seen = {STATE: torch.zeros(1, 5, 2), INSTRUCTION: torch.arange(5)[None]}
    assert len({tuple(row.tolist()) for row in world.embed(seen)[0]}) == 5
    for part in world.tell:
        for p in part.parameters():
            torch.nn.init.zeros_(p)
    features = torch.zeros(1, 5, world.rssm.width)
    torch.testing.assert_close(world.unlike(features, seen), torch.full((1, 5), math.log(5)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"warmup": 10}, "--warmup 10 is too few for 2 worlds, say 12 or more"),
        ({"dream": 0}, "--dream, --length and --train-every must be 1 or more, got 0"),
        ({"network": replace(NETWORK, normalise=True)}, "leave network.normalise"),
        ({"network": replace(NETWORK, hidden=(7,))}, "network.hidden out"),
    ],
)
def test_settings_that_would_be_ignored_or_leave_nothing_to_learn_from_are_refused(changes, says, tmp_path):
    with pytest.raises(BadConfig, match=says):
        dreamer.train(replace(dreamer.DEBUG, **changes), Run(tmp_path, quiet=True))


@pytest.mark.parametrize(("worlds", "every"), [(1, 4), (4, 3), (3, 7)])
def test_rounds_come_as_often_as_was_said_however_many_worlds(worlds, every, tmp_path, monkeypatch):
    count = []
    monkeypatch.setattr(dreamer.Learner, "update", lambda self, batch: count.append(1) or {"loss": torch.zeros(())})
    settings = replace(dreamer.DEBUG, steps=120, worlds=worlds, train_every=every, warmup=24)
    dreamer.train(settings, Run(tmp_path, quiet=True))
    assert abs(len(count) - 96 / every) <= 1 + worlds / every
