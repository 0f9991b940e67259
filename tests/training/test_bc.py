"""Behaviour cloning against sums done by hand, and demonstrators that are easy to copy."""

import math
from dataclasses import replace

import hub
import numpy as np
import pytest
import torch
import toys

from drivetrain import checkpoint, config
from drivetrain.data.episodes import Episodes
from drivetrain.data.open import open_dataset
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import make_env
from drivetrain.errors import BadConfig, BadData, SpecMismatch
from drivetrain.models.driver import Network, build_policy
from drivetrain.run import Run, read_metrics
from drivetrain.sample import ACTION, EXPERT_ACTION, EXPERT_WORDS, FRONT, STATE, Feature, Spec
from drivetrain.training.il import bc
from drivetrain.training.il.bc import Config, losses, tensors
from drivetrain.transforms import Normalise, Rescale

SMALL = Network(hidden=(16,), activation="relu", camera_width=16)
NUMBERS = Config(dataset="shown-continuous", env="identity-continuous", steps=300, lr=1e-2, network=SMALL)


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("bc", config.to_json(settings))
    return bc.train(settings, run)


def mean_return(policy, env, episodes=20):
    return np.mean([episode.total for episode in rollout(policy, env, range(episodes))])


def batch_of(actions, seen, valid=None):
    actions, seen = torch.as_tensor(actions), torch.as_tensor(seen, dtype=torch.float32)
    count, length = seen.shape[:2]
    return {
        STATE: seen,
        ACTION: actions,
        "is_first": torch.arange(length).eq(0).expand(count, length),
        "valid": torch.ones(count, length, dtype=torch.bool) if valid is None else torch.as_tensor(valid),
    }


def test_an_even_policy_pays_the_logarithm_of_the_number_of_choices():
    policy = build_policy(Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=5)}), SMALL, "categorical")
    for p in policy.head.parameters():
        torch.nn.init.zeros_(p)
    found = losses(policy, batch_of([[0], [4]], [[[1.0, 2.0]], [[3.0, 4.0]]]))
    assert float(found["loss/action"]) == pytest.approx(math.log(5), abs=1e-6)


def test_smoothing_spreads_a_share_of_the_label_over_all_choices():
    policy = build_policy(Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=3)}), SMALL, "categorical")
    batch = batch_of([[2]], [[[1.0, 2.0]]])
    with torch.no_grad():
        list(policy.head.parameters())[-1].copy_(torch.tensor([0.0, 1.0, 2.0]))
        seen, _ = policy.features({STATE: batch[STATE]}, {}, batch["is_first"])
        chances = torch.tensor([float(policy.head(seen).log_prob(torch.tensor([[k]]))) for k in range(3)]).exp()
    assert chances.max() > 2 * chances.min()
    weights = torch.tensor([0.1, 0.1, 0.8])
    wanted = -(weights * chances.log()).sum()
    assert losses(policy, batch, smoothing=0.3)["loss/action"].item() == pytest.approx(float(wanted), abs=1e-5)


def test_padding_teaches_nothing():
    spec = Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=3)})
    policy = build_policy(spec, SMALL, "categorical")
    seen = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    valid = [[True, True, False], [True, False, False]]
    one = losses(policy, batch_of([[0, 1, 2], [2, 2, 2]], seen, valid))
    seen[0, 2], seen[1, 1:] = 99.0, -99.0
    other = losses(policy, batch_of([[0, 1, 0], [2, 0, 1]], seen, valid))
    assert float(one["loss/action"]) == float(other["loss/action"])


def test_the_demonstrators_numbers_are_learned_in_the_range_of_the_head():
    """A deterministic head is off by the squared distance in parts of half the range."""
    spec = Spec({STATE: Feature((1,)), ACTION: Feature((2,), low=(-2.0, 0.0), high=(4.0, 1.0))})
    policy = build_policy(spec, SMALL, "deterministic")
    for p in policy.head.parameters():
        torch.nn.init.zeros_(p)  # it does the middle of the range: 1 and 0.5
    found = losses(policy, batch_of([[[4.0, 0.5]], [[1.0, 0.0]]], [[[0.0]], [[0.0]]]))
    assert float(found["loss/action"]) == pytest.approx(1.0, abs=1e-5)
    action, _, _ = policy.act({STATE: np.zeros((3, 1), np.float32)}, {}, greedy=True, generator=None)
    np.testing.assert_allclose(action, np.tile([1.0, 0.5], (3, 1)), atol=1e-6)


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "squashed", "beta"])
def test_every_head_for_numbers_learns_and_gives_the_worlds_units_back(head, toy_worlds, tmp_path):
    policy = trained(replace(NUMBERS, head=head), tmp_path)
    assert mean_return(checkpoint.load_policy(tmp_path), "identity-continuous") > -0.15 * 8
    rescale = next(t for t in policy.transforms if isinstance(t, Rescale))
    assert (rescale.low, rescale.high) == ((toys.LOW,), (toys.HIGH,))


def test_the_state_is_normalised_by_the_data_and_the_checkpoint_remembers_how(toy_worlds, tmp_path):
    policy = trained(NUMBERS, tmp_path)
    learn, _ = bc.open_data(NUMBERS)
    told = learn.statistics()[STATE]
    for transforms in (policy.transforms, checkpoint.load_policy(tmp_path).transforms):
        normalise = next(t for t in transforms if isinstance(t, Normalise))
        np.testing.assert_allclose(normalise.mean, told["mean"], rtol=1e-6)
        np.testing.assert_allclose(normalise.std, told["std"], rtol=1e-6)


def stepped(spec):
    """Two short episodes and more like them, whose pictures say which frame they are."""
    lengths = np.array([3, 5, 4, 6])
    count = lengths.sum()
    frames = np.arange(count, dtype=np.uint8)
    pictures = np.broadcast_to(frames[:, None, None, None], (count, 40, 150, 3)).copy()
    zeros = np.zeros(count, dtype=bool)
    arrays = {FRONT: pictures, ACTION: np.arange(count) % 2, "next.reward": np.zeros(count, np.float32)}
    return Episodes(spec, {**arrays, "next.terminated": zeros, "next.truncated": zeros}, lengths)


def test_frames_are_stacked_in_the_data_as_the_world_stacks_them(monkeypatch, tmp_path):
    monkeypatch.setattr(bc, "open_dataset", lambda name, spec: stepped(spec))
    settings = replace(bc.DEBUG, dataset="stepped", env="cartpole-pixels", frame_stack=3, network=SMALL)
    learn, held_out = bc.open_data(settings)
    firsts = set((np.cumsum([3, 5, 4, 6]) - [3, 5, 4, 6]).tolist())
    for data in (learn, held_out):
        seen = data.windows(np.arange(len(data)))[FRONT][:, 0, 0, 0, ::3].astype(int)  # [N, 3], oldest first
        for oldest, middle, newest in seen:
            assert middle == newest - (newest not in firsts)
            assert oldest == middle - (middle not in firsts)
    policy = trained(settings, tmp_path)
    assert policy.spec.env == "cartpole-pixels:stack=3"
    policy.spec.require(make_env(policy.spec.env).sample_spec)
    assert len(list(rollout(policy, policy.spec.env, [0, 1]))) == 2


def test_held_out_episodes_are_never_trained_on(toy_worlds):
    learn, held_out = bc.open_data(replace(NUMBERS, held_out=0.25))
    assert (learn.episodes, held_out.episodes) == (30, 10)
    inside, outside = ({tuple(row) for row in data.values(STATE)} for data in (learn, held_out))
    assert not inside & outside


def test_where_nothing_is_held_out_all_is_trained_on(toy_worlds, tmp_path):
    settings = replace(NUMBERS, held_out=0.0, check_every=1, steps=3)
    learn, held_out = bc.open_data(settings)
    assert (learn.episodes, held_out) == (40, None)
    trained(settings, tmp_path)
    rows = read_metrics(tmp_path)
    assert rows
    assert not any("held_out" in key for row in rows for key in row)


def test_what_was_done_can_be_cloned_instead_of_what_was_meant(monkeypatch):
    data = open_dataset("fake", make_env("cartpole").sample_spec)
    meant = 1 - data.values(ACTION)
    data.arrays[EXPERT_ACTION] = meant
    data.spec = replace(data.spec, features={**data.spec.features, EXPERT_ACTION: data.spec.action})
    monkeypatch.setattr(bc, "open_dataset", lambda *_: data)
    for as_done, wanted in ((True, data.values(ACTION)), (False, meant)):
        learn, _ = bc.open_data(replace(bc.DEBUG, held_out=0.0, as_done=as_done))
        np.testing.assert_array_equal(learn.values(ACTION), wanted)


def test_the_held_out_loss_falls(toy_worlds, tmp_path):
    trained(replace(NUMBERS, check_every=10), tmp_path)
    found = [row["held_out/loss"] for row in read_metrics(tmp_path) if "held_out/loss" in row]
    assert len(found) == 30
    assert found[-1] < 0.1 * found[0]


def test_one_that_remembers_copies_what_one_that_does_not_cannot(toy_worlds, tmp_path, monkeypatch):
    """The demonstrator of `recall` answers with the sign shown at the start."""
    monkeypatch.setattr(bc, "open_dataset", lambda name, spec: recalled(spec))
    settings = Config(dataset="recalled", env="recall", steps=200, batch_size=32, length=4, lr=2e-2, network=SMALL)
    memory = replace(SMALL, memory="gru", memory_width=16)
    assert mean_return(trained(replace(settings, network=memory), tmp_path / "with"), "recall", 50) > 0.95
    assert mean_return(trained(settings, tmp_path / "without"), "recall", 100) < 0.7


def recalled(spec):
    signs = np.arange(40) % 2
    seen = np.zeros((40, 4, 2), dtype=np.float32)
    seen[:, 0, 0], seen[:, 3, 1] = 2 * signs - 1, 1
    columns = {STATE: seen.reshape(-1, 2), ACTION: np.repeat(signs, 4), "next.reward": np.zeros(160, np.float32)}
    ends = np.arange(160) % 4 == 3
    return Episodes(spec, {**columns, "next.terminated": ends, "next.truncated": np.zeros(160, bool)}, [4] * 40)


@pytest.mark.slow
def test_shuffled_actions_teach_nothing(toy_worlds, tmp_path, monkeypatch):
    def shuffled(name, spec):
        data = toys.open_shown(spec)
        data.arrays[ACTION] = np.random.default_rng(0).permutation(data.arrays[ACTION])
        return data

    settings = Config(dataset="shown", env="identity", steps=150, lr=1e-2, network=SMALL)
    assert mean_return(trained(settings, tmp_path / "true"), "identity") > 7.5
    monkeypatch.setattr(bc, "open_dataset", shuffled)
    assert mean_return(trained(settings, tmp_path / "shuffled"), "identity") < 6


def test_a_batch_is_a_function_of_seed_and_step(toy_worlds):
    learn, _ = bc.open_data(NUMBERS)
    one, again, later, other = (
        tensors(learn.batch(16, at=at, seed=seed))[STATE] for at, seed in ((3, 0), (3, 0), (4, 0), (3, 1))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, later)
    assert not torch.equal(one, other)


def test_data_of_another_world_is_refused(toy_worlds, tmp_path):
    trained(NUMBERS, tmp_path / "first")
    with pytest.raises(SpecMismatch):
        trained(replace(NUMBERS, dataset="shown", env="identity", policy=str(tmp_path / "first")), tmp_path / "second")
    with pytest.raises(BadData):
        bc.open_data(replace(NUMBERS, dataset=str(tmp_path / "nowhere")))


@pytest.fixture(scope="module")
def git(tmp_path_factory):
    """A small GIT in the hub's layout; as the published one it has dropout."""
    return str(hub.git(tmp_path_factory.mktemp("hub") / "git"))


def reading(git, **more):
    eyes = Network(hidden=(16,), activation="relu", backbone=git, **more)
    return Config(
        dataset="fake", env="cartpole-pixels", steps=6, batch_size=4, check_every=3, held_out=0.25, network=eyes
    )


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_backbone_learns_and_resumes_to_the_same_bits(git, tune, tmp_path):
    wanted = reading(git, tune=tune)

    def run(folder, **how):
        run = Run(tmp_path / folder, checkpoint_every=2, quiet=True, **how)
        run.begin("bc", config.to_json(wanted))
        return run

    whole = bc.train(wanted, run("whole")).state_dict()
    cut = run("cut", on_save=lambda step: (_ for _ in ()).throw(KeyboardInterrupt) if step == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        bc.train(wanted, cut)
    again = bc.train(wanted, run("cut", resume=True)).state_dict()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    parts = {path.name for path in (tmp_path / "cut" / "model").iterdir()}
    assert {"head.safetensors", "head.json"} <= parts
    assert ("adapter_config.json" in parts) == (tune == "lora")


def test_words_are_learned_in_the_same_pass(git, toy_worlds, tmp_path):
    """A sentence for each frame that the picture decides: its loss falls, and the policy says it."""
    random = np.random.default_rng(0)
    shade = random.integers(0, 2, 60)
    pictures = np.broadcast_to((40 + 170 * shade).astype(np.uint8)[:, None, None, None], (60, 32, 32, 3)).copy()
    names = ("turn left", "turn right")
    spec = Spec(
        {
            FRONT: Feature((32, 32, 3), "uint8", colour="rgb"),
            ACTION: Feature((), "int64", names=("left", "right"), choices=2),
            EXPERT_WORDS: Feature((), "int64", names=names, choices=2),
        },
        "what should the vehicle do",
    )
    data = Episodes(spec, {FRONT: pictures, ACTION: shade, EXPERT_WORDS: shade}, [30, 30])
    wanted = replace(reading(git), dataset="shades", env="", words=1.0, lr=3e-3)
    torch.manual_seed(0)
    policy = bc.begin(wanted, data)
    optimizer = bc.optimiser(policy, wanted)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 1)
    losses = []
    for step in range(40):
        batch = tensors(data.batch(16, at=step, seed=0))
        losses.append(bc.improve(policy, optimizer, schedule, batch, wanted))
    assert losses[-1]["loss/words"] < 0.2 * losses[0]["loss/words"]
    assert float(losses[-1]["loss"]) == pytest.approx(
        float(losses[-1]["loss/words"] + losses[-1]["loss/action"]), abs=1e-5
    )
    shown = torch.from_numpy(pictures[:8])[:, None]
    said = policy.eval().reader.say(*policy.looked_at({FRONT: shown}))
    assert said == [names[i] for i in shade[:8]]


def test_words_that_cannot_be_learned_are_refused(git, tmp_path):
    spec = Spec({FRONT: Feature((32, 32, 3), "uint8", colour="rgb"), ACTION: Feature((), "int64", choices=2)}, "go")
    data = Episodes(spec, {FRONT: np.zeros((4, 32, 32, 3), np.uint8), ACTION: np.zeros(4, np.int64)}, [2, 2])
    with pytest.raises(BadConfig, match=r"has no expert\.words to learn"):
        bc.begin(replace(reading(git), env="", words=1.0), data)
    told = replace(spec, features={**spec.features, EXPERT_WORDS: Feature((), "int64", names=("a", "b"), choices=2)})
    worded = Episodes(told, {**data.arrays, EXPERT_WORDS: np.zeros(4, np.int64)}, [2, 2])
    frozen = replace(reading(git).network, tune="frozen")
    with pytest.raises(BadConfig, match="a frozen backbone learns no words"):
        bc.begin(replace(reading(git), env="", words=1.0, network=frozen), worded)
    with pytest.raises(BadConfig, match="words are learned by a vision-language model"):
        bc.begin(replace(reading(git), env="", words=1.0, network=SMALL), worded)
    plain = bc.begin(replace(reading(git), env="", network=SMALL), worded)
    checkpoint.save(tmp_path, 1, {"policy": plain})
    with pytest.raises(BadConfig, match="can say no sentences, and fake has others to learn"):
        bc.begin(replace(reading(git), env="", words=1.0, network=SMALL, policy=str(tmp_path)), worded)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"network": replace(SMALL, memory="gru")},
            "--network.memory is gru, and the policy of .* has none, which stays",
        ),
        ({"network": replace(SMALL, state_layers=(8,))}, "--network.state-layers"),
        ({"head": "gaussian"}, "--head is gaussian, and the policy of .* has deterministic"),
    ],
)
def test_who_goes_on_from_a_policy_cannot_ask_for_another_network(changes, says, toy_worlds, tmp_path):
    trained(replace(NUMBERS, steps=2), tmp_path / "first")
    on = replace(NUMBERS, steps=2, policy=str(tmp_path / "first"))
    with pytest.raises(BadConfig, match=says):
        trained(replace(on, **changes), tmp_path / "refused")
    trained(replace(on, network=replace(SMALL, hidden=(8,)), head="deterministic"), tmp_path / "went")
