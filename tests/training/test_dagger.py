"""Dataset aggregation: the mixture, what it writes, and that it mends what cloning alone does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys

from drivetrain import config
from drivetrain.data.open import open_dataset
from drivetrain.envs.rollout import RandomActor, rollout
from drivetrain.envs.words import spec_of
from drivetrain.errors import BadConfig, BadData
from drivetrain.experts.choosing import find_expert
from drivetrain.models.driver import Network
from drivetrain.run import Run, read_metrics
from drivetrain.sample import ACTION, EXPERT_ACTED, EXPERT_ACTION, STATE
from drivetrain.training.il import bc, dagger
from drivetrain.training.il.dagger import Config, Mixture, Rounds, summary

SMALL = Network(hidden=(16,), activation="relu", camera_width=16)
TOY = Config(dataset="", env="identity", steps=60, round_steps=20, episodes=4, held_out=0.25, network=SMALL)


def trained(settings, folder, every=10**9):
    run = Run(folder, checkpoint_every=every, quiet=True)
    run.begin("dagger", config.to_json(settings))
    return dagger.train(settings, run)


def played(settings, folder, number, policy):
    rounds = Rounds(settings, settings.env, folder)
    rounds.play(number, policy)
    return rounds.open(number)


class Remembers:
    """Somebody whose memory counts the steps."""

    privileged = False

    def __init__(self, spec, by=1.0):
        self.spec, self.by, self.told = spec, by, []

    def initial(self, batch_size):
        return {"steps": torch.zeros(batch_size)}

    def act(self, observation, memory, *, greedy, generator):
        self.told.append(memory["steps"].tolist())
        return np.zeros(len(memory["steps"]), np.int64), {"steps": memory["steps"] + self.by}, {}


@pytest.mark.parametrize("env", ["identity", "identity-continuous"])
@pytest.mark.parametrize(("number", "share"), [(0, 1.0), (1, 0.6), (2, 0.36)])
def test_the_experts_share_falls_by_the_power_of_the_round(env, number, share, toy_worlds, tmp_path):
    settings = replace(TOY, env=env, beta=0.6, episodes=60)
    data = played(settings, tmp_path, number, RandomActor(spec_of(env)))
    acted, done, meant = (data.values(key) for key in (EXPERT_ACTED, ACTION, EXPERT_ACTION))
    assert data.episodes == 60
    assert acted.mean() == pytest.approx(share, abs=0.06)
    np.testing.assert_array_equal(done[acted], meant[acted])
    seen = data.values(STATE)
    np.testing.assert_allclose(meant, seen.argmax(-1) if env == "identity" else 2 * seen)
    assert np.array_equal(data.as_meant().values(ACTION), meant)
    assert EXPERT_ACTED not in data.as_meant().spec.features


def test_the_choice_is_made_step_by_step_and_not_for_an_episode(toy_worlds, tmp_path):
    data = played(replace(TOY, episodes=20), tmp_path, 1, RandomActor(spec_of("identity")))
    mixed = [0 < data.episode(i)[EXPERT_ACTED].mean() < 1 for i in range(20)]
    assert sum(mixed) > 15


def test_without_a_share_the_policy_acts_alone_from_the_first_round(toy_worlds, tmp_path):
    policy = RandomActor(spec_of("identity"))
    assert played(replace(TOY, beta=0.0), tmp_path, 0, policy).values(EXPERT_ACTED).all()
    assert not played(replace(TOY, beta=0.0), tmp_path, 1, policy).values(EXPERT_ACTED).any()


def test_both_remember_every_step_whoever_acts(toy_worlds):
    spec = spec_of("identity")
    expert, policy = Remembers(spec), Remembers(spec, by=10.0)
    list(rollout(Mixture(expert, policy, 0.5), "identity", [1, 2], generator=torch.Generator().manual_seed(0)))
    assert expert.told == [[float(step)] * 2 for step in range(toys.STEPS)]
    assert policy.told == [[10.0 * step] * 2 for step in range(toys.STEPS)]


def test_the_summary_is_a_sum_done_by_hand(toy_worlds, tmp_path):
    data = played(replace(TOY, env="identity-continuous"), tmp_path, 1, RandomActor(spec_of("identity-continuous")))
    said, acted = summary(data), data.values(EXPERT_ACTED)
    assert said["expert/share"] == pytest.approx(acted.mean())
    off = np.abs(data.values(ACTION) - data.values(EXPERT_ACTION))[~acted]
    assert said["visited/error"] == pytest.approx(off.mean() / 3)  # half of the range from -2 to 4
    totals = [data.episode(i)["next.reward"].sum() for i in range(data.episodes)]
    assert said["return"] == pytest.approx(np.mean(totals), rel=1e-5)


def test_a_round_of_the_expert_alone_says_nothing_of_the_policy(toy_worlds, tmp_path):
    said = summary(played(TOY, tmp_path, 0, RandomActor(spec_of("identity"))))
    assert said == {"return": 8.0, "expert/share": 1.0}


def test_episodes_are_of_their_own_seeds(toy_worlds, tmp_path):
    """No two alike, in whatever round, and none that an evaluation could meet."""
    policy, firsts = RandomActor(spec_of("identity-continuous")), []
    for seed in (0, 1):
        for number in (0, 1, 2):
            settings = replace(TOY, env="identity-continuous", seed=seed)
            data = played(settings, tmp_path / str(seed), number, policy)
            firsts += [float(data.episode(i)[STATE][0, 0]) for i in range(data.episodes)]
    for seed in range(10_000):
        world = np.random.default_rng(np.random.PCG64(np.random.SeedSequence(seed)))
        firsts.append(float(np.float32(world.uniform(-1, 1))))
    assert len(set(firsts)) > len(firsts) - 10, "float32 has some equal neighbours, but no more"
    assert len(set(firsts[:24])) == 24
    assert not set(firsts[:24]) & set(firsts[24:])


def test_an_interrupted_round_goes_on_after_its_last_whole_episode(toy_worlds, tmp_path, monkeypatch):
    policy = RandomActor(spec_of("identity"))
    whole = played(TOY, tmp_path / "whole", 1, policy)
    rounds, count = Rounds(TOY, "identity", tmp_path / "cut"), []

    def dies(*arguments, **options):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return rollout(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(dagger, "rollout", dies)
        with pytest.raises(KeyboardInterrupt):
            rounds.play(1, policy)
    with pytest.raises(BadData, match="2 episodes of an interrupted collection"):
        rounds.open(1)
    rounds.play(1, policy)
    assert rounds.open(1).fingerprint() == whole.fingerprint()


def test_every_round_is_kept_and_all_of_them_are_learned_from(toy_worlds, tmp_path, monkeypatch):
    sizes, joined = [], dagger.together
    monkeypatch.setattr(dagger, "together", lambda parts: sizes.append([p.episodes for p in parts]) or joined(parts))
    trained(TOY, tmp_path)
    assert sizes == [[3, 4], [3, 4, 4]]  # of round 0 one is held out
    for number in (0, 1, 2):
        assert open_dataset(str(tmp_path / "rounds" / f"{number:03d}")).episodes == 4
    rows = [row for row in read_metrics(tmp_path) if "beta" in row]
    assert [row["beta"] for row in rows] == [0.5, 0.25]
    assert {"return", "expert/share", "visited/same"} <= rows[0].keys()


def test_a_round_that_was_lost_is_not_played_by_a_later_policy(toy_worlds, tmp_path):
    import shutil

    trained(replace(TOY, steps=30), tmp_path, every=30)
    shutil.rmtree(tmp_path / "rounds" / "001")
    run = Run(tmp_path, checkpoint_every=30, resume=True, quiet=True)
    with pytest.raises(BadData, match="001"):
        dagger.train(TOY, run)


@pytest.mark.slow
def test_pictures_are_kept_one_by_one_and_learned_from_in_stacks(tmp_path):
    settings = replace(dagger.DEBUG, dataset="", env="cartpole-pixels", frame_stack=3, network=SMALL)
    policy = trained(settings, tmp_path)
    assert policy.spec.env == "cartpole-pixels:stack=3"
    data = open_dataset(str(tmp_path / "rounds" / "001"))
    assert data.spec.features["observation.images.front"].shape == (40, 150, 3)
    assert not (data.episode(0)["observation.images.front"][0] == data.episode(0)["observation.images.front"][9]).all()


def test_a_policy_that_was_cloned_is_gone_on_with(toy_worlds, tmp_path):
    first = replace(dagger.cloning(TOY), dataset="shown", steps=100, lr=1e-2)
    run = Run(tmp_path / "bc", checkpoint_every=10**9, quiet=True)
    run.begin("bc", config.to_json(first))
    bc.train(first, run)
    trained(replace(TOY, policy=str(tmp_path / "bc"), steps=21, lr=1e-9), tmp_path / "dagger")
    (row,) = [row for row in read_metrics(tmp_path / "dagger") if "beta" in row]
    assert row["visited/same"] > 0.95


def test_what_cannot_be_done_is_said_before_anything_is_played(toy_worlds, tmp_path):
    with pytest.raises(BadConfig, match="add --dataset or --env"):
        trained(replace(TOY, env=""), tmp_path / "nowhere")
    with pytest.raises(BadConfig, match="one round alone is bc"):
        trained(replace(TOY, steps=20), tmp_path / "short")
    with pytest.raises(BadConfig, match="no expert knows acrobot; there are some for cartpole"):
        trained(replace(TOY, env="acrobot"), tmp_path / "unknown")
    with pytest.raises(BadConfig, match="the expert cartpole cannot act in identity"):
        find_expert("cartpole", spec_of("identity"))


@pytest.mark.slow
def test_it_mends_what_cloning_alone_does_not(tmp_path):
    """A faultless expert never shows how to recover; from the states that the clone brings about it does."""
    given = Config(dataset="", env="cartpole", steps=50, round_steps=10, episodes=2, held_out=0.5, network=SMALL)
    settings = replace(given, batch_size=32, lr=1e-2, beta=0.0)
    mended = trained(settings, tmp_path / "dagger")
    alone = replace(dagger.cloning(settings), dataset=str(tmp_path / "dagger" / "rounds" / "000"))
    run = Run(tmp_path / "bc", checkpoint_every=10**9, quiet=True)
    run.begin("bc", config.to_json(alone))
    cloned = bc.train(alone, run)
    means = [np.mean([e.total for e in rollout(policy, "cartpole", range(10))]) for policy in (cloned, mended)]
    assert means[1] > means[0] + 50, means
