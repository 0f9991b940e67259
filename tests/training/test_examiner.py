"""What every algorithm of the catalog must pass: it trains, repeats itself, survives being killed, and learns.

An algorithm that joins the catalog joins these tests; it adds a row to `EASY` (what it can learn in seconds).
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import victim
from victim import Fate

from drivetrain import catalog, checkpoint, cli, config
from drivetrain.envs.rollout import RandomActor, rollout
from drivetrain.envs.words import make_env
from drivetrain.models.decision import Attention
from drivetrain.models.driver import Network
from drivetrain.models.rssm import Size
from drivetrain.run import Run, read_metrics
from drivetrain.training.il import bc, dagger, gail
from drivetrain.training.offline_rl import cql, dt, iql, td3bc
from drivetrain.training.online_rl import dqn, grpo, ppo, sac
from drivetrain.training.world_model import dreamer

ALGORITHMS = list(catalog.ALGORITHMS)
TINY = Network(hidden=(16,), activation="relu", camera_width=16)
LSTM = replace(TINY, memory="lstm", memory_width=8)
SHORT = Attention(context=4, width=32, layers=2, dropout=0.0)
RACE = {"env": "carracing:repeat=8", "network": TINY}

VARIANTS = {
    "dqn-prioritised-double": ("dqn", replace(dqn.DEBUG, prioritised=True, double=True, target_every=96)),
    "dqn-n-step-wrapped": ("dqn", replace(dqn.DEBUG, n_step=3, capacity=100)),
    "dqn-lstm": ("dqn", replace(dqn.DEBUG, network=LSTM, length=4, n_step=1)),
    "dqn-carracing": ("dqn", replace(dqn.DEBUG, **RACE, steps=48, train_every=8, warmup=8, target_every=16)),
    "ppo-lstm": ("ppo", replace(ppo.DEBUG, network=LSTM)),
    "ppo-normalised": (
        "ppo",
        replace(ppo.DEBUG, env="pendulum", normalise_returns=True, network=replace(TINY, normalise=True)),
    ),
    "ppo-carracing": ("ppo", replace(ppo.DEBUG, **RACE, steps=48, rollout=4, minibatch=4)),
    "sac-lstm": ("sac", replace(sac.DEBUG, network=LSTM, length=4)),
    "sac-carracing": (
        "sac",
        replace(sac.DEBUG, env="carracing-continuous:repeat=8", network=TINY, steps=24, warmup=8, batch_size=4),
    ),
    "bc-lstm-dropout": ("bc", replace(bc.DEBUG, network=replace(LSTM, dropout=0.3), length=4)),
    "dagger-lstm-dropout": ("dagger", replace(dagger.DEBUG, network=replace(LSTM, dropout=0.3), length=4)),
    "dagger-alone": ("dagger", replace(dagger.DEBUG, dataset="", env="cartpole-pixels", frame_stack=2, network=TINY)),
    "gail-ppo": ("gail", replace(gail.DEBUG, generator="ppo")),
    "gail-choices": ("gail", replace(gail.DEBUG, env="cartpole:absorb=2", generator="ppo", penalty=1.0)),
    "gail-carracing": (
        "gail",
        replace(
            gail.DEBUG,
            env="carracing-continuous:repeat=8",
            network=TINY,
            steps=24,
            ends_too=True,
            sac=replace(gail.DEBUG.sac, warmup=8, batch_size=4),
        ),
    ),
    "grpo-numbers": ("grpo", replace(grpo.DEBUG, env="pendulum")),
    "grpo-carracing": ("grpo", replace(grpo.DEBUG, **RACE, steps=96, horizon=4)),
    "dreamer-choices": ("dreamer", replace(dreamer.DEBUG, env="cartpole")),
    "dreamer-carracing": (
        "dreamer",
        replace(dreamer.DEBUG, env="carracing:repeat=8", steps=48, warmup=16, capacity=100),
    ),
    "iql-choices": ("iql", replace(iql.DEBUG, env="cartpole")),
    "iql-carracing": ("iql", replace(iql.DEBUG, env="carracing", frame_stack=2, network=TINY, steps=6)),
    "dt-choices": ("dt", replace(dt.DEBUG, env="cartpole")),
    "dt-carracing": ("dt", replace(dt.DEBUG, env="carracing", network=replace(TINY, hidden=()), steps=6)),
    "iql-acting": ("iql", replace(iql.DEBUG, acting=60)),
    "iql-acting-carracing": (
        "iql",
        replace(iql.DEBUG, env="carracing", frame_stack=2, network=TINY, steps=2, acting=12, batch_size=4),
    ),
    "td3bc-acting": ("td3bc", replace(td3bc.DEBUG, acting=60)),
    "cql-acting": ("cql", replace(cql.DEBUG, acting=60)),
    "cql-acting-choices": ("cql", replace(cql.DEBUG, env="cartpole", acting=60, stray=0.5)),
    "cql-choices": ("cql", replace(cql.DEBUG, env="cartpole")),
    "bc-carracing": ("bc", replace(bc.DEBUG, env="carracing", frame_stack=2, network=TINY)),
}
CASES = {name: (name, catalog.find("algorithms", name).DEBUG) for name in ALGORITHMS} | VARIANTS
MAPPED = ("dqn-n-step-wrapped", "dqn-carracing", "sac-carracing", "sac")  # replay memory in memory-mapped files

DREAMS = {
    "warmup": 200,
    "train_every": 4,
    "length": 8,
    "lr": 3e-3,
    "actor_lr": 3e-3,
    "dream": 4,
    "gamma": 0.5,
    "size": Size(32, 4, 4, 32),
    "network": Network(state_layers=(16,), activation="silu"),
}
EASY = {
    "bc": {
        "identity": bc.Config(dataset="shown", env="identity", steps=150, lr=1e-2, network=TINY),
        "identity-continuous": bc.Config(
            dataset="shown-continuous", env="identity-continuous", steps=300, lr=1e-2, network=TINY
        ),
    },
    "dagger": {
        "identity": dagger.Config(dataset="", env="identity", steps=300, round_steps=60, lr=1e-2, network=TINY),
        "identity-continuous": dagger.Config(
            dataset="", env="identity-continuous", steps=300, round_steps=60, lr=1e-2, network=TINY
        ),
    },
    "dreamer": {"identity": dreamer.Config(env="identity", steps=3_000, **DREAMS)},
    "gail": {
        "identity": gail.Config(
            dataset="shown",
            env="identity",
            generator="ppo",
            steps=12_000,
            worlds=8,
            gamma=0.5,
            judge_lr=3e-3,
            judge_hidden=(32,),
            ppo=gail.Ppo(rollout=32, epochs=8, minibatch=64, lr=1e-2),
            network=TINY,
        ),
        "identity-continuous": gail.Config(
            dataset="shown-continuous",
            env="identity-continuous",
            steps=2_000,
            gamma=0.5,
            judge_lr=3e-3,
            judge_batch=64,
            judge_hidden=(32,),
            sac=gail.Sac(warmup=100, batch_size=64, lr=5e-3, actor_lr=5e-3, alpha=0.1),
            network=TINY,
        ),
    },
    "iql": {
        "identity": iql.Config(
            dataset="tried", env="identity", steps=600, batch_size=64, lr=3e-3, actor_lr=3e-3, gamma=0.5, network=TINY
        ),
        "identity-continuous": iql.Config(
            dataset="tried-continuous",
            env="identity-continuous",
            steps=1_500,
            batch_size=64,
            lr=3e-3,
            actor_lr=3e-3,
            gamma=0.5,
            expectile=0.9,
            scale_rewards=False,
            network=replace(TINY, hidden=(32, 32)),
        ),
    },
    "td3bc": {
        "identity-continuous": td3bc.Config(
            dataset="tried-continuous",
            env="identity-continuous",
            steps=3_000,
            batch_size=64,
            lr=3e-3,
            gamma=0.5,
            climb=100.0,
            network=TINY,
        )
    },
    "cql": {
        "identity": cql.Config(
            dataset="tried",
            env="identity",
            steps=600,
            batch_size=64,
            lr=3e-3,
            gamma=0.5,
            conservative=0.1,
            network=TINY,
        ),
        "identity-continuous": cql.Config(
            dataset="tried-continuous",
            env="identity-continuous",
            steps=1_000,
            batch_size=64,
            lr=3e-3,
            actor_lr=3e-3,
            gamma=0.5,
            conservative=0.1,
            network=TINY,
        ),
    },
    "dt": {
        "identity": dt.Config(
            dataset="tried", env="identity", aim="8", steps=300, lr=3e-3, warmup=20, attention=SHORT, network=TINY
        ),
        "identity-continuous": dt.Config(
            dataset="shown-continuous",
            env="identity-continuous",
            steps=300,
            lr=3e-3,
            warmup=20,
            attention=SHORT,
            network=TINY,
        ),
    },
    "dqn": {
        "identity": dqn.Config(
            env="identity", steps=1_500, warmup=100, train_every=16, updates=8, gamma=0.5, n_step=1, network=TINY
        )
    },
    "grpo": {
        "identity": grpo.Config(env="identity", steps=12_000, minibatch=128, lr=2e-2, network=TINY),
        "identity-continuous": grpo.Config(
            env="identity-continuous", steps=40_000, minibatch=128, lr=1e-2, log_std=-0.5, network=TINY
        ),
    },
    "ppo": {
        "identity": ppo.Config(env="identity", steps=4_000, epochs=8, minibatch=64, lr=1e-2, gamma=0.5, network=TINY),
        "identity-continuous": ppo.Config(
            env="identity-continuous", steps=12_000, epochs=8, minibatch=64, lr=1e-2, gamma=0.5, network=TINY
        ),
    },
    "sac": {
        "identity-continuous": sac.Config(
            env="identity-continuous",
            steps=800,
            batch_size=64,
            lr=5e-3,
            actor_lr=5e-3,
            gamma=0.5,
            alpha=0.1,
            network=TINY,
        )
    },
}
GOOD = {"identity": 0.9 * 8, "identity-continuous": -0.1 * 8}  # of 8 steps; the best are 8 and 0


def total(settings):
    return settings.steps + getattr(settings, "acting", 0)


def every(settings):
    """Steps between checkpoints, not dividing the run: three or four of them."""
    return {"checkpoint_every": max(total(settings) // 3 - 1, 3), "log_every": max(total(settings) // 8, 1)}


def left_alone(name, folder):
    """The case's run without an interruption."""
    algorithm, settings = CASES[name]
    assert victim.outcome(algorithm, settings, folder, Fate(mapped=name in MAPPED), **every(settings)) == 0
    return folder


def resume(name, folder):
    """By the command that an interrupted run tells its user to type: settings come from the folder."""
    algorithm, _ = CASES[name]
    return cli.main(["train", algorithm, "--output-dir", str(folder), "--resume", "--quiet"])


def contents(folder):
    """Hashes of the files of the last checkpoint, without the one that tells the time."""
    files = checkpoint.read_manifest(checkpoint.resolve(folder))["files"]
    return {name: told["sha256"] for name, told in files.items() if not name.startswith("progress.")}


def rows(folder):
    """The metrics, without the time."""
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in read_metrics(folder)]


def assert_equal_runs(one, other):
    assert rows(one) == rows(other)
    assert contents(one) == contents(other)


def mean_return(policy, env, episodes=50):
    return np.mean([episode.total for episode in rollout(policy, env, range(episodes))])


def trained(algorithm, settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin(algorithm, config.to_json(settings))
    return catalog.find("algorithms", algorithm).train(settings, run)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """They take longer to draw than these runs to train."""
    monkeypatch.setattr("drivetrain.report.write_report", lambda folder, opening="": folder)


@pytest.fixture
def mapped(monkeypatch):
    from drivetrain.data.replay import Replay

    monkeypatch.setitem(Replay.__init__.__kwdefaults__, "in_memory_bytes", 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Each case's run without an interruption, made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = left_alone(name, tmp_path_factory.mktemp(name) / "whole")
        return made[name]

    return get


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_has_the_shape_of_an_algorithm(algorithm):
    module = catalog.find("algorithms", algorithm)
    assert type(module.DEBUG) is module.Config
    assert config.to_json(module.DEBUG) != config.to_json(module.Config())
    assert callable(module.losses)
    assert config.from_json(module.Config, config.to_json(module.DEBUG)) == module.DEBUG
    with pytest.raises(AttributeError):
        module.DEBUG.seed = 1
    assert algorithm in EASY, f"add to EASY what {algorithm} can learn in seconds"


@pytest.mark.parametrize("name", CASES)
def test_it_trains_its_debug_and_changes_every_weight(name, uninterrupted):
    folder = uninterrupted(name)
    _, settings = CASES[name]
    after = checkpoint.load_policy(folder)
    oldest = checkpoint.load_policy(folder / "checkpoints" / f"{checkpoint.steps_in(folder)[0]:09d}")
    over = (
        settings.groups * settings.members * settings.horizon if isinstance(settings, grpo.Config) else 1
    )  # whole episodes
    assert total(settings) <= rows(folder)[-1]["step"] < total(settings) + over
    assert np.isfinite(rows(folder)[-1]["loss"])
    for (key, new), old in zip(after.named_parameters(), oldest.parameters(), strict=True):
        assert not torch.equal(new, old), f"{key} has not changed"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_bits(name, uninterrupted, tmp_path):
    assert_equal_runs(uninterrupted(name), left_alone(name, tmp_path / "again"))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_another_seed_gives_another_run(name, uninterrupted, tmp_path):
    algorithm, settings = CASES[name]
    trained(algorithm, replace(settings, seed=settings.seed + 1), tmp_path)
    assert contents(tmp_path)["policy.safetensors"] != contents(uninterrupted(name))["policy.safetensors"]


@pytest.mark.parametrize("name", CASES)
def test_it_saves_loads_and_acts_the_same(name, tmp_path):
    algorithm, settings = CASES[name]
    policy = trained(algorithm, settings, tmp_path)
    loaded = checkpoint.load_policy(tmp_path)
    assert not loaded.training
    assert loaded.spec == policy.spec
    for greedy in (True, False):
        assert_same_conduct(policy, loaded, greedy)


def assert_same_conduct(one, other, greedy, steps=4, count=3):
    env = make_env(one.spec.env)
    memories = [policy.initial(count) for policy in (one, other)]
    generators = [torch.Generator().manual_seed(5) for _ in memories]
    env.observation_space.seed(0)
    for _ in range(steps):
        seen = [env.observation_space.sample() for _ in range(count)]
        batch = {key: np.stack([o[key] for o in seen]) for key in seen[0]}
        done = []
        for i, policy in enumerate((one, other)):
            action, memories[i], _ = policy.act(batch, memories[i], greedy=greedy, generator=generators[i])
            done.append(action)
        np.testing.assert_array_equal(*done)
        assert all(torch.equal(memories[0][key], memories[1][key]) for key in memories[0])


@pytest.mark.parametrize("name", CASES)
def test_killed_in_the_middle_and_resumed_it_ends_bit_equal(name, uninterrupted, tmp_path, request):
    algorithm, settings = CASES[name]
    if name in MAPPED:
        request.getfixturevalue("mapped")
    fate = Fate(at_step=int(0.55 * total(settings)), mapped=name in MAPPED)
    assert victim.outcome(algorithm, settings, tmp_path, fate, **every(settings)) == -9
    behind = checkpoint.steps_in(tmp_path)
    assert behind
    assert behind[-1] < total(settings)
    assert resume(name, tmp_path) == 0
    assert_equal_runs(uninterrupted(name), tmp_path)
    if name in MAPPED:
        assert list((tmp_path / "replay").glob("ring/*"))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_killed_twice_and_before_the_first_checkpoint(name, uninterrupted, tmp_path):
    algorithm, settings = CASES[name]
    assert victim.outcome(algorithm, settings, tmp_path, Fate(at_step=1), **every(settings)) == -9
    assert checkpoint.steps_in(tmp_path) == []
    again = Fate(at_step=total(settings) // 2)
    assert victim.outcome(algorithm, settings, tmp_path, again, resume=True, **every(settings)) == -9
    assert resume(name, tmp_path) == 0
    assert_equal_runs(uninterrupted(name), tmp_path)


@pytest.mark.parametrize(
    ("name", "stride"),
    [("bc", 6), ("dagger", 16), ("dqn-n-step-wrapped", 6)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in (("bc", 1), ("dagger", 3), ("dqn-n-step-wrapped", 1))],
)
def test_killed_at_any_change_of_a_file_while_saving(name, stride, uninterrupted, tmp_path):
    """From the middle of the run on, just before every `stride`-th time that the run folder is touched."""
    algorithm, settings = CASES[name]
    deaths = 0
    for change in itertools.count(1, stride):
        folder = tmp_path / str(change)
        fate = Fate(at_change=change, after_step=total(settings) // 2)
        if victim.outcome(algorithm, settings, folder, fate, **every(settings)) == 0:
            break
        deaths += 1
        assert checkpoint.steps_in(folder)
        checkpoint.load_policy(folder)  # what `last` names is whole
        assert resume(name, folder) == 0
        assert_equal_runs(uninterrupted(name), folder)
    assert deaths > 30 // stride


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_killed_in_the_middle_of_writing_a_file(share, uninterrupted, tmp_path):
    """The optimizer's file is the largest of these; the process dies with a share of its bytes on disk."""
    algorithm, settings = CASES["bc"]
    largest = max(f.stat().st_size for f in checkpoint.resolve(uninterrupted("bc")).iterdir())
    fate = Fate(file_bytes=int(share * largest))
    assert victim.outcome(algorithm, settings, tmp_path, fate, **every(settings)) not in (0, 1, 2)
    assert checkpoint.steps_in(tmp_path) == []
    assert resume("bc", tmp_path) == 0
    assert_equal_runs(uninterrupted("bc"), tmp_path)


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(uninterrupted, tmp_path):
    algorithm, settings = CASES["dqn"]
    whole = uninterrupted("dqn")
    sizes = sorted(f.stat().st_size for f in checkpoint.resolve(whole).iterdir())
    fate = Fate(file_bytes=sizes[-1] - 1, kill_at_limit=False)
    assert victim.outcome(algorithm, settings, tmp_path, fate, **every(settings)) == 2
    said = victim.said(tmp_path).strip()
    assert said.startswith("DiskTrouble: ")
    assert "\n" not in said
    assert resume("dqn", tmp_path) == 0
    assert_equal_runs(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env", "settings"),
    [(algorithm, env, settings) for algorithm, table in EASY.items() for env, settings in table.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_learns_the_identity_in_seconds(algorithm, env, settings, toy_worlds, tmp_path):
    policy = trained(algorithm, settings, tmp_path)
    nobody = mean_return(RandomActor(policy.spec), env)
    assert nobody < GOOD[env] - 2, "the test must be able to fail"
    assert mean_return(policy, policy.spec.env) > GOOD[env]  # its own: some are asked for a return


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_from_shuffled_rewards_nothing_is_learned(algorithm, toy_worlds, tmp_path):
    settings = replace(EASY[algorithm]["identity"], env="shuffled")
    assert mean_return(trained(algorithm, settings, tmp_path), "identity") < 6


@pytest.mark.slow
def test_from_shuffled_rewards_nothing_is_learned_with_numbers(toy_worlds, tmp_path):
    settings = replace(EASY["sac"]["identity-continuous"], env="identity-continuous:shuffled=1")
    assert mean_return(trained("sac", settings, tmp_path), "identity-continuous") < -4
