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
from drivetrain.models.rssm import Size
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
