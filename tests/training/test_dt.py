"""A Decision Transformer sees what it may and nothing else, acts as it was taught, and does what it is asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import catalog, config
from drivetrain.data.episodes import Episodes
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import make_env, spec_of, with_options
from drivetrain.errors import BadConfig, SpecMismatch
from drivetrain.models.decision import Attention, DecisionTransformer
from drivetrain.models.driver import Network
from drivetrain.run import Run
from drivetrain.sample import ACTION, AIM, REWARD, STATE, TERMINATED, TRUNCATED, Feature, Spec
from drivetrain.training.offline_rl import dt

SMALL = Attention(context=4, width=16, layers=2, dropout=0.0)
NUMBERS = Spec({STATE: Feature((3,)), AIM: Feature((1,)), ACTION: Feature((2,), low=-1.0, high=1.0)}, "go", 10.0)
CHOICES = replace(NUMBERS, features={**NUMBERS.features, ACTION: Feature((), "int64", choices=3)})
HEADS = [(NUMBERS, "deterministic"), (CHOICES, "categorical")]
LEAN = Network(hidden=(), activation="relu")


def new(spec=NUMBERS, head="deterministic", attention=SMALL):
    torch.manual_seed(0)
    return DecisionTransformer(spec, LEAN, head, attention=attention, longest=50).eval()


def window(spec=NUMBERS, count=2, steps=4):
    random = torch.Generator().manual_seed(1)
    done = (
        torch.randint(3, (count, steps), generator=random)
        if spec.discrete
        else torch.rand(count, steps, 2, generator=random)
    )
    seen, aim = torch.randn(count, steps, 3, generator=random), torch.randn(count, steps, 1, generator=random)
    return {"sight": seen, "aim": aim, "done": done, "step": torch.arange(steps).repeat(count, 1)}


def other(values):
    return (values + 1) % 3 if values.dtype == torch.long else values + 1


@pytest.mark.parametrize(("spec", "head"), HEADS)
@pytest.mark.parametrize(("what", "reaches"), [("sight", 2), ("aim", 2), ("done", 3)])
def test_a_change_reaches_its_own_step_and_later_ones_and_an_action_only_later_ones(what, reaches, spec, head):
    policy, given = new(spec, head), window(spec)
    changed = {key: value.clone() for key, value in given.items()}
    changed[what][:, 2] = other(changed[what][:, 2])
    apart = (policy.attend(**given) - policy.attend(**changed)).abs().amax((0, 2))
    assert apart[:reaches].max() == 0
    assert apart[reaches:].min() > 1e-5


def test_what_is_not_known_is_not_looked_at():
    policy, short = new(), window(steps=2)
    padded = {key: torch.cat([99 * torch.ones_like(value), value], 1) for key, value in short.items()}
    known = torch.tensor([[False, False, True, True]] * 2)
    torch.testing.assert_close(
        policy.attend(**padded, known=known)[:, 2:], policy.attend(**short), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("spec", "head"), HEADS)
def test_acting_step_by_step_is_what_was_learned_on_windows(spec, head):
    """Also past the context, where the oldest steps fall out, and with episodes that begin at different times."""
    policy, steps = new(spec, head), 7
    random = np.random.default_rng(0)
    seen, aims = (
        random.normal(size=(2, steps, 3)).astype(np.float32),
        random.normal(size=(2, steps, 1)).astype(np.float32),
    )
    start = memory = policy.initial(2)
    actions = []
    for t in range(steps):
        if t == 2:  # the second world begins anew
            memory = {k: torch.stack([memory[k][0], start[k][1]]) for k in memory}
        _, memory, info = policy.act({STATE: seen[:, t], AIM: aims[:, t]}, memory, greedy=True, generator=None)
        actions.append(info["raw"])
        for world, began in ((0, 0), (1, 0 if t < 2 else 2)):
            first = max(began, t + 1 - SMALL.context)
            rows = slice(first, t + 1)
            given = {
                STATE: torch.from_numpy(seen[world : world + 1, rows]),
                AIM: torch.from_numpy(aims[world : world + 1, rows]),
            }
            sight, aim = policy.encode(given)
            done = torch.stack([a[world] for a in actions[rows]]).unsqueeze(0)
            step = torch.arange(first - began, t + 1 - began).unsqueeze(0)
            wanted = policy.head(policy.attend(sight, aim, done, step)[:, -1]).mode()
            torch.testing.assert_close(info["raw"][world], wanted[0], atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_sum_done_by_hand():
    """Of numbers the mean squared error over valid steps; of choices their mean unlikelihood."""
    for spec, head in HEADS:
        policy, given = new(spec, head), window(spec)
        valid = torch.tensor([[True] * 4, [True, True, False, False]])
        batch = {
            STATE: given["sight"],
            AIM: given["aim"],
            ACTION: given["done"],
            dt.STEP: given["step"],
            "valid": valid,
        }
        seen = policy.head(policy.attend(**given))
        if spec.discrete:
            each = -seen.logits.gather(-1, given["done"].unsqueeze(-1)).squeeze(-1)
        else:
            each = (seen.action - given["done"]).square().mean(-1)
        by_hand = (each[0].sum() + each[1, :2].sum()).item() / 6
        assert dt.losses(policy, batch)["loss/action"].item() == pytest.approx(by_hand, rel=1e-5)


def test_the_return_to_come_is_counted_within_an_episode():
    count = 7
    cut = np.zeros(count, bool)
    arrays = {STATE: np.zeros((count, 3), np.float32), ACTION: np.zeros((count, 2), np.float32), TERMINATED: cut,
              REWARD: np.arange(count, dtype=np.float32), TRUNCATED: cut}  # fmt: skip
    spec = Spec({key: feature for key, feature in NUMBERS.features.items() if key != AIM})
    data = dt.with_aims(Episodes(spec, arrays, [3, 4]))
    assert data.values(AIM)[:, 0].tolist() == [3, 3, 2, 18, 15, 11, 6]
    assert data.values(dt.STEP).tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_the_world_takes_each_reward_off_what_is_wanted():
    world = make_env("cartpole:aim=200.5")
    seen, _ = world.reset(seed=0)
    assert seen[AIM].tolist() == [200.5]
    for left in (199.5, 198.5):
        seen, *_ = world.step(0)
        assert seen[AIM].tolist() == [left]
    assert world.reset(seed=0)[0][AIM].tolist() == [200.5]
    with pytest.raises(BadConfig, match="aim must be a number"):
        make_env("cartpole:aim=much")


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("dt", config.to_json(settings))
    return dt.train(settings, run)


ASKED = dt.Config(
    dataset="tried", env="identity", aim="8", steps=300, lr=3e-3, warmup=20, attention=SMALL, network=LEAN
)


def conduct(policy, aim):
    return np.mean([episode.total for episode in rollout(policy, f"identity:aim={aim}", range(60))])


def test_it_does_what_it_is_asked_for(toy_worlds, tmp_path):
    """Half of the steps right where half is asked for; and what it learned from shuffled returns is of no use."""
    policy = trained(ASKED, tmp_path / "true")
    got = [conduct(policy, aim) for aim in (0, 4, 8)]
    assert got[0] < 2 < got[1] < 6 < got[2]


@pytest.mark.slow
def test_from_wrong_returns_nothing_is_to_be_had(toy_worlds, tmp_path, monkeypatch):
    def dealt(data):
        found = with_aims(data)
        found.arrays[AIM] = np.random.default_rng(0).permutation(found.arrays[AIM])
        return found

    with_aims = dt.with_aims
    monkeypatch.setattr(dt, "with_aims", dealt)
    assert conduct(trained(ASKED, tmp_path), 8) < 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"aim": "much"}, 'a return, or "best"'),
        ({"env": "pendulum:aim=-200"}, "the aim of dt is --aim"),
        ({"network": replace(LEAN, memory="gru")}, "its own memory"),
        ({"attention": replace(SMALL, heads=3)}, "multiple of its heads, got 16 and 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, says):
    with pytest.raises(BadConfig, match=says):
        dt.given(replace(dt.DEBUG, **changes))


def test_it_is_asked_for_the_best_of_its_data_and_goes_on_from_there(tmp_path):
    first = trained(dt.DEBUG, tmp_path / "first")
    best = float(catalog.find("datasets", "fake")(make_env("pendulum").sample_spec).returns().max())
    assert first.spec.env == with_options("pendulum", aim=f"{best:.6g}")
    again, _ = dt.given(replace(dt.DEBUG, policy=str(tmp_path / "first"), aim="7"))
    assert again.spec.env == "pendulum:aim=7"
    assert torch.equal(again.state_dict()["aim_token.weight"], first.state_dict()["aim_token.weight"])
    from drivetrain.training.il import bc

    run = Run(tmp_path / "bc", checkpoint_every=10**9, quiet=True)
    run.begin("bc", config.to_json(bc.DEBUG))
    bc.train(bc.DEBUG, run)
    with pytest.raises((BadConfig, SpecMismatch)):
        dt.given(replace(dt.DEBUG, env="cartpole", policy=str(tmp_path / "bc")))


def test_uniform_words_weigh_the_log_of_the_choices():
    policy = new(CHOICES, "categorical")
    for parameter in policy.head.parameters():
        torch.nn.init.zeros_(parameter)
    given = window(CHOICES)
    batch = {STATE: given["sight"], AIM: given["aim"], ACTION: given["done"], dt.STEP: given["step"]}
    batch["valid"] = torch.ones(2, 4, dtype=torch.bool)
    assert dt.losses(policy, batch)["loss/action"].item() == pytest.approx(math.log(3), rel=1e-6)


def test_a_set_of_a_world_that_stacks_is_learned_from_single_pictures_and_played_so(tmp_path):
    policy = trained(replace(dt.DEBUG, env="cartpole-pixels"), tmp_path)
    policy.spec.require(spec_of(policy.spec.env))
    assert len(list(rollout(policy, policy.spec.env, [0]))) == 1


def test_who_goes_on_looks_back_as_far_as_it_did_before(tmp_path):
    trained(dt.DEBUG, tmp_path / "first")
    before = replace(dt.DEBUG, policy=str(tmp_path / "first"), attention=Attention())
    policy, _ = dt.given(before)
    assert policy.attention.context == dt.DEBUG.attention.context
    with pytest.raises(BadConfig, match="which stays"):
        dt.given(replace(before, attention=Attention(context=9)))
