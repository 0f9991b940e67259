"""A checkpoint: one folder that needs nothing else, written whole or not at all.

    checkpoints/000050000/
        policy.json policy.safetensors      how to build the policy, its spec and transforms, its weights
        optimizer.* random.* replay.* ...   what training needs to go on exactly; acting needs none of it
        manifest.json                       written last: the step, and size and SHA-256 of every file
    checkpoints/last                        a link to the newest; `best` where an evaluation chose one

A part is anything with `state_dict` and `load_state_dict`. Its arrays go to safetensors and the rest to JSON: nothing is
pickled, so opening a stranger's checkpoint runs none of their code.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from drivetrain import catalog
from drivetrain.errors import BadCheckpoint, DiskTrouble
from drivetrain.sample import Policy

FORMAT = 1


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@runtime_checkable
class Described(Protocol):
    """A part that can be built anew from its own description; its weights are kept beside it."""

    def describe(self) -> dict[str, Any]: ...


class Randomness:
    """Every random stream of a training run, so that a resumed run draws what an uninterrupted one would have drawn."""

    def __init__(self, seed: int):
        torch.manual_seed(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.numpy = np.random.Generator(np.random.PCG64(seed))

    def state_dict(self) -> dict[str, Any]:
        numpy = json.dumps(self.numpy.bit_generator.state)
        return {"torch": self.torch.get_state(), "global": torch.get_rng_state(), "numpy": numpy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.torch.set_state(state["torch"])
        torch.set_rng_state(state["global"])
        self.numpy.bit_generator.state = json.loads(state["numpy"])


def save(run_folder: Path, step: int, parts: Mapping[str, Stateful], *, keep: int = 2) -> Path:
    """Write a checkpoint, point `last` at it, and remove all but the newest `keep` (never `best`)."""
    folder = run_folder / "checkpoints"
    target, scratch = folder / f"{step:09d}", folder / f".writing-{step:09d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_scratch(folder)
        scratch.mkdir()
        _write_parts(scratch, step, parts)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
        name_last(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        good = steps_in(run_folder)
        last = f"the last good one is step {good[-1]}" if good else "there is none yet"
        raise DiskTrouble(
            f"DiskTrouble: the checkpoint of step {step} could not be written under {folder} ({error.strerror}); "
            f"{last}; make room and go on with --resume"
        ) from error
    _prune(folder, keep)
    return target


def _clear_scratch(folder: Path) -> None:
    for left in folder.glob(".writing-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)


def _write_parts(scratch: Path, step: int, parts: Mapping[str, Stateful]) -> None:
    files = {}
    for name, part in parts.items():
        state = {**part.describe(), "weights": part.state_dict()} if isinstance(part, Described) else part.state_dict()
        tree, arrays = pack(state)
        contents = {f"{name}.json": json.dumps(tree).encode()}
        if arrays:
            contents[f"{name}.safetensors"] = save_tensors(arrays)
        for file, content in contents.items():
            write_synced(scratch / file, content)
            files[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"format": FORMAT, "step": step, "files": files}
    write_synced(scratch / "manifest.json", json.dumps(manifest, indent=1).encode())
    _sync(scratch)


def write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(link: Path, target: str) -> None:
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _prune(folder: Path, keep: int) -> None:
    best = (folder / "best").resolve().name if (folder / "best").exists() else ""
    whole = sorted(p for p in folder.iterdir() if p.name.isdigit())
    for old in whole[:-keep]:
        if old.name != best:
            shutil.rmtree(old, ignore_errors=True)


def name_last(checkpoint: Path) -> None:
    """Let `last` name this checkpoint; a kill may have come between writing it and naming it."""
    _link(checkpoint.parent / "last", checkpoint.name)


def name_best(checkpoint: Path) -> None:
    """Let `best` name this checkpoint, so that it stays."""
    _link(checkpoint.parent / "best", checkpoint.name)


def steps_in(run_folder: Path) -> list[int]:
    """The steps of the checkpoints that are whole, oldest first."""
    folder = run_folder / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / "manifest.json").exists())


def resolve(path: str | Path) -> Path:
    """The checkpoint meant by a run folder, `RUN/best`, `RUN/last`, a checkpoint folder itself, or a policy of the catalog."""
    if str(path) in catalog.POLICIES and not Path(path).exists():
        return Path(__file__).resolve().parent / "policies" / catalog.POLICIES[str(path)].target
    path = Path(path)
    last = path / "checkpoints" / "last"
    newest = [] if last.exists() else [path / "checkpoints" / f"{step:09d}" for step in steps_in(path)[-1:]]
    for candidate in (path, path.parent / "checkpoints" / path.name, last, *newest):  # what `last` named may be removed
        if (candidate / "manifest.json").exists():
            return candidate.resolve()
    if not path.exists():
        near = difflib.get_close_matches(str(path), catalog.POLICIES, n=1)
        meant = f"did you mean {near[0]}?" if near else "give a run folder or one of its checkpoints"
        raise BadCheckpoint(f"BadCheckpoint: {path} does not exist; {meant}")
    raise BadCheckpoint(f"BadCheckpoint: {path} holds no whole checkpoint; train it first, or go on with --resume")


def read(checkpoint: Path, part: str) -> dict[str, Any]:
    """One part's state, checked against the manifest."""
    manifest = read_manifest(checkpoint)
    if f"{part}.json" not in manifest["files"]:
        raise BadCheckpoint(f"BadCheckpoint: {checkpoint} has no {part}; it holds {', '.join(manifest['files'])}")
    tree = json.loads(_checked(checkpoint, f"{part}.json", manifest))
    name = f"{part}.safetensors"
    try:
        arrays = load_tensors(_checked(checkpoint, name, manifest)) if name in manifest["files"] else {}
    except SafetensorError as error:
        raise BadCheckpoint(f"BadCheckpoint: {checkpoint / name} cannot be read ({error}); use an older one") from error
    return unpack(tree, arrays)


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / "manifest.json").read_bytes())
        found, _ = manifest["format"], manifest["files"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadCheckpoint(
            f"BadCheckpoint: {checkpoint}/manifest.json cannot be read; use another checkpoint"
        ) from error
    if found != FORMAT:
        raise BadCheckpoint(
            f"BadCheckpoint: {checkpoint} has format {found}, this drivetrain reads {FORMAT}; "
            "open it with the version that wrote it"
        )
    return manifest


def _checked(checkpoint: Path, file: str, manifest: dict[str, Any]) -> bytes:
    wanted = manifest["files"][file]
    try:
        content = (checkpoint / file).read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"BadCheckpoint: {checkpoint / file} is missing; {_others(checkpoint)}") from error
    if len(content) != wanted["bytes"]:
        raise BadCheckpoint(
            f"BadCheckpoint: {checkpoint / file} has {len(content)} bytes, expected {wanted['bytes']}; {_others(checkpoint)}"
        )
    if hashlib.sha256(content).hexdigest() != wanted["sha256"]:
        raise BadCheckpoint(
            f"BadCheckpoint: {checkpoint / file} is corrupt (its SHA-256 differs); {_others(checkpoint)}"
        )
    return content


def _others(checkpoint: Path) -> str:
    run = checkpoint.parent.parent
    others = [s for s in steps_in(run) if f"{s:09d}" != checkpoint.name]
    return f"remove {checkpoint} and step {others[-1]} is used" if others else "there is no older one: train again"


def load(checkpoint: Path, parts: Mapping[str, Stateful]) -> int:
    """Put every part back as it was; returns the step."""
    states = {name: read(checkpoint, name) for name in parts}
    for name, part in parts.items():
        part.load_state_dict(states[name]["weights"] if isinstance(part, Described) else states[name])
    return int(read_manifest(checkpoint)["step"])


def load_policy(path: str | Path) -> Policy:
    """The policy of a run or checkpoint, ready to act."""
    checkpoint = resolve(path)
    state = read(checkpoint, "policy")
    policy: Policy = built_by(state, checkpoint).from_state(state)
    return policy


def built_by(state: Mapping[str, Any], checkpoint: str | Path) -> Any:
    """The class that a policy's state wants to be built by."""
    module, _, thing = state["build"].partition(":")
    if not module.startswith("drivetrain."):
        raise BadCheckpoint(
            f"BadCheckpoint: {checkpoint} wants to be built by {module}; only drivetrain's own code may"
        )
    return getattr(importlib.import_module(module), thing)


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A nested state as JSON in which every array is a reference, and the arrays."""
    arrays: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, np.ndarray):
            arrays[path] = torch.from_numpy(np.array(value, order="C"))  # a copy: no two may share memory
            return {"__array__": path}
        if isinstance(value, Tensor):
            arrays[path] = value.detach().cpu().contiguous().clone()
            return {"__tensor__": path}
        if isinstance(value, Mapping):
            if all(isinstance(key, str) for key in value):
                return {key: walk(v, f"{path}.{key}".lstrip(".")) for key, v in value.items()}
            return {"__items__": [[key, walk(v, f"{path}.{key}".lstrip("."))] for key, v in value.items()]}
        if isinstance(value, list | tuple):
            return [walk(v, f"{path}.{i}".lstrip(".")) for i, v in enumerate(value)]
        if isinstance(value, np.generic):
            return value.item()
        return value

    return walk(state, ""), arrays


def unpack(tree: Any, arrays: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [unpack(v, arrays) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "__array__" in tree:
        return arrays[tree["__array__"]].numpy()
    if "__tensor__" in tree:
        return arrays[tree["__tensor__"]]
    if "__items__" in tree:
        return {key: unpack(v, arrays) for key, v in tree["__items__"]}
    return {key: unpack(v, arrays) for key, v in tree.items()}
