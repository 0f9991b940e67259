"""Adversarial imitation: its loss by hand, the reward hidden, ends that pay nobody, and demonstrations that teach nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import config
from drivetrain.checkpoint import Randomness
from drivetrain.cli import main
from drivetrain.data.card import thinned
from drivetrain.data.open import open_dataset
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import make_env, spec_of
from drivetrain.errors import BadConfig, BadData, UnknownName
from drivetrain.models.driver import Network, build_policy
from drivetrain.run import Run
from drivetrain.sample import ACTION, FRONT, OVER, STATE, TERMINATED, TRUNCATED, Feature, Spec
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.il import gail

LEAN = Network(hidden=(), activation="relu")
NUMBERS = Spec({STATE: Feature((2,)), ACTION: Feature((1,), low=-1.0, high=1.0)}, "go", 10.0)


def judge_of(weights, spec=NUMBERS):
    """A discriminator that says the weighted sum of its pair."""
    judge = gail.Discriminator(build_policy(spec, LEAN, "deterministic"), ())
    (weight,), (bias,) = judge.net.weights, judge.net.biases
    weight.data, bias.data = torch.tensor([weights]), torch.zeros(1)
    return judge


def test_the_loss_is_the_sum_done_by_hand():
    """Demonstrated pairs say 1 and 2, the policy's 0 and -1; the slope is (3, 4, 0) everywhere, whose length is 5."""
    judge = judge_of([3.0, 4.0, 0.0])
    theirs = torch.tensor([[1 / 3, 0, 7.0], [0, 1 / 2, 7.0]])
    ours = torch.tensor([[0, 0, 7.0], [-1 / 3, 0, 7.0]])
    found = gail.losses(judge, theirs, ours, gail.Config(penalty=10.0), torch.Generator().manual_seed(0))
    demonstrated = [math.log(1 + math.exp(-said)) for said in (1, 2)]
    own = [math.log(1 + math.exp(said)) for said in (0, -1)]
    assert found["loss/judge"].item() == pytest.approx((np.mean(demonstrated) + np.mean(own)) / 2, rel=1e-5)
    assert found["loss/penalty"].item() == pytest.approx(10 * (5 - 1) ** 2, rel=1e-5)
    assert found["watch/told_apart"].item() == 0.75


def test_the_penalty_bends_the_discriminator():
    """Its slope by the weights is that of finite differences: it is a slope of a slope."""
    torch.manual_seed(0)
    judge = gail.Discriminator(build_policy(NUMBERS, LEAN, "deterministic"), (8, 8)).double()
    theirs, ours = torch.randn(4, 3, dtype=torch.double), torch.randn(4, 3, dtype=torch.double)

    def penalty():
        found = gail.losses(judge, theirs, ours, gail.Config(penalty=10.0), torch.Generator().manual_seed(0))
        return found["loss/penalty"]

    weight = judge.net.weights[0]
    (slope,) = torch.autograd.grad(penalty(), weight)
    for at in ((0, 0), (3, 1), (7, 2)):
        sides = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                weight[at] += step
            sides.append(penalty().item())
        with torch.no_grad():
            weight[at] += 1e-5
        assert slope[at].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=1e-7)
    assert slope.abs().max() > 0.01


def test_rewards_are_those_of_the_papers():
    judge, seen, done = judge_of([1.0, 0.0, 0.0]), {STATE: torch.tensor([[[2.0, 0.0]]])}, torch.zeros(1, 1)
    chance = 1 / (1 + math.exp(-2))
    wanted = {"both": 2.0, "positive": -math.log(1 - chance), "negative": math.log(chance)}
    for form, value in wanted.items():
        assert judge.reward(seen, done, form).item() == pytest.approx(value, rel=1e-5)


def test_where_all_is_over_it_counts_for_nothing_what_is_done():
    spec = replace(NUMBERS, features={**NUMBERS.features, OVER: Feature((1,))})
    judge = judge_of([0.0, 0.0, 0.0, 1.0], spec)
    for over, said in ((0.0, 0.5), (1.0, 0.0)):
        seen = {STATE: torch.zeros(1, 1, 2), OVER: torch.tensor([[[over]]])}
        assert judge.reward(seen, torch.tensor([[0.5]]), "both").item() == said


def test_an_end_becomes_a_place_where_one_stays():
    plain, absorbing = make_env("cartpole"), make_env("cartpole:absorb=2")
    for env in (plain, absorbing):
        env.reset(seed=3)
    terminated = False
    while not terminated:
        seen, _, terminated, _, _ = plain.step(1)
        mine, reward, *ends, _ = absorbing.step(1)
        assert (reward, ends) == (1.0, [False, False])
        if not terminated:
            np.testing.assert_array_equal(mine[STATE], seen[STATE])
            assert mine[OVER] == [0]
    assert not mine[STATE].any()
    assert mine[OVER] == [1]
    after = [absorbing.step(0) for _ in range(2)]
    assert [reward for _, reward, *_ in after] == [0.0, 0.0]
    assert [(terminated, truncated) for _, _, terminated, truncated, _ in after] == [(False, False), (False, True)]
    seen, _ = absorbing.reset(seed=3)
    assert seen[OVER] == [0]
    assert seen[STATE].any()


def test_a_time_limit_is_no_such_place(toy_worlds):
    env = make_env("constant:length=3,absorb=2")
    env.reset(seed=0)
    went = [env.step(0) for _ in range(3)]
    assert [(float(seen[OVER][0]), terminated, truncated) for seen, _, terminated, truncated, _ in went] == [
        (0.0, False, False),
        (0.0, False, False),
        (0.0, False, True),
    ]


def test_the_discriminator_sees_both_sides_by_one_scale(toy_worlds):
    settings = replace(IDENTITY, dataset="shown-continuous", judge_batch=256)
    spec, data = spec_of(settings.env), gail.given(settings)
    policy = build_policy(spec, settings.network, "squashed")
    contest = gail.Contest(settings, policy, gail.Demonstrations(data, policy, spec), Randomness(0))
    (key,) = policy.keys
    width = spec.observations[key].shape[0]
    for at in range(20):
        contest.improve({key: 5 + torch.zeros(256, 1, width)}, torch.zeros(256, 1), at)
    shown = contest.demonstrations.batch(256, at=0, seed=0)[0]
    sides = [contest.judge.pair({key: x}, torch.zeros(256, 1))[:, :-1].mean() for x in (shown[key], 5 + 0 * shown[key])]
    assert float(sum(sides)) == pytest.approx(0, abs=0.3)
    assert float(sides[1]) == pytest.approx(1, abs=0.2)


def test_where_all_is_over_nothing_of_before_is_seen_in_a_stack_either():
    env = make_env("cartpole:absorb=2,stack=3")
    env.reset(seed=3)
    for _ in range(40):
        seen = env.step(1)[0]
        assert seen[OVER].shape == (1,)
        if seen[OVER][0]:
            break
    assert seen[STATE].shape == (12,)
    assert not seen[STATE].any()
    data = gail.given(replace(gail.DEBUG, env="cartpole:absorb=2,stack=3", generator="ppo"))
    spec = spec_of("cartpole:absorb=2,stack=3")
    shown = gail.Demonstrations(data, build_policy(spec, LEAN, "categorical"), spec)
    pair = gail.Discriminator(build_policy(spec, LEAN, "categorical"), ()).pair(*shown.batch(8, at=0, seed=0))
    assert pair.shape == (8, 12 + 1 + 2)


def test_worlds_that_stack_by_themselves_have_demonstrations_of_single_pictures():
    data = gail.given(replace(gail.DEBUG, env="cartpole-pixels:absorb=2", generator="ppo"))
    assert data.spec.observations[FRONT].shape[-1] == 6


def test_demonstrations_end_in_that_place_too(toy_worlds):
    spec = spec_of("cartpole:absorb=2")
    data = open_dataset("fake", spec_of("cartpole"))
    shown = gail.Demonstrations(data, build_policy(spec, LEAN, "categorical"), spec, stays=2)
    ends = 2 * int(data.values("next.terminated").sum())  # as often as the policy is seen there
    assert (ends > 0, len(shown)) == (True, len(data) + ends)
    seen, _ = shown.batch(len(shown), at=0, seed=0)
    over = seen[OVER].flatten().bool()
    assert over.sum() == ends
    assert not seen[STATE][over].any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"env": "cartpole", "generator": "ppo"}, "add absorb=5 to --env, or say --ends-too"),
        ({"network": replace(LEAN, memory="gru")}, "has no memory"),
        ({"network": replace(LEAN, dropout=0.1)}, "network.dropout 0"),
        ({"clone": -1.0}, "--clone must be 0 or more, got -1.0"),
    ],
)
def test_what_would_mislead_is_refused(changes, says):
    with pytest.raises(BadConfig, match=says):
        gail.given(replace(gail.DEBUG, **changes))


def test_who_cannot_see_that_all_is_over_is_no_beginning(tmp_path):
    blind = gail.sac.DEBUG  # in pendulum, whose ends it never saw
    run = Run(tmp_path / "blind", checkpoint_every=10**9, quiet=True)
    run.begin("sac", config.to_json(blind))
    gail.sac.train(blind, run)
    with pytest.raises(BadConfig, match="does not see where all is over"):
        trained(replace(gail.DEBUG, policy=str(tmp_path / "blind")), tmp_path / "run")


def test_names_that_are_none_are_refused():
    with pytest.raises(UnknownName):
        gail.given(replace(gail.DEBUG, generator="sacc"))
    with pytest.raises(UnknownName):
        gail.given(replace(gail.DEBUG, reward="neither"))


def test_a_world_that_only_random_players_end_is_refused_too(tmp_path):
    """A demonstrator who never drops the pole hides that it can be dropped."""
    shown = str(tmp_path / "shown")
    assert main(["collect", "--env", "cartpole", "--by", "cartpole", "--episodes", "2", "--output-dir", shown]) == 0
    with pytest.raises(BadConfig, match="who acts at random"):
        gail.given(replace(gail.DEBUG, generator="ppo", dataset=shown, env="cartpole"))
    assert gail.given(replace(gail.DEBUG, generator="ppo", dataset=shown, env="cartpole:absorb=5")).episodes == 2


def test_nobody_sees_the_worlds_reward():
    worlds = gail.Hidden("cartpole", 2)
    worlds.rebuild(0)
    went = [worlds.step(np.ones(2, dtype=int)) for _ in range(30)]
    assert not any(step.reward.any() for step in went)
    assert all(done.total == done.length > 0 for done in worlds.finished())
    worlds.judge = lambda seen, done: seen[STATE][:, 0]
    before = worlds.seen[STATE][:, 0].copy()
    np.testing.assert_array_equal(worlds.step(np.ones(2, dtype=int)).reward, before)
    worlds.close()


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("gail", config.to_json(settings))
    return gail.train(settings, run)


IDENTITY = gail.Config(
    env="identity-continuous",
    steps=1_500,
    gamma=0.5,
    judge_lr=3e-3,
    judge_batch=64,
    judge_hidden=(32,),
    sac=gail.Sac(warmup=100, batch_size=64, lr=5e-3, actor_lr=5e-3, alpha=0.1),
    network=Network(hidden=(16,), activation="relu"),
)


def test_cloning_beside_walks_towards_the_demonstrations(toy_worlds):
    torch.manual_seed(0)
    settings = replace(IDENTITY, dataset="shown-continuous", clone=2.0)
    spec, data = spec_of(settings.env), gail.given(settings)
    policy = build_policy(spec, settings.network, "squashed")
    contest = gail.Contest(settings, policy, gail.Demonstrations(data, policy, spec), Randomness(0))
    cloning = gail.Cloning(contest, Flat(policy.head.parameters()), 5e-3)
    apart = [float(cloning.step(at)["loss/clone"]) for at in range(300)]
    assert apart[-1] < apart[0] / 20
    contest.config = replace(settings, clone=0.0)
    assert (cloning.step(0), cloning.parts()) == ({}, {})


@pytest.mark.parametrize("anneal", [True, False])
def test_with_the_generators_the_discriminators_learning_rate_falls(anneal, toy_worlds, tmp_path, monkeypatch):
    rates = []
    step = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: rates.append(self.lr) or step(self))
    by_sac = replace(IDENTITY.sac, warmup=4, lr=0.4, actor_lr=0.2, anneal=anneal)
    settings = replace(IDENTITY, dataset="shown-continuous", clone=2.0, steps=8, judge_lr=0.8, sac=by_sac)
    trained(settings, tmp_path)
    left = np.array([0.5, 0.375, 0.25, 0.125]) if anneal else np.ones(4)
    each = np.array([0.8, 0.4, 0.4, 0.2, 0.4])  # discriminator, cloning, critics, actor, temperature
    np.testing.assert_allclose(np.reshape(rates, (4, 5)), left[:, None] * each)


@pytest.mark.parametrize("anneal", [True, False])
def test_so_it_does_with_ppo(anneal, tmp_path, monkeypatch):
    rates = []
    improve = gail.Contest.improve
    monkeypatch.setattr(gail.Contest, "improve", lambda self, *a: rates.append(self.optimizer.lr) or improve(self, *a))
    by_ppo = gail.Ppo(rollout=8, epochs=1, minibatch=8, anneal=anneal)
    settings = replace(gail.DEBUG, generator="ppo", worlds=1, steps=32, judge_every=8, judge_lr=0.8, ppo=by_ppo)
    trained(settings, tmp_path)
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2] if anneal else [0.8] * 4)


def test_where_all_is_over_nothing_is_cloned():
    """The distance is of what was done, also where most of the pairs are ends, where nothing is."""
    spec = spec_of("pendulum:absorb=2")
    policy = build_policy(spec, LEAN, "squashed")
    shown = gail.Demonstrations(open_dataset("fake", spec_of("pendulum")), policy, spec)
    contest = gail.Contest(gail.DEBUG, policy, shown, Randomness(0))
    seen = {STATE: torch.zeros(4, 1, 3), OVER: torch.tensor([0.0, 1, 1, 1]).view(4, 1, 1)}
    shown.batch = lambda size, *, at, seed: (seen, torch.tensor([[0.5], [9.0], [9.0], [9.0]]))
    features, _ = policy.features(seen, {}, torch.zeros(4, 1, dtype=torch.bool))
    wanted = (policy.head(features[:1, 0]).mode() - 0.5).square().sum()
    torch.testing.assert_close(contest.unlike(0), wanted)


@pytest.mark.slow
def test_of_a_demonstrator_who_acts_at_random_nothing_is_learned(toy_worlds, tmp_path):
    """The control that must fail, beside the same from somebody who knows what to do and has a return of 0."""
    got = {}
    for shown in ("shown-continuous", "tried-continuous"):
        policy = trained(replace(IDENTITY, dataset=shown), tmp_path / shown)
        got[shown] = np.mean([episode.total for episode in rollout(policy, policy.spec.env, range(50))])
    assert got["tried-continuous"] < -4 < -1.5 < got["shown-continuous"]


def test_a_subset_is_every_so_many_steps_of_some_episodes(tmp_path, capsys):
    whole, few = tmp_path / "whole", tmp_path / "few"
    assert main(["collect", "--env", "pendulum", "--by", "random", "--episodes", "3", "--output-dir", str(whole)]) == 0
    flags = ["--dataset", str(whole), "--episodes", "2", "--every", "20", "--output-dir", str(few)]
    assert main(["collect", "--as", "subset", *flags]) == 0
    assert "2 episodes, 20 frames" in capsys.readouterr().out
    source, kept = open_dataset(str(whole)), open_dataset(str(few))
    for number in range(2):
        place = [
            np.flatnonzero((source.episode(number)[STATE] == row).all(1))[0] for row in kept.episode(number)[STATE]
        ]
        assert np.diff(place).tolist() == [20] * 9
    assert main(["collect", "--as", "subset", "--dataset", str(whole), "--episodes", "9", "--output-dir", "x"]) == 2


def test_an_end_that_a_subset_leaves_out_is_no_end_of_it(tmp_path):
    whole = str(tmp_path / "whole")
    assert main(["collect", "--env", "cartpole", "--by", "random", "--episodes", "6", "--output-dir", whole]) == 0
    flags = ["--dataset", whole, "--episodes", "6", "--every", "2", "--output-dir", str(tmp_path / "few")]
    assert main(["collect", "--as", "subset", *flags]) == 0
    source, kept, seen = open_dataset(whole), open_dataset(str(tmp_path / "few")), set()
    for number in range(6):
        ours, theirs = kept.episode(number), source.episode(number)
        last = bool((ours[STATE][-1] == theirs[STATE][-1]).all())
        assert (bool(ours[TERMINATED][-1]), bool(ours[TRUNCATED][-1])) == (last, not last)
        assert not ours[TERMINATED][:-1].any()
        assert not ours[TRUNCATED][:-1].any()
        seen.add(last)
    assert seen == {True, False}
    spec = spec_of("cartpole:absorb=3")
    settings = replace(gail.DEBUG, dataset=str(tmp_path / "few"), env=spec.env, generator="ppo")
    shown = gail.shown(settings, kept, build_policy(spec, LEAN, "categorical"), gail.Hidden(spec.env, 1))
    assert (len(shown), int(shown.over.sum())) == (2 * len(kept) + 3 * 6, 3 * 6), (
        "each counts for two, an end for three"
    )
    with pytest.raises(BadData, match="give that one alone"):
        thinned(f"{tmp_path / 'few'},{whole}")
    card = tmp_path / "few" / "meta" / "card.json"
    card.write_text(card.read_text().replace('"ends"', '"end"'))
    with pytest.raises(BadData, match="make it anew"):
        thinned(str(tmp_path / "few"))
    assert thinned(whole) == (1, 0)
