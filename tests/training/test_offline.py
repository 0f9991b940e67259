"""Offline learning against sums done by hand, and data that must not teach."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import catalog, config
from drivetrain.checkpoint import Randomness, load_policy, read, resolve
from drivetrain.data.episodes import Episodes
from drivetrain.data.transitions import NEXT, Transitions
from drivetrain.envs.rollout import rollout
from drivetrain.errors import BadConfig, BadData
from drivetrain.models.driver import Network, build_policy
from drivetrain.run import Run
from drivetrain.sample import ACTION, REWARD, STATE, TERMINATED, TRUNCATED, Feature, Spec
from drivetrain.training.offline_rl import cql, iql, td3bc
from drivetrain.training.offline_rl.acting import Experience
from drivetrain.training.offline_rl.given import given, go_on, reward_scale
from drivetrain.transforms import Rescale

SMALL, WIDER = (Network(hidden=(width,), activation="relu") for width in (8, 16))
NUMBERS = Spec({STATE: Feature((2,)), ACTION: Feature((1,), low=-2.0, high=4.0)}, "go", 10.0, "pendulum")
CHOICES = Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=3)}, "go", 10.0, "cartpole")


def episodes(spec=NUMBERS):
    """Three of three frames: the first ends by itself, the second is cut, the third ends by itself."""
    count = 9
    state = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    action = np.linspace(-2, 4, count, dtype=np.float32)[:, None] if spec is NUMBERS else np.arange(count) % 3
    ends, cut = np.zeros((2, count), bool)
    ends[[2, 8]], cut[5] = True, True
    reward = np.arange(count, dtype=np.float32)
    return Episodes(spec, {STATE: state, ACTION: action, REWARD: reward, TERMINATED: ends, TRUNCATED: cut}, [3, 3, 3])


def test_steps_stay_in_their_episode_and_a_cut_one_has_no_last():
    data = Transitions(episodes())
    assert data.frames.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    batch = data.batch(8, at=0, seed=0)
    seen = {int(now[0, 0]) // 2: (int(after[0, 0]) // 2, bool(over)) for now, after, over in zip(
        batch[STATE], batch[NEXT + STATE], batch["terminated"], strict=True)}  # fmt: skip
    assert {frame: after for frame, (after, over) in seen.items() if not over} == {0: 1, 1: 2, 3: 4, 4: 5, 6: 7, 7: 8}
    assert {frame for frame, (_, over) in seen.items() if over} == {2, 8}
    assert all(torch.equal(batch[key], data.batch(8, at=0, seed=0)[key]) for key in batch)


def test_stacked_steps_are_those_of_the_data():
    stacked = Transitions(episodes().stack(2)).batch(8, at=0, seed=0)
    plain = Transitions(episodes()).batch(8, at=0, seed=0)
    for key in (STATE, NEXT + STATE):
        same = plain["terminated"] if key.startswith(NEXT) else torch.zeros(8, dtype=torch.bool)
        assert torch.equal(stacked[key][~same][..., 2:], plain[key][~same])


def test_returns_and_their_scale_are_of_whole_episodes():
    data = episodes()
    assert data.returns().tolist() == [3.0, 12.0, 21.0]
    assert reward_scale(data) == pytest.approx(1000 / 18)
    even = episodes()
    even.arrays[REWARD] = np.ones(9, np.float32)
    with pytest.raises(BadData, match="add --no-scale-rewards"):
        reward_scale(even)


def test_actions_are_as_heads_give_them():
    scaled = Transitions(episodes(), (Rescale(ACTION, (-2.0,), (4.0,)),))
    assert scaled.action[:, 0].tolist() == pytest.approx(np.linspace(-1, 1, 9).tolist(), abs=1e-6)


class Fixed(torch.nn.Module):
    """Says the same whatever it is given."""

    def __init__(self, *said):
        super().__init__()
        self.said = torch.nn.Parameter(torch.tensor(said))

    def forward(self, *given):
        return self.said


def one_step(reward=1.0, terminated=False, action=(0.5,)):
    """A batch of two rows, the second terminated or not."""
    return {
        STATE: torch.zeros(2, 1, 2),
        NEXT + STATE: torch.zeros(2, 1, 2),
        "action": torch.tensor([action, action]),
        "reward": torch.tensor([reward, reward]),
        "terminated": torch.tensor([False, terminated]),
    }


def test_iql_is_the_sum_done_by_hand():
    """Critics say 2 and 4, their slow copies 3 and 5, the value 1 and 6: expectile 0.7, temperature 3, no weight above 100."""
    learner = iql.Learner(build_policy(NUMBERS, SMALL, "bounded"), iql.Config(network=SMALL, gamma=0.5))
    learner.critics, learner.targets = Fixed([2.0, 2.0], [4.0, 4.0]), Fixed([5.0, 5.0], [3.0, 3.0])
    learner.value = Fixed(1.0, 6.0)
    batch = one_step(terminated=True)
    found = iql.losses(learner, batch)
    ahead = (3 - 1, 3 - 6)  # the lower slow critic against the value
    assert found["loss/value"].item() == pytest.approx((0.7 * ahead[0] ** 2 + 0.3 * ahead[1] ** 2) / 2)
    targets = (1 + 0.5 * 1, 1)  # nothing comes after the second
    wanted = sum((said - target) ** 2 for said in (2, 4) for target in targets) / 2
    assert found["loss/critics"].item() == pytest.approx(wanted)
    weights = (min(math.exp(3 * ahead[0]), 100.0), math.exp(3 * ahead[1]))
    unlikely = -learner.policy.head(torch.zeros(2, 2)).log_prob(batch["action"])
    assert found["loss/actor"].item() == pytest.approx(
        float((torch.tensor(weights) * unlikely.detach()).mean()), rel=1e-5
    )


def test_iqls_parts_teach_their_own_networks_alone():
    learner = iql.Learner(build_policy(NUMBERS, SMALL, "bounded"), iql.Config(network=SMALL))
    found = iql.losses(learner, one_step())
    for name, of in (
        ("loss/value", learner.value),
        ("loss/critics", learner.critics),
        ("loss/actor", learner.policy.head),
    ):
        for part in (learner.value, learner.critics, learner.policy.head):
            given_ = torch.autograd.grad(found[name], list(part.parameters()), allow_unused=True, retain_graph=True)
            assert any(g is not None and g.abs().sum() > 0 for g in given_) == (part is of)


def test_iqls_encoder_learns_from_what_is_to_be_done_and_critics_leave_it_as_it_is():
    policy = build_policy(NUMBERS, replace(SMALL, state_layers=(8,)), "bounded")
    learner = iql.Learner(policy, iql.Config(network=SMALL))
    found = iql.losses(learner, {**one_step(), STATE: torch.randn(2, 1, 2)})
    eyes = list(policy.encoders.parameters())
    for name, teaches in (("loss/actor", True), ("loss/value", False), ("loss/critics", False)):
        slopes = torch.autograd.grad(found[name], eyes, allow_unused=True, retain_graph=True)
        assert all((slope is not None and bool(slope.any())) == teaches for slope in slopes)
    assert {id(p) for p in eyes} < {id(p) for p in learner.actor_row.parameters}


def test_td3bcs_critic_is_weighed_by_its_own_size_without_a_gradient_through_it():
    config_ = td3bc.Config(network=SMALL, climb=2.5)
    learner = td3bc.Learner(build_policy(NUMBERS, SMALL, "deterministic"), config_, Randomness(0))
    batch, now = one_step(), torch.randn(2, 2)
    found = td3bc.actor_losses(learner, batch, now)
    action = learner.policy.head(now).mode()
    worth = learner.critics(now, action)[0]
    scale = float(2.5 / worth.detach().abs().mean())
    assert found["loss/climb"].item() == pytest.approx(float(-scale * worth.detach().mean()), rel=1e-5)
    assert found["loss/clone"].item() == pytest.approx(float((action - batch["action"]).square().mean().detach()))
    head = list(learner.policy.head.parameters())
    ours, theirs = (torch.autograd.grad(loss, head) for loss in (found["loss/climb"], -scale * worth.mean()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_td3bcs_encoder_learns_from_what_is_to_be_done_and_critics_leave_it_as_it_is():
    policy = build_policy(NUMBERS, replace(SMALL, state_layers=(8,)), "deterministic")
    learner = td3bc.Learner(policy, td3bc.Config(network=SMALL), Randomness(0))
    batch = {**one_step(), STATE: torch.randn(2, 1, 2)}
    found, eyes = td3bc.losses(learner, batch), list(policy.encoders.parameters())
    for name, teaches in (("loss/climb", True), ("loss/clone", True), ("loss/critics", False)):
        slopes = torch.autograd.grad(found[name], eyes, allow_unused=True, retain_graph=True)
        assert all((slope is not None and bool(slope.any())) == teaches for slope in slopes)
    now = torch.randn(2, 8, requires_grad=True)
    (climb,) = torch.autograd.grad(td3bc.actor_losses(learner, batch, now)["loss/climb"], now)
    worth = learner.critics(now.detach(), policy.head(now).mode())[0]  # led by the action alone
    (wanted,) = torch.autograd.grad(-2.5 * worth.mean() / worth.detach().abs().mean(), now)
    assert torch.allclose(climb, wanted, atol=1e-6)
    before = [p.clone() for p in eyes]
    learner.update(batch, 0)  # of the critics alone
    assert all(torch.equal(a, b) for a, b in zip(before, eyes, strict=True))
    learner.update(batch, 1)
    assert all(not torch.equal(a, b) for a, b in zip(before, eyes, strict=True))


def test_td3bcs_target_is_the_lower_slow_critic_and_stops_at_an_end():
    learner = td3bc.Learner(
        build_policy(NUMBERS, SMALL, "deterministic"), td3bc.Config(network=SMALL, gamma=0.5), Randomness(0)
    )
    learner.critics, learner.slow_critics = Fixed([2.0, 2.0], [4.0, 4.0]), Fixed([5.0, 5.0], [3.0, 3.0])
    found = td3bc.critic_losses(learner, one_step(terminated=True), torch.zeros(2, 2))
    targets = (1 + 0.5 * 3, 1)
    assert found["loss/critics"].item() == pytest.approx(sum((said - t) ** 2 for said in (2, 4) for t in targets) / 2)


class Echo(torch.nn.Module):
    """Critics that both say the action itself, and remember it."""

    def forward(self, seen, action):
        self.given = action
        return action.T.expand(2, -1)


def test_td3bcs_target_asks_the_slow_policy_with_a_little_noise_within_bounds():
    settings = td3bc.Config(network=SMALL, blur=50.0, blur_most=0.3)
    learner = td3bc.Learner(build_policy(NUMBERS, SMALL, "deterministic"), settings, Randomness(0))
    learner.slow_critics = Echo()
    batch = {key: value[:1].expand(400, *value.shape[1:]) for key, value in one_step().items()}
    for shift in (0.0, 3.0):  # far out, where noise would leave the bounds
        with torch.no_grad():
            list(learner.slow_head.parameters())[-1].fill_(shift)
        middle = learner.slow_head(torch.zeros(1, 2)).mode().item()
        assert middle != learner.policy.head(torch.zeros(1, 2)).mode().item()
        td3bc.critic_losses(learner, batch, torch.zeros(400, 2))
        asked = learner.slow_critics.given
        assert asked.min().item() == pytest.approx(max(middle - 0.3, -1), abs=1e-5)
        assert asked.max().item() == pytest.approx(min(middle + 0.3, 1), abs=1e-5)


def test_td3bcs_policy_and_slow_copies_move_at_every_second_step():
    learner = td3bc.Learner(
        build_policy(NUMBERS, SMALL, "deterministic"), td3bc.Config(network=SMALL, lr=0.1), Randomness(0)
    )
    watched = {"policy": learner.policy.head, "slow": learner.slow_head, "critics": learner.critics}
    moved = []
    for step in range(4):
        before = {name: [p.clone() for p in part.parameters()] for name, part in watched.items()}
        learner.update(one_step(reward=step + 1.0), step)
        moved.append(
            {n for n in watched if any((a != b).any() for a, b in zip(before[n], watched[n].parameters(), strict=True))}
        )
    assert moved == [{"critics"}, {"policy", "slow", "critics"}] * 2


def test_iqls_policy_learns_along_a_cosine_by_data_and_again_by_acting():
    learner = iql.Learner(
        build_policy(NUMBERS, SMALL, "bounded"), iql.Config(network=SMALL, steps=8, acting=4, lr=0.5, actor_lr=0.1)
    )
    rates = []
    for step in (0, 4, 7, 8, 10):
        learner.update(one_step(), step)
        rates.append(learner.actor_optimizer.lr)
        assert learner.judge_optimizer.lr == 0.5
    wanted = [0.5 * (1 + math.cos(math.pi * done)) for done in (0, 1 / 2, 7 / 8, 0, 1 / 2)]
    assert rates == pytest.approx([0.1 * share for share in wanted])


def test_cqls_soft_maximum_is_the_logarithm_of_the_integral():
    """Of exp(Q) over the action's range, whatever the policy draws: importance corrects for it."""
    torch.manual_seed(0)
    learner = cql.Learner(
        build_policy(NUMBERS, SMALL, "squashed"), cql.Config(network=SMALL, drawn=20_000), Randomness(0)
    )
    now = 10 * torch.randn(3, 2)  # states so far apart that no row could stand for another
    with torch.no_grad():
        found = cql.soft_maximum(learner, now, now)
        grid = torch.linspace(-1, 1, 2001)[:, None]
        heights = torch.stack([learner.critics(row.expand(2001, -1), grid).exp() for row in now], 1)
        wanted = torch.trapezoid(heights, grid[:, 0], dim=-1).log()
    assert wanted.std(1).min() > 0.3
    assert torch.allclose(found, wanted, atol=0.05)


def test_cql_is_the_sum_done_by_hand(monkeypatch):
    """Critics say 2 and 4, their slow copies 3 and 5, the soft maximum is 6 and 9. No entropy is in the targets."""

    class Held(Fixed):
        def held(self, *given):
            return self.said

    policy = build_policy(NUMBERS, SMALL, "squashed")
    settings = cql.Config(network=SMALL, gamma=0.5, conservative=5.0, entropy_share=2.0)
    learner = cql.Learner(policy, settings, Randomness(0))
    learner.critics, learner.targets = Held([2.0, 2.0], [4.0, 4.0]), Fixed([5.0, 5.0], [3.0, 3.0])
    learner.temperature["log_alpha"].data.fill_(math.log(0.25))
    monkeypatch.setattr(cql, "soft_maximum", lambda *given: torch.tensor([[6.0, 6.0], [9.0, 9.0]]))
    batch = one_step(terminated=True)
    found = cql.losses(learner, batch)
    targets = (1 + 0.5 * 3, 1)
    assert found["loss/critics"].item() == pytest.approx(sum((said - t) ** 2 for said in (2, 4) for t in targets) / 2)
    assert found["loss/conservative"].item() == pytest.approx(5 * ((6 - 2) + (9 - 4)))
    random, seen = Randomness(0), torch.zeros(2, 2)

    @torch.no_grad()
    def drawn():
        policy.head(seen).sample_with_log_prob(random.torch)  # in the next state, for the target
        return policy.head(seen).sample_with_log_prob(random.torch)[1]

    unlikely = drawn()
    assert found["loss/actor"].item() == pytest.approx(float((0.25 * unlikely - 2).mean()), rel=1e-5)
    gap = float(unlikely.mean()) - 2.0 * 1
    assert found["loss/temperature"].item() == pytest.approx(-math.log(0.25) * gap, rel=1e-5)
    cloning = cql.losses(learner, batch, cloning=True)["loss/actor"].item()
    likely = policy.head(seen).log_prob(batch["action"]).detach()
    assert cloning == pytest.approx(float((0.25 * drawn() - likely).mean()), rel=1e-5)


def test_cql_with_choices_is_the_sum_done_by_hand():
    chooser = cql.Chooser(build_policy(CHOICES, SMALL, "q"), cql.Config(network=SMALL, gamma=0.5, conservative=2.0))
    batch = one_step(terminated=True) | {"action": torch.tensor([0, 2])}
    with torch.no_grad():  # the slow copy has another opinion of what is best
        bias = list(chooser.slow.head.parameters())[-1]
        bias.copy_(torch.where(chooser.policy.head(torch.zeros(1, 2)).values[0].argsort().argsort() == 0, 5.0, bias))
    values = chooser.policy.head(torch.zeros(2, 2)).values.detach()
    slow = chooser.slow.head(torch.zeros(2, 2)).values.detach()
    assert slow[0].argmax() != values[0].argmax()
    found = cql.choice_losses(chooser, batch)
    known = values[torch.arange(2), batch["action"]]
    wanted = 2.0 * (values.exp().sum(1).log() - known).mean()
    assert found["loss/conservative"].item() == pytest.approx(float(wanted), abs=1e-5)
    targets = torch.tensor([1 + 0.5 * float(slow[0, values[0].argmax()]), 1.0])
    assert found["loss/values"].item() == pytest.approx(
        float(torch.nn.functional.smooth_l1_loss(known, targets)), abs=1e-5
    )


def test_a_coarse_cql_loses_nearly_as_much():
    def parts(precision):
        torch.manual_seed(0)
        network = Network(hidden=(64, 64, 64), activation="relu")
        settings = cql.Config(network=network, precision=precision)
        learner = cql.Learner(build_policy(NUMBERS, network, "squashed"), settings, Randomness(0))
        return {name: value.detach() for name, value in cql.losses(learner, one_step()).items()}

    exact, coarse = parts("float32"), parts("bfloat16")
    for name in ("loss/critics", "loss/conservative"):
        assert coarse[name] != exact[name], "the flag is heeded"
        assert float(coarse[name]) == pytest.approx(float(exact[name]), rel=0.02)


def trained(algorithm, settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin(algorithm, config.to_json(settings))
    return catalog.find("algorithms", algorithm).train(settings, run)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["iql", "cql"])
def test_from_data_whose_actions_are_dealt_to_other_steps_nothing_is_learned(
    algorithm, toy_worlds, tmp_path, monkeypatch
):
    import toys

    def dealt(spec):
        data = toys.open_tried(spec)
        order = np.random.default_rng(1).permutation(len(data))
        data.arrays[ACTION] = data.arrays[ACTION][order]
        return data

    monkeypatch.setattr(toys, "open_dealt", dealt, raising=False)
    monkeypatch.setitem(catalog.DATASETS, "dealt", catalog.Entry("toys:open_dealt", "a toy"))
    module = catalog.find("algorithms", algorithm)
    settings = module.Config(
        dataset="tried", env="identity", steps=600, batch_size=64, lr=3e-3, gamma=0.5, network=WIDER
    )
    settings = replace(settings, **({"conservative": 0.1} if algorithm == "cql" else {"actor_lr": 3e-3}))

    def mean(policy):
        return np.mean([episode.total for episode in rollout(policy, "identity", range(50))])

    assert mean(trained(algorithm, settings, tmp_path / "tried")) > 0.9 * 8
    luck = mean(trained(algorithm, replace(settings, dataset="dealt"), tmp_path / "dealt"))
    assert luck < 0.7 * 8  # two of three signs


OF_NUMBERS = {
    "iql": iql.Config(steps=1_500, actor_lr=3e-3, expectile=0.9, scale_rewards=False),
    "td3bc": td3bc.Config(steps=3_000, climb=100.0),
    "cql": cql.Config(steps=1_000, actor_lr=3e-3, conservative=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", list(OF_NUMBERS))
def test_from_numbers_that_are_dealt_to_other_steps_nothing_is_learned(algorithm, toy_worlds, tmp_path, monkeypatch):
    """To do the best of all constants returns -10.7, to do what is shown 0."""
    import toys

    def dealt(spec):
        data = toys.open_tried_continuous(spec)
        data.arrays[ACTION] = data.arrays[ACTION][np.random.default_rng(1).permutation(len(data))]
        return data

    monkeypatch.setattr(toys, "open_dealt", dealt, raising=False)
    monkeypatch.setitem(catalog.DATASETS, "dealt", catalog.Entry("toys:open_dealt", "a toy"))
    env, network = "identity-continuous", Network(hidden=(32, 32), activation="relu")
    settings = replace(OF_NUMBERS[algorithm], env=env, batch_size=64, lr=3e-3, gamma=0.5, network=network)

    def mean(dataset):
        policy = trained(algorithm, replace(settings, dataset=dataset), tmp_path / dataset)
        return np.mean([episode.total for episode in rollout(policy, env, range(50))])

    assert mean("dealt") < -8 < -4 < mean("tried-continuous")


@pytest.mark.parametrize(
    ("algorithm", "changes", "says"),
    [
        ("td3bc", {"env": "cartpole"}, "td3bc needs actions that are numbers, fake has choices; use iql or cql"),
        ("iql", {"network": replace(SMALL, memory="gru")}, "single steps teach no memory"),
        (
            "cql",
            {"env": "cartpole", "precision": "bfloat16"},
            "--precision is for actions that are numbers, fake has choices",
        ),
        ("cql", {"env": "cartpole", "drawn": 3}, "--drawn is for actions that are numbers"),
        ("iql", {"network": replace(SMALL, normalise=True)}, "--network.normalise is for ppo and grpo"),
        ("td3bc", {"network": replace(SMALL, dropout=0.1)}, "network.dropout 0"),
    ],
)
def test_what_cannot_be_learned_is_said(algorithm, changes, says, tmp_path):
    module = catalog.find("algorithms", algorithm)
    with pytest.raises(BadConfig, match=says):
        trained(algorithm, replace(module.DEBUG, **changes), tmp_path)


def test_a_policy_of_another_head_is_refused(tmp_path):
    trained("td3bc", td3bc.DEBUG, tmp_path / "first")
    with pytest.raises(BadConfig, match="a policy with the head 'bounded' is needed"):
        given(replace(iql.DEBUG, policy=str(tmp_path / "first")), "bounded")
    policy, _ = given(replace(td3bc.DEBUG, policy=str(tmp_path / "first")), "deterministic")
    assert policy.head_name == "deterministic"


@pytest.mark.slow
def test_acting_afterwards_teaches_what_the_data_did_not(toy_worlds, tmp_path, monkeypatch):
    import toys

    def dealt(spec):
        data = toys.open_tried(spec)
        data.arrays[ACTION] = data.arrays[ACTION][np.random.default_rng(1).permutation(len(data))]
        return data

    monkeypatch.setattr(toys, "open_dealt", dealt, raising=False)
    monkeypatch.setitem(catalog.DATASETS, "dealt", catalog.Entry("toys:open_dealt", "a toy"))
    settings = iql.Config(dataset="dealt", env="identity", steps=300, batch_size=64, lr=3e-3, actor_lr=3e-3, gamma=0.5)
    settings = replace(settings, network=WIDER, temperature=10.0, scale_rewards=False)

    def mean(folder):
        return np.mean([episode.total for episode in rollout(load_policy(folder), "identity", range(50))])

    trained("iql", settings, tmp_path / "data")
    more = replace(settings, policy=str(tmp_path / "data"), steps=0, acting=900)
    trained("iql", more, tmp_path / "acted")
    assert mean(tmp_path / "data") < 0.7 * 8 < 0.85 * 8 < mean(tmp_path / "acted")


@pytest.mark.parametrize("algorithm", ["iql", "td3bc", "cql"])
def test_a_run_of_the_same_algorithm_brings_its_critics_but_not_its_learning_rate(algorithm, tmp_path):
    module = catalog.find("algorithms", algorithm)
    trained(algorithm, replace(module.DEBUG, acting=0), tmp_path / "first")
    wanted = read(resolve(tmp_path / "first"), "critics")
    asked = replace(module.DEBUG, policy=str(tmp_path / "first"), lr=7e-5)
    policy, _ = given(asked, {"iql": "bounded", "td3bc": "deterministic", "cql": "squashed"}[algorithm])
    learner = module.Learner(policy, asked, *([] if algorithm == "iql" else [Randomness(0)]))
    strangers = {key: value.clone() for key, value in learner.critics.state_dict().items()}
    go_on(learner.parts(), asked.policy, "another")
    assert all(torch.equal(value, strangers[key]) for key, value in learner.critics.state_dict().items())
    go_on(learner.parts(), asked.policy, algorithm)
    assert all(torch.equal(value, wanted[key]) for key, value in learner.critics.state_dict().items())
    assert 7e-5 in [part.lr for part in learner.parts().values() if hasattr(part, "lr")]
    with pytest.raises(BadConfig, match="have other sizes; give the same"):
        trained(algorithm, replace(asked, network=SMALL), tmp_path / "second")


def test_who_goes_on_takes_rewards_as_its_critics_know_them(tmp_path):
    """And acts in the world that is asked for now."""
    settings = replace(iql.DEBUG, scale_rewards=True)
    trained("iql", settings, tmp_path / "first")
    _, data = given(settings, "bounded")
    assert read(resolve(tmp_path / "first"), "reward_scale")["value"] == data.reward_scale != 1
    other = replace(settings, policy=str(tmp_path / "first"), env="pendulum:repeat=2")
    policy, again = given(other, "bounded")
    assert again.reward_scale == data.reward_scale
    assert policy.spec.env.startswith("pendulum:repeat=2")


def test_half_of_a_batch_is_of_the_data_and_half_is_lived(tmp_path):
    config = replace(iql.DEBUG, dataset="fake", env="pendulum", steps=0, acting=40, batch_size=8)
    policy, data = given(config, "bounded")
    run = Run(tmp_path, checkpoint_every=1000, log_every=1)
    experience = Experience(config, policy, data, run, Randomness(0))
    ours = []
    for step in range(40):
        ours.append(experience.batch(step))
        run.fresh = False
    lived = experience.replay
    assert all(
        torch.equal(batch[ACTION], data.batch(8, at=step, seed=0)[ACTION]) for step, batch in enumerate(ours[:8])
    )
    new = ours[-1]
    assert torch.equal(new[ACTION][:4], data.batch(4, at=39, seed=0)[ACTION])
    rewards = lived.arrays["reward"][0, :40] * np.float32(data.reward_scale)
    assert set(new["reward"][4:].tolist()) <= set(rewards.tolist())
    assert not set(new["reward"][:4].tolist()) & set(rewards.tolist())
    assert new[STATE].shape == new[NEXT + STATE].shape == (8, 1, 3)
    experience.close()
