"""Checkpoints: whole or not at all, checked when read, and in need of nothing outside their folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivetrain import checkpoint
from drivetrain.checkpoint import Randomness, load, load_policy, name_best, pack, resolve, save, steps_in, unpack
from drivetrain.errors import BadCheckpoint, DiskTrouble
from drivetrain.models.driver import Network, build_policy
from drivetrain.sample import ACTION, STATE, Feature, Spec
from drivetrain.transforms import Normalise, Rescale

SPEC = Spec({STATE: Feature((3,), names=("x_m", "y_m", "z_m")), ACTION: Feature((2,), low=-2.0, high=1.0)}, "Go.", 10.0)
CHANGES = (Normalise(STATE, (0.5, 0.0, -1.0), (2.0, 1.0, 3.0)), Rescale(ACTION, (-2.0, -2.0), (1.0, 1.0)))


class Part:
    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def driver(seed=0):
    torch.manual_seed(seed)
    return build_policy(SPEC, Network(hidden=(8,), memory="gru", memory_width=4), "gaussian", CHANGES)


def saved(folder, step=10, **parts):
    return save(folder, step, {"policy": driver(), "count": Part({"n": step}), **parts})


def conduct(policy):
    generator = torch.Generator().manual_seed(3)
    seen = {STATE: np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}
    action, memory, _ = policy.act(seen, policy.initial(4), greedy=False, generator=generator)
    return action, policy.act(seen, memory, greedy=True, generator=None)[0]


states = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.", max_size=3), inner),
    max_leaves=12,
)


@pytest.mark.slow
@given(states)
def test_any_plain_state_survives_json(state):
    tree, arrays = pack(state)
    assert unpack(json.loads(json.dumps(tree)), arrays) == state


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "int32"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_come_back_as_they_were(dtype, shape, tmp_path):
    values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    turned = values.T[::-1] if values.ndim else values  # a view, and not contiguous
    ours = {"of": {"numpy": values, 3: torch.from_numpy(np.array(values)), "turned": turned}}
    save(tmp_path, 1, {"part": Part(ours)})
    found = checkpoint.read(resolve(tmp_path), "part")["of"]
    assert isinstance(found["numpy"], np.ndarray)
    assert isinstance(found[3], torch.Tensor)
    for key, value in found.items():
        array = np.asarray(value)
        assert (array.dtype, array.shape) == (np.dtype(dtype), np.asarray(ours["of"][key]).shape)
        np.testing.assert_array_equal(array, np.asarray(ours["of"][key]))


def test_an_optimizer_goes_on_as_if_nothing_had_been(tmp_path):
    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    one = torch.nn.Linear(3, 2)
    first = torch.optim.AdamW(one.parameters(), lr=0.1)
    step(one, first)
    save(tmp_path, 1, {"model": one, "optimizer": first})
    two = torch.nn.Linear(3, 2)
    second = torch.optim.AdamW(two.parameters(), lr=0.7)
    assert load(resolve(tmp_path), {"model": two, "optimizer": second}) == 1
    for _ in range(3):
        step(one, first)
        step(two, second)
    assert torch.equal(one.weight, two.weight)
    assert second.param_groups[0]["lr"] == 0.1


def test_randomness_goes_on_where_it_was(tmp_path):
    one = Randomness(4)
    torch.rand(3), torch.rand(3, generator=one.torch), one.numpy.random(3)
    save(tmp_path, 1, {"random": one})

    def draw(random):
        return [
            *torch.rand(3).tolist(),
            *torch.rand(3, generator=random.torch).tolist(),
            *random.numpy.random(3).tolist(),
        ]

    expected = draw(one)
    two = Randomness(5)
    load(resolve(tmp_path), {"random": two})
    assert draw(two) == expected


def test_a_policy_comes_back_with_spec_transforms_and_weights(tmp_path):
    saved(tmp_path)
    found = load_policy(tmp_path)
    assert found.spec == SPEC
    assert found.transforms == CHANGES
    assert not found.training
    for ours, theirs in zip(conduct(driver()), conduct(found), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_checkpoint_needs_nothing_but_its_folder(tmp_path):
    """Moved elsewhere, the run deleted, opened by another process that knows only the path."""
    away = tmp_path / "away"
    shutil.copytree(saved(tmp_path / "run"), away)
    shutil.rmtree(tmp_path / "run")
    program = """
import sys, numpy as np
from drivetrain.checkpoint import load_policy
policy = load_policy(sys.argv[1])
seen = {"observation.state": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}
print(policy.act(seen, policy.initial(4), greedy=True, generator=None)[0].tolist())
"""
    said = subprocess.run(
        [sys.executable, "-c", program, str(away)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    seen = {STATE: np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}
    ours = driver().act(seen, driver().initial(4), greedy=True, generator=None)[0]
    np.testing.assert_array_equal(json.loads(said.stdout), ours.tolist())
    assert {f.name for f in away.iterdir()} >= {"policy.json", "policy.safetensors", "manifest.json"}


def test_nothing_is_pickled(tmp_path):
    folder = saved(tmp_path, optimizer=torch.optim.Adam(driver().parameters()))
    assert {f.suffix for f in folder.iterdir()} == {".json", ".safetensors"}


def test_a_checkpoint_that_wants_foreign_code_is_refused(tmp_path):
    class Stranger(Part):
        def describe(self):
            return {"build": "os:system"}

    save(tmp_path, 1, {"policy": Stranger({})})
    with pytest.raises(BadCheckpoint, match="only drivetrain's own code"):
        load_policy(tmp_path)


@pytest.mark.parametrize("file", ["policy.json", "policy.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "gone"])
def test_a_harmed_file_is_one_clear_line(file, harm, tmp_path):
    saved(tmp_path, 10)
    path = saved(tmp_path, 20) / file
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:middle], "flipped": flipped, "empty": b""}[harm])
    with pytest.raises(BadCheckpoint) as refused:
        load_policy(tmp_path)
    assert "\n" not in str(refused.value)
    assert load_policy(tmp_path / "checkpoints" / f"{10:09d}").spec == SPEC


def test_the_line_names_the_step_to_go_back_to(tmp_path):
    saved(tmp_path, 10)
    path = saved(tmp_path, 20) / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match=r"expected \d+; remove .* and step 10 is used"):
        load_policy(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"format": 99}', '{"format": 1}', "\x00"])
def test_a_manifest_of_another_kind_is_refused(content, tmp_path):
    (saved(tmp_path) / "manifest.json").write_text(content)
    with pytest.raises(BadCheckpoint):
        load_policy(tmp_path)


def test_a_missing_part_is_named(tmp_path):
    saved(tmp_path)
    with pytest.raises(BadCheckpoint, match="has no optimizer; it holds policy"):
        load(resolve(tmp_path), {"optimizer": Part()})


def test_every_name_of_a_checkpoint_leads_to_it(tmp_path):
    old = saved(tmp_path, 10)
    new = saved(tmp_path, 20)
    name_best(old)
    for path in (tmp_path, tmp_path / "last", tmp_path / "checkpoints" / "last", new):
        assert resolve(path) == new.resolve()
    assert resolve(tmp_path / "best") == resolve(old) == old.resolve()


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_is_no_run_is_refused(path, tmp_path):
    with pytest.raises(BadCheckpoint):
        resolve(tmp_path / path)


def test_the_newest_are_kept_and_the_best_as_well(tmp_path):
    name_best(saved(tmp_path, 10))
    for step in (20, 30, 40):
        saved(tmp_path, step)
    assert steps_in(tmp_path) == [10, 30, 40]
    saved(tmp_path, 50)
    assert steps_in(tmp_path) == [10, 40, 50]


def test_the_same_step_again_replaces_it(tmp_path):
    save(tmp_path, 10, {"count": Part({"n": 1})})
    save(tmp_path, 10, {"count": Part({"n": 2})})
    assert checkpoint.read(resolve(tmp_path), "count") == {"n": 2}


class Broken(Part):
    def state_dict(self):
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_leaves_the_last_one_as_it_was(tmp_path):
    saved(tmp_path, 10)
    says = r"step 20 could not be written .*No space left.* step 10; make room"
    with pytest.raises(DiskTrouble, match=says) as refused:
        saved(tmp_path, 20, replay=Broken())
    assert "\n" not in str(refused.value)
    assert steps_in(tmp_path) == [10]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000000010", "last"]
    assert load_policy(tmp_path).spec == SPEC


def test_what_a_killed_process_left_is_cleared_and_never_read(tmp_path):
    saved(tmp_path, 10)
    left = tmp_path / "checkpoints" / ".writing-000000020-99999"
    shutil.copytree(resolve(tmp_path), left)
    unfinished = tmp_path / "checkpoints" / f"{15:09d}"
    unfinished.mkdir()
    assert steps_in(tmp_path) == [10]
    saved(tmp_path, 30)
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_is_said_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskTrouble):
        saved(tmp_path)


def test_the_folder_is_found_from_a_relative_path(tmp_path, monkeypatch):
    one = saved(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path)
    assert resolve("runs/one") == resolve(Path("runs/one/checkpoints/last")) == one.resolve()
