"""Policies assembled by name: what they promise (`sample.Policy`), and that any of them can be trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import catalog, checkpoint, config
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import make_env
from drivetrain.errors import BadConfig, MissingExtra, UnknownName
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.state import RunningNorm
from drivetrain.run import Run
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Policy, Spec, restart
from drivetrain.training.online_rl import ppo

CHOICE = Feature((), "int64", choices=3)
FORCE = Feature((2,), low=(-2.0, 0.0), high=1.0)
PICTURE = Feature((20, 30, 3), "uint8", colour="rgb")
SIGHTS = {"state": {STATE: Feature((4,))}, "picture": {FRONT: PICTURE}, "both": {STATE: Feature((4,)), FRONT: PICTURE}}
NETWORKS = {
    "plain": Network(hidden=(8,), camera_width=16),
    "lstm": Network(hidden=(8,), camera_width=16, memory="lstm", memory_width=12),
    "gru": Network(hidden=(8,), camera_width=16, memory="gru", memory_width=12, state_layers=(6,)),
    "normalised": Network(hidden=(8,), camera_width=16, normalise=True),
    "vit": Network(hidden=(8,), camera="vit", camera_width=32, memory="lstm", memory_width=12),
}


def made(network="plain", sight="state", head="categorical", seed=0):
    torch.manual_seed(seed)
    action = CHOICE if head in ("categorical", "q") else FORCE
    policy = build_policy(Spec({**SIGHTS[sight], ACTION: action}, "Go.", 10.0, "somewhere"), NETWORKS[network], head)
    return policy.eval()


def seen_by(policy, *shape, seed=0):
    random = np.random.default_rng(seed)
    return {
        key: random.integers(0, 256, (*shape, *f.shape), dtype=np.uint8)
        if f.dtype == "uint8"
        else random.standard_normal((*shape, *f.shape)).astype(np.float32)
        for key, f in policy.spec.observations.items()
    }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("head", ["categorical", "gaussian", "squashed", "beta", "deterministic"])
def test_it_is_a_policy(network, sight, head):
    policy = made(network, sight, head)
    assert isinstance(policy, Policy)
    action, memory, _ = policy.act(seen_by(policy, 5), policy.initial(5), greedy=True, generator=None)
    assert action.shape == ((5,) if head == "categorical" else (5, 2))
    assert action.dtype == np.dtype(policy.spec.action.dtype)
    if head != "categorical":
        low, high = policy.spec.action.bounds()
        assert ((low <= action) & (action <= high)).all()
    assert {key: value.shape for key, value in memory.items()} == {key: v.shape for key, v in policy.initial(5).items()}
    seen = {key: torch.from_numpy(value) for key, value in seen_by(policy, 3, 4).items()}
    features, _ = policy.features(seen, policy.initial(3), torch.zeros(3, 4, dtype=torch.bool))
    assert features.shape == (3, 4, policy.width)


@pytest.mark.parametrize("network", ["plain", "lstm", "gru", "vit"])
def test_step_by_step_and_all_at_once_are_the_same(network):
    """Episodes begin in the middle of the sequence, each row's at its own time."""
    policy = made(network, "both")
    seen = seen_by(policy, 3, 6)
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    is_first[:, 0] = is_first[0, 2] = is_first[1, 3] = is_first[2, 3] = is_first[2, 5] = True
    memory = policy.initial(3)
    steps = []
    for t in range(6):
        memory = restart(memory, policy.initial(3), is_first[:, t].numpy())
        _, memory, info = policy.act({k: v[:, t] for k, v in seen.items()}, memory, greedy=True, generator=None)
        steps.append(info["features"])
    dirty = {key: torch.ones_like(value) for key, value in policy.initial(3).items()}  # the first step wipes it
    sequence = {key: torch.from_numpy(value) for key, value in seen.items()}
    with torch.no_grad():
        features, last = policy.features(sequence, dirty, is_first)
    torch.testing.assert_close(features, torch.stack(steps, 1), rtol=1e-5, atol=1e-6)
    for key in memory:
        torch.testing.assert_close(last[key], memory[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", ["lstm", "gru"])
def test_memory_carries_over_and_rows_do_not_touch(network):
    policy = made(network)
    seen = {key: torch.from_numpy(value) for key, value in seen_by(policy, 2, 5).items()}
    never = torch.zeros(2, 5, dtype=torch.bool)
    with torch.no_grad():
        whole, _ = policy.features(seen, policy.initial(2), never)
        first, memory = policy.features({k: v[:, :2] for k, v in seen.items()}, policy.initial(2), never[:, :2])
        rest, _ = policy.features({k: v[:, 2:] for k, v in seen.items()}, memory, never[:, 2:])
        torch.testing.assert_close(torch.cat([first, rest], 1), whole)
        alone, _ = policy.features({k: v[1:] for k, v in seen.items()}, policy.initial(1), never[1:])
        torch.testing.assert_close(alone, whole[1:])
        seen[STATE][:, 0] += 1
        other, _ = policy.features(seen, policy.initial(2), never)
    assert (other[:, -1] != whole[:, -1]).any()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("head", ["categorical", "squashed"])
def test_a_description_is_enough_to_build_it_again(network, head):
    policy = made(network, "both", head)
    said = json.loads(json.dumps(policy.describe()))
    again = Driver.from_description(said)
    assert (again.spec, again.network, again.head_name, again.transforms) == (
        policy.spec,
        policy.network,
        policy.head_name,
        policy.transforms,
    )
    assert json.loads(json.dumps(again.describe())) == said
    again.load_state_dict(policy.state_dict())
    seen = seen_by(policy, 3)
    one, other = (p.eval().act(seen, p.initial(3), greedy=True, generator=None)[0] for p in (policy, again))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_part_learns(network):
    policy = made(network, "both").train()
    seen = {key: torch.from_numpy(value) for key, value in seen_by(policy, 4, 3).items()}
    features, _ = policy.features(seen, policy.initial(4), torch.zeros(4, 3, dtype=torch.bool))
    policy.head(features).log_prob(torch.ones(4, 3, dtype=torch.int64)).sum().backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_greedy_is_sure_and_drawing_is_by_the_generator():
    policy = made("plain", head="gaussian")
    seen = seen_by(policy, 50)

    def act(greedy, seed):
        return policy.act(seen, {}, greedy=greedy, generator=torch.Generator().manual_seed(seed))[0]

    np.testing.assert_array_equal(act(True, 0), act(True, 1))
    np.testing.assert_array_equal(act(False, 0), act(False, 0))
    assert (act(False, 0) != act(False, 1)).any()


def test_the_action_as_drawn_is_kept_beside_the_one_that_is_done():
    """A Gaussian may leave the range: the world gets it clipped, the learner as it was."""
    policy = made("plain", head="gaussian")
    torch.nn.init.constant_(policy.head.log_std, 2.0)
    action, _, info = policy.act(seen_by(policy, 200), {}, greedy=False, generator=torch.Generator().manual_seed(0))
    assert info["raw"].abs().max() > 3
    np.testing.assert_allclose(
        action, [-0.5, 0.5] + info["raw"].clamp(-1, 1).numpy() * [1.5, 0.5], rtol=1e-5, atol=1e-6
    )
    assert torch.isfinite(info["chances"].log_prob(info["raw"])).all()


def test_running_statistics_are_those_of_all_that_was_seen(tmp_path):
    policy = made("normalised")
    batches = [seen_by(policy, count, seed=count) for count in (3, 50, 17)]
    for batch in batches:
        policy.observe(batch)
    everything = np.concatenate([batch[STATE] for batch in batches])
    norm = next(m for m in policy.modules() if isinstance(m, RunningNorm))
    np.testing.assert_allclose(norm.mean, everything.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.variance, everything.var(0), rtol=1e-3)
    np.testing.assert_allclose(norm(torch.from_numpy(everything)).std(0, correction=0), 1, rtol=1e-3)
    assert float(norm(torch.full((4,), 1e6)).max()) == 10
    checkpoint.save(tmp_path, 1, {"policy": policy})
    seen = seen_by(policy, 4, seed=9)
    both = policy, checkpoint.load_policy(tmp_path)
    one, other = (p.act(seen, {}, greedy=True, generator=None)[2]["features"] for p in both)
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["lstm", "vit"])
def test_an_algorithm_takes_it_as_it_is(name, tmp_path):
    """PPO trains an LSTM, and a small transformers model, from pictures; each moves, is saved and acts."""
    network = replace(NETWORKS[name], memory="lstm" if name == "lstm" else "none")
    settings = ppo.Config(env="cartpole-pixels", steps=64, worlds=2, rollout=8, minibatch=16, epochs=1, network=network)
    run = Run(tmp_path, checkpoint_every=32, quiet=True)
    run.begin("ppo", config.to_json(settings))
    policy = ppo.train(settings, run)
    loaded = checkpoint.load_policy(tmp_path)
    old = checkpoint.load_policy(tmp_path / "checkpoints" / f"{32:09d}")
    for (name, new), before in zip(loaded.named_parameters(), old.parameters(), strict=True):
        assert not torch.equal(new, before), f"{name} has not changed"
    first, second = (next(iter(rollout(p, "cartpole-pixels", [7]))) for p in (policy.eval(), loaded))
    assert (first.total, first.length) == (second.total, second.length)


@pytest.mark.parametrize(
    ("head", "action", "says"),
    [
        ("gaussian", CHOICE, "the head 'gaussian' does not fit actions that are choices; use categorical or q"),
        ("categorical", FORCE, "does not fit actions that are numbers"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(head, action, says):
    with pytest.raises(BadConfig, match=says):
        build_policy(Spec({STATE: Feature((4,)), ACTION: action}), NETWORKS["plain"], head)


def test_unknown_parts_are_answered_with_the_nearest(monkeypatch):
    spec = Spec({FRONT: PICTURE, ACTION: CHOICE})
    for wrong, near in (({"memory": "lstn"}, "lstm"), ({"camera": "vitt"}, "vit"), ({"activation": "tan"}, "tanh")):
        with pytest.raises(UnknownName, match=near):
            build_policy(spec, replace(NETWORKS["plain"], **wrong), "categorical")
    with pytest.raises(UnknownName, match="categorical"):
        build_policy(spec, NETWORKS["plain"], "catagorical")
    with pytest.raises(BadConfig, match="nothing to see"):
        build_policy(Spec({ACTION: CHOICE}), NETWORKS["plain"], "categorical")
    monkeypatch.setattr(catalog, "present", lambda row: False)
    with pytest.raises(MissingExtra, match=r"pip install 'drivetrain\[vlm\]'"):
        build_policy(spec, NETWORKS["vit"], "categorical")


@pytest.mark.parametrize("env", ["cartpole", "cartpole-pixels", "pendulum", "carracing", "carracing-continuous"])
def test_it_fits_the_world_whose_spec_it_was_made_from(env):
    world = make_env(env)
    head = "categorical" if world.sample_spec.discrete else "squashed"
    policy = build_policy(world.sample_spec, NETWORKS["plain"], head)
    observation, _ = world.reset(seed=0)
    batch = {key: value[None] for key, value in observation.items()}
    action, _, _ = policy.act(batch, policy.initial(1), greedy=False, generator=torch.Generator().manual_seed(0))
    assert world.action_space.contains(action[0])
    world.step(action[0])
    world.close()
