"""Searching for plans: where the best is known, against drawing evenly, and in a model that was given by hand."""

import numpy as np
import pytest
import torch

from drivetrain.envs.words import spec_of
from drivetrain.errors import BadConfig
from drivetrain.models import planner as planning
from drivetrain.models.driver import Network
from drivetrain.models.planner import Plan, Planner, evenly, search, weigh
from drivetrain.models.rssm import Size
from drivetrain.models.world import Dreamer
from drivetrain.sample import STATE

SIZE, NETWORK = Size(16, 3, 4, 16), Network(state_layers=(8,), activation="silu")
WANTED = torch.tensor([[0.7, -0.3], [-0.9, 0.1], [0.2, 0.5]])  # [H, A]


def apart(plans):
    return -(plans - WANTED).square().sum((-2, -1))


def found(how, seed=0, **changes):
    plan = Plan(how=how, horizon=3, **{"candidates": 64, "rounds": 4, "best": 8, **changes})
    return search(apart, torch.zeros(1, 3, 2), plan, False, torch.Generator().manual_seed(seed))[0]


@pytest.mark.parametrize("how", ["cem", "mppi"])
def test_a_search_that_learns_from_its_rounds_beats_as_many_drawn_evenly(how):
    mine = [apart(found(how, seed)).item() for seed in range(20)]
    drawn = [apart(found("shooting", seed)).item() for seed in range(20)]
    assert np.mean(mine) > np.mean(drawn) / 4
    assert np.mean(mine) > -0.1


def test_a_search_goes_on_looking_where_all_its_best_agree():
    rounds = []

    def worth(plans):
        rounds.append(plans)
        return -plans.square().sum((-2, -1))

    plan = Plan(how="cem", horizon=1, candidates=64, rounds=3, best=1)
    search(worth, torch.zeros(1, 1, 1), plan, False, torch.Generator().manual_seed(0))
    assert rounds[-1].std().item() == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("env", ["pendulum", "cartpole"])
def test_the_rest_of_a_plan_is_kept_one_step_on(env, monkeypatch):
    policy = Dreamer(spec_of(env), NETWORK, SIZE).eval()
    planner = Planner(policy, Plan(how="cem", horizon=3))
    plan = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]])[..., : policy.world.action]
    monkeypatch.setattr(planning, "search", lambda *given: plan)
    seen = {STATE: np.zeros((1, *spec_of(env).observations[STATE].shape), np.float32)}
    _, memory, info = planner.act(seen, planner.initial(1), greedy=True, generator=torch.Generator())
    assert torch.equal(memory["plan"], torch.cat([plan[:, 1:], planner.blank[:, :1]], 1))
    assert info["raw"].item() == (1 if env == "cartpole" else pytest.approx(0.1))


def test_shooting_takes_the_best_of_all_it_drew():
    plan, begin = Plan(how="shooting", candidates=16, rounds=4), torch.zeros(1, 3, 2)
    drawn = evenly(begin, 64, False, torch.Generator().manual_seed(0))
    assert torch.equal(
        search(apart, begin, plan, False, torch.Generator().manual_seed(0))[0], drawn[0, apart(drawn)[0].argmax()]
    )


@pytest.mark.parametrize("how", ["cem", "mppi", "shooting"])
def test_choices_are_found_and_each_of_a_batch_by_itself(how):
    wanted = torch.tensor([[2, 0, 1], [1, 1, 0]])

    def right(plans):  # [B, N, H, K]
        return (plans.argmax(-1) == wanted[:, None]).float().sum(-1)

    plan = Plan(how=how, horizon=3, candidates=64, rounds=4, best=8)
    got = search(right, torch.full((2, 3, 3), 1 / 3), plan, True, torch.Generator().manual_seed(0))
    assert torch.equal(got.argmax(-1), wanted)


def test_a_plan_begins_at_the_one_before():
    """One round of few plans, none of which can come far: near where it began."""
    plan = Plan(how="cem", horizon=3, candidates=4, rounds=1, best=4)
    begin = torch.full((1, 3, 2), 0.5)
    middle = torch.stack(
        [
            search(lambda p: torch.zeros(p.shape[:2]), begin, plan, False, torch.Generator().manual_seed(i))
            for i in range(200)
        ]
    )
    assert middle.mean().item() > 0.2  # drawn beyond 1 it is cut there


def test_who_earns_more_counts_for_more():
    earned = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert weigh(earned, Plan(how="cem", candidates=4, best=2)).tolist() == [[0, 0, 0.5, 0.5]]
    soft = weigh(earned, Plan(how="mppi", candidates=4, best=2, temperature=0.5))
    z = (earned - 1.5) / earned.std(correction=0)
    torch.testing.assert_close(soft, (z / 0.5).softmax(1))
    torch.testing.assert_close(weigh(earned * 0 + 7, Plan(how="mppi")), torch.full((1, 4), 0.25))


class Given(torch.nn.Module):
    """A head that tells what it was given to tell."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def forward(self, features):
        return self.tell(features)

    mean = forward


def given(reward, goes_on=9.0):
    """A model whose next state is the action, told of by hand."""
    torch.manual_seed(0)
    policy = Dreamer(spec_of("pendulum"), NETWORK, SIZE, gamma=1.0).eval()
    policy.critic = Given(lambda features: torch.zeros(len(features)))
    policy.world.rssm.dream = lambda state, action, generator: state._replace(deterministic=action.expand(-1, 16))
    policy.world.reward = Given(lambda features: reward(features[:, 0]))
    policy.world.goes_on = Given(lambda features: torch.full((len(features), 1), goes_on))
    return policy


@pytest.mark.parametrize("how", ["cem", "mppi", "shooting"])
def test_it_does_what_its_model_says_earns_most(how):
    planner = Planner(given(lambda x: -(x - 0.5).square()), Plan(how=how, horizon=3, candidates=256, rounds=4))
    seen = {STATE: np.array([[1.0, 0.0, 0.0]] * 2, np.float32)}
    memory = planner.initial(2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        action, memory, info = planner.act(seen, memory, greedy=True, generator=generator)
    assert info["raw"][:, 0].tolist() == pytest.approx([0.5, 0.5], abs=0.25)
    np.testing.assert_allclose(action, info["raw"].numpy())  # no transforms were given
    assert memory["plan"].shape == (2, 3, 1)
    assert torch.equal(memory["done"], info["raw"])


def test_what_comes_after_an_end_earns_nothing():
    policy = given(lambda x: torch.ones_like(x), goes_on=-99.0)
    planner = Planner(policy, Plan(how="cem", horizon=5))
    now = policy.world.rssm.initial(1)
    assert planner.earn(now, torch.zeros(1, 2, 5, 1), None).tolist() == [[1.0, 1.0]]
    policy.world.goes_on = Given(lambda features: torch.full((len(features), 1), 99.0))
    assert planner.earn(now, torch.zeros(1, 2, 5, 1), None).tolist() == [[5.0, 5.0]]


def test_where_a_plan_leads_counts_by_what_the_critic_says():
    """Rewards 1, 1, 1, of which each counts half the one before; then 16 an eighth, where it is likely that it goes on."""
    policy = given(lambda x: torch.ones_like(x), goes_on=99.0)
    policy.gamma, policy.critic = 0.5, Given(lambda features: 16 + 0 * features[:, 0])
    planner, now = Planner(policy, Plan(how="cem")), policy.world.rssm.initial(1)
    assert planner.earn(now, torch.zeros(1, 1, 3, 1), None).item() == pytest.approx(1 + 0.5 + 0.25 + 16 / 8)
    policy.world.goes_on = Given(lambda features: torch.full((len(features), 1), -99.0))
    assert planner.earn(now, torch.zeros(1, 1, 3, 1), None).item() == pytest.approx(1)


def test_what_pays_off_after_the_plan_is_planned_for():
    """Nothing is earned on the way; the critic likes one place."""
    policy = given(lambda x: 0 * x)
    policy.critic = Given(lambda features: -(features[:, 0] + 0.5).square())
    planner = Planner(policy, Plan(how="cem", horizon=1, candidates=128, rounds=4))
    seen = {STATE: np.array([[1.0, 0.0, 0.0]], np.float32)}
    _, _, info = planner.act(seen, planner.initial(1), greedy=True, generator=torch.Generator().manual_seed(0))
    assert info["raw"].item() == pytest.approx(-0.5, abs=0.1)


def test_rewards_of_several_worlds_stay_with_their_world():
    policy = given(lambda x: x)
    now = policy.world.rssm.initial(2)
    plans = torch.tensor([[[[0.1]], [[0.2]]], [[[0.3]], [[0.4]]]])
    assert Planner(policy, Plan(how="cem")).earn(now, plans, None).flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3, 0.4]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"how": "best"}, "must be cem, mppi, shooting or empty, got 'best'"),
        ({"how": "cem", "candidates": 4}, "plan.best must be from 1 to 4, got 12"),
        ({"how": "cem", "horizon": 0}, "must be 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(BadConfig, match=words):
        Plan(**changes)


def test_a_policy_without_a_model_cannot_plan():
    with pytest.raises(BadConfig, match="only a policy with a world model can plan"):
        Planner(object(), Plan(how="cem"))
