"""The data sets of offline reinforcement learning in their own files: D4RL's, and Minari's. Read and written with h5py alone.

    open_d4rl("hopper_medium_replay-v2.hdf5")      observations, actions, rewards, terminals, timeouts: all episodes end to end
    open_minari("hopper/medium-v0")                data/main_data.hdf5 with a group for each episode, data/metadata.json
    write_d4rl(episodes, "mine.hdf5")              and write_minari(episodes, "mine")

Numbers become `observation.state`, a Dict's end to end in its own order; a picture becomes `observation.images.front`, or of
several each its own. Files written here say of which world they are, with its options and every feature. Of others Minari's
`env_spec` or a D4RL file's name tells, and where it is one of ours the features are that world's, with names and bounds, so
that what is learned can be evaluated there. D4RL was recorded on Gymnasium's runners of version 2, ours are of version 5: the
same body, a different simulator.

Minari keeps what an episode's last step led to, and our data sets do not. Written as Minari, the last step of an episode that
a time limit cut is left out, and what was seen there is what it led to; of one that terminated the last observation stands
twice, for nothing comes of it. D4RL has neither.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from drivetrain import catalog
from drivetrain.data.episodes import Episodes
from drivetrain.errors import BadData, MissingExtra
from drivetrain.sample import ACTION, FRONT, REWARD, STATE, TERMINATED, TRUNCATED, Feature, Spec, is_image

MAIN, METADATA = "data/main_data.hdf5", "data/metadata.json"
KEPT = ("observations", "actions", "rewards", "terminals", "timeouts")
OURS = {
    "hopper": "hopper",
    "halfcheetah": "halfcheetah",
    "walker2d": "walker2d",
    "cartpole": "cartpole",
    "pendulum": "pendulum",
}
OWN = "drivetrain_spec"  # what files of ours say besides: every feature, and the world with its options
THEIRS = {STATE: "observations", ACTION: "actions", REWARD: "rewards"}  # what a file calls it
DAMAGED = (
    OSError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)  # what h5py raises on bytes that are not what they were
NEAR = 1e-6  # of what follows a step to what D4RL wrote as its next observation, where it did not write the timeouts


def is_minari(folder: Path) -> bool:
    return (folder / METADATA).is_file()


def open_d4rl(path: str | Path, spec: Spec | None = None) -> Episodes:
    """All episodes; what follows the last end in the file is an episode that was cut."""
    path = Path(path)
    with _opened(path) as file:
        found = {key: _array(file, key, path) for key in KEPT if key != "timeouts"}
        _refuse_lengths(found, path)
        found["timeouts"] = _timeouts(file, found, path)
        _refuse_lengths(found, path)
        said = dict(file.attrs)
    terminated, limits = (_flags(found[key], f"{path}: {key}") for key in ("terminals", "timeouts"))
    last = terminated | limits
    last[-1] = True
    lengths = np.diff(np.concatenate([[-1], np.flatnonzero(last)]))
    observations = {STATE: found["observations"]}
    arrays = _arrays(observations, found["actions"], found["rewards"], terminated, last & ~terminated)
    own = _own(said, path) or _world(path.name.replace("-", "_").split("_")[0])
    return _episodes(arrays, lengths, spec, own, None, path)


def _refuse_lengths(found: Mapping[str, np.ndarray], path: Path) -> None:
    count = len(found["rewards"])
    for key, values in found.items():
        if len(values) != count:
            raise BadData(f"BadData: {path}: {key} has {len(values)} rows, rewards has {count}; they must be as many")
    if not count:
        raise BadData(f"BadData: {path}: rewards has no rows; give a file with at least one step")


def open_minari(root: str | Path, spec: Spec | None = None) -> Episodes:
    """All episodes of the folder that holds `data/`."""
    root = Path(root)
    path = root / MAIN
    try:
        said = json.loads((root / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise BadData(f"BadData: {root / METADATA} cannot be read ({error}); restore it") from error
    if not isinstance(said, dict):
        raise BadData(f"BadData: {root / METADATA} is {str(said)[:40]}, expected an object; restore it")
    if (form := said.get("data_format", "hdf5")) != "hdf5":
        raise BadData(f"BadData: {root / METADATA}: got data_format {form}, expected hdf5; convert the set with minari")
    parts: list[dict[str, Any]] = []
    with _opened(path) as file:
        names = (name for name in file if name.startswith("episode_") and name.partition("_")[2].isdigit())
        numbered = {int(name.partition("_")[2]): name for name in names}
        if len(numbered) != said.get("total_episodes", len(numbered)) or not numbered:
            wanted = said.get("total_episodes", "at least one")
            raise BadData(f"BadData: {path}: got {len(numbered)} episodes, {METADATA} says {wanted}; restore the file")
        for number in sorted(numbered):
            parts.append(_minari_episode(file[numbered[number]], f"{path}: {numbered[number]}"))
    lengths = [len(part[REWARD]) for part in parts]
    for part, name in zip(parts, sorted(numbered), strict=True):
        if part.keys() != parts[0].keys():
            raise BadData(f"BadData: {path}: episode {name} has other keys than the first: {', '.join(part)}")
        for key, values in part.items():
            got, wanted = (list(one.shape[1:]) for one in (values, parts[0][key]))
            if got != wanted:
                raise BadData(
                    f"BadData: {path}: {key} of episode {name} is {got}, of the first {wanted}; mend the file"
                )
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    gym_id = (_described(said, "env_spec", root) or {}).get("id", "")
    space = _described(said, "action_space", root)
    own = _own(said, root / METADATA) or _world(str(gym_id).rpartition("/")[2].partition("-")[0].lower())
    return _episodes(arrays, np.array(lengths), spec, own, space, path)


def _described(said: Mapping[str, Any], key: str, root: Path) -> dict[str, Any] | None:
    """What the metadata holds as JSON within JSON."""
    if not said.get(key):
        return None
    try:
        found = json.loads(said[key])
    except (TypeError, ValueError) as error:
        raise BadData(f"BadData: {root / METADATA}: {key} is no JSON ({error}); restore it") from error
    if not isinstance(found, dict):
        raise BadData(f"BadData: {root / METADATA}: {key} is {found!r}, expected an object; restore it")
    return found


def _minari_episode(group: Any, where: str) -> dict[str, np.ndarray]:
    for key in ("observations", "actions", "rewards", "terminations", "truncations"):
        if key not in group:
            raise BadData(f"BadData: {where}: got no {key}, but {', '.join(group)}; restore the file")
    rewards = _values(group["rewards"], f"{where}: rewards")
    count = len(rewards)
    leaves = _leaves(group["observations"], "", where)
    for name, values in leaves.items():
        if len(values) != count + 1:
            said = f"observations{'/' if name else ''}{name}"
            raise BadData(
                f"BadData: {where}: {said} has {len(values)} rows, expected {count + 1}: one more than rewards"
            )
    ends = {
        key: _flags(_values(group[key], f"{where}: {key}"), f"{where}: {key}")
        for key in ("terminations", "truncations")
    }
    actions = group["actions"]
    if not hasattr(actions, "shape"):
        raise BadData(f"BadData: {where}: actions is a group, expected numbers or one choice; flatten it first")
    for key, values in {"actions": actions, **ends}.items():
        if len(values) != count:
            raise BadData(f"BadData: {where}: {key} has {len(values)} rows, rewards has {count}; they must be as many")
    seen = _observations({name: values[:-1] for name, values in leaves.items()})
    return _arrays(
        seen,
        _values(actions, f"{where}: actions"),
        rewards,
        ends["terminations"],
        ends["truncations"] & ~ends["terminations"],
    )


def _leaves(thing: Any, name: str, where: str) -> dict[str, np.ndarray]:
    """Every array under it by its path, groups in the order of the file's keys."""
    if hasattr(thing, "shape"):
        values = _values(
            thing, f"{where}: observations{'/' if name else ''}{name}", kinds="biufO"
        )  # rows of a JPEG each
        if values.dtype == object or (values.dtype == np.uint8 and values.ndim == 2 and _is_jpeg(values[0])):
            values = np.stack([_jpeg(row, where) for row in values])
        return {name: values}
    return {k: v for key in thing for k, v in _leaves(thing[key], f"{name}/{key}".lstrip("/"), where).items()}


def _is_jpeg(row: np.ndarray) -> bool:
    return row[:2].tolist() == [0xFF, 0xD8]


def _jpeg(row: np.ndarray, where: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        return np.asarray(Image.open(io.BytesIO(np.asarray(row, np.uint8).tobytes())).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise BadData(f"BadData: {where}: a picture cannot be read ({error}); restore the file") from error


def _observations(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    pictures = {name: values for name, values in leaves.items() if values.dtype == np.uint8 and values.ndim == 4}
    numbers = [v.reshape(len(v), -1).astype(np.float32) for name, v in leaves.items() if name not in pictures]
    found = {STATE: np.concatenate(numbers, 1)} if numbers else {}
    if len(pictures) == 1:
        return found | {FRONT: next(iter(pictures.values()))}
    return found | {f"observation.images.{name.replace('/', '_')}": values for name, values in pictures.items()}


def _arrays(
    observations: Mapping[str, np.ndarray],
    action: np.ndarray,
    reward: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
) -> dict[str, np.ndarray]:
    action = action if action.dtype.kind in "iu" else action.astype(np.float32)
    return {
        **{key: v if v.dtype == np.uint8 else v.astype(np.float32) for key, v in observations.items()},
        ACTION: action.astype(np.int64) if action.dtype.kind in "iu" else action.reshape(len(action), -1),
        REWARD: reward.astype(np.float32).reshape(-1),
        TERMINATED: terminated.reshape(-1).astype(bool),
        TRUNCATED: truncated.reshape(-1).astype(bool),
    }


def _episodes(
    arrays: dict[str, np.ndarray], lengths: np.ndarray, spec: Spec | None, own: Spec | None, space: Any, path: Path
) -> Episodes:
    """With the features of a world of ours where it is one, else with what the arrays tell."""
    _refuse_nan(arrays, lengths, path)
    if spec is None and own is not None:
        fits = {k: (tuple(f.shape), bool(f.choices)) for k, f in own.features.items()}
        mine = {k: (v.shape[1:], v.dtype.kind in "iu" and k == ACTION) for k, v in arrays.items() if k in fits}
        spec = own if fits == mine else None
    if spec is None:
        spec = Spec({**_told(arrays), ACTION: _action(arrays[ACTION], space, path)})
    for key in spec.features:
        if key not in arrays:
            raise BadData(f"BadData: {path}: it has no {key}, which {spec.env or 'the spec'} needs; give another --env")
        got, wanted = arrays[key].shape[1:], tuple(spec.features[key].shape)
        if got != wanted:
            raise BadData(
                f"BadData: {path}: {key} is {list(got)}, {spec.env or 'the spec'} has {list(wanted)}; give another --env"
            )
    low, high = spec.action.bounds() if not spec.discrete else (0, spec.action.choices - 1)
    beyond = (arrays[ACTION] < np.asarray(low) - 1e-4) | (arrays[ACTION] > np.asarray(high) + 1e-4)
    if beyond.any():
        frame = int(np.argwhere(beyond.reshape(len(beyond), -1).any(1))[0, 0])
        episode = int(np.searchsorted(np.cumsum(lengths), frame, side="right"))
        raise BadData(
            f"BadData: {path}: actions of episode {episode} leave the bounds of {spec.env or 'the set'}, "
            f"{np.unique(low)} to {np.unique(high)}; give the --env that it was recorded in"
        )
    kept = {key: values for key, values in arrays.items() if key in spec.features or key.startswith("next.")}
    return Episodes(spec, kept, lengths)


def _refuse_nan(arrays: Mapping[str, np.ndarray], lengths: np.ndarray, path: Path) -> None:
    for key, values in arrays.items():
        if values.dtype.kind == "f" and (bad := ~np.isfinite(values).reshape(len(values), -1).all(1)).any():
            episode = int(np.searchsorted(np.cumsum(lengths), int(bad.argmax()), side="right"))
            raise BadData(
                f"BadData: {path}: {THEIRS.get(key, key)}: episode {episode}: got NaN or infinity, expected finite numbers; "
                "mend the file"
            )


def _told(arrays: Mapping[str, np.ndarray]) -> dict[str, Feature]:
    return {
        key: Feature(values.shape[1:], str(values.dtype), colour="rgb" if is_image(key) else "")
        for key, values in arrays.items()
        if key.startswith("observation.")
    }


def _action(values: np.ndarray, space: Any, path: Path) -> Feature:
    """By the set's own space where it has one; numbers of a file without are within -1 and 1, as D4RL's all are."""
    if values.dtype.kind in "iu":
        if space and "n" not in space:
            raise BadData(
                f"BadData: {path}: got a space {space.get('type')} of actions, expected one choice; flatten it first"
            )
        if space and space.get("start", 0):
            raise BadData(f"BadData: {path}: choices begin at {space['start']}, expected 0; number them anew")
        return Feature((), "int64", choices=int(space["n"]) if space else int(values.max()) + 1)
    if space and space.get("type") == "Box":
        low, high = (tuple(float(x) for x in np.ravel(space[key])) for key in ("low", "high"))
        if np.isfinite([*low, *high]).all():
            return Feature(values.shape[1:], low=low, high=high)
    return Feature(values.shape[1:], low=-1.0, high=1.0)


def _own(said: Mapping[str, Any], where: Path) -> Spec | None:
    """What a file of ours says of itself."""
    if OWN not in said:
        return None
    try:
        return Spec.from_json(json.loads(said[OWN]))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadData(f"BadData: {where}: {OWN} cannot be read ({error}); write the set again") from error


def _world(name: str) -> Spec | None:
    """The world of ours that another's name means, or none; none too where what it needs is not installed."""
    try:
        return replace(_built(name).sample_spec, env=name) if name in OURS else None
    except MissingExtra:
        return None


def _timeouts(file: Any, found: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """As written; in files from before there were any, where an observation is not what the step before led to."""
    if "timeouts" in file:
        return _array(file, "timeouts", path)
    if "next_observations" not in file:
        raise BadData(
            f"BadData: {path}: got neither timeouts nor next_observations, one of which says where episodes end; add one"
        )
    after, now = _array(file, "next_observations", path), found["observations"]
    if after.shape != now.shape:
        got, wanted = list(after.shape), list(now.shape)
        raise BadData(f"BadData: {path}: next_observations is {got}, observations {wanted}; they must be alike")
    apart = np.zeros(len(now), dtype=bool)
    if len(now) > 1:
        apart[:-1] = ~(np.abs(after[:-1] - now[1:]).reshape(len(now) - 1, -1).max(1) <= NEAR)  # NaN is nowhere near
    return apart


def _array(file: Any, key: str, path: Path) -> np.ndarray:
    if key not in file or not hasattr(file[key], "shape"):
        raise BadData(f"BadData: {path}: got no {key}, but {', '.join(file)}; D4RL's files have {', '.join(KEPT)}")
    return _values(file[key], f"{path}: {key}")


def _values(stored: Any, where: str, kinds: str = "biuf") -> np.ndarray:
    """An array of the file, which may be damaged where it lies."""
    try:
        values = np.asarray(stored)
    except DAMAGED as error:
        raise BadData(f"BadData: {where} cannot be read ({error}); fetch or write the file again") from error
    if values.dtype.kind not in kinds:
        raise BadData(f"BadData: {where} is of {values.dtype}, expected numbers; mend the file")
    if not values.ndim:
        raise BadData(f"BadData: {where} is a single number, expected one for each step; mend the file")
    return values


def _flags(values: np.ndarray, where: str) -> np.ndarray:
    """[N] of what is there as [N] or [N, 1]."""
    if values.size != len(values):
        raise BadData(f"BadData: {where} is {list(values.shape)}, expected one for each step; mend the file")
    if not np.isin(values, (0, 1)).all():
        raise BadData(
            f"BadData: {where} holds {values[~np.isin(values, (0, 1))].flat[0]}, expected 0 or 1; mend the file"
        )
    return values.reshape(-1).astype(bool)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """To be read from; what is damaged in between h5py tells in many ways."""
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
    except DAMAGED as error:
        raise BadData(f"BadData: {path} is no HDF5 file that can be read ({error}); fetch or write it again") from error
    with file:
        try:
            yield file
        except DAMAGED as error:
            raise BadData(f"BadData: {path} is damaged ({error}); fetch or write it again") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as missing:
        raise MissingExtra("h5py", "data", "HDF5 data sets") from missing
    return h5py


def write_d4rl(data: Episodes, path: str | Path) -> None:
    """Numbers alone: D4RL has no pictures. The file appears whole or not at all."""
    data.require(STATE, ACTION, REWARD, TERMINATED, TRUNCATED)
    if pictures := [key for key in data.spec.observations if is_image(key)]:
        raise BadData(f"BadData: D4RL's files hold numbers, the data set has {', '.join(pictures)}; write --as minari")
    if more := [key for key in data.spec.observations if key != STATE]:
        raise BadData(
            f"BadData: D4RL's files hold one row of numbers, the data set has {', '.join(more)} too; write --as minari"
        )
    last = np.zeros(len(data), dtype=bool)
    last[np.cumsum(data.lengths) - 1] = True
    terminated = np.asarray(data.values(TERMINATED))
    columns = {
        "observations": data.values(STATE),
        "actions": data.values(ACTION),
        "rewards": data.values(REWARD),
        "terminals": terminated,
        "timeouts": last & ~terminated,
    }
    path = Path(path)
    half = path.with_name(f".{path.name}.half")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _h5py().File(half, "w") as file:
        for key, values in columns.items():
            file.create_dataset(key, data=np.asarray(values), compression="gzip")
        file.attrs[OWN] = json.dumps(data.spec.to_json())
    half.replace(path)


def write_minari(data: Episodes, root: str | Path, name: str) -> tuple[int, int]:
    """As `minari` itself opens it; pictures are stored as they are, not as JPEG. So many episodes and steps were written."""
    data.require(ACTION, REWARD, TERMINATED, TRUNCATED)
    root, h5py = Path(root), _h5py()
    (root / "data").mkdir(parents=True, exist_ok=True)
    half, steps, count = root / "data" / ".half.hdf5", 0, 0
    single = len(data.spec.observations) == 1
    with h5py.File(half, "w", track_order=True) as file:
        for number in range(data.episodes):
            episode = data.episode(number)
            ended = bool(episode[TERMINATED][-1])
            length = len(episode[REWARD]) - (not ended)
            if not length:
                continue
            group = file.create_group(f"episode_{count}")
            group.attrs["id"], group.attrs["total_steps"] = count, length
            into = group if single else group.create_group("observations")
            for key in data.spec.observations:
                values = np.asarray(episode[key])
                values = np.concatenate([values, values[-1:]]) if ended else values
                into.create_dataset("observations" if single else _short(key), data=values)
            truncations = np.zeros(length, dtype=bool)
            truncations[-1] = not ended
            group.create_dataset("actions", data=np.asarray(episode[ACTION])[:length])
            group.create_dataset("rewards", data=np.asarray(episode[REWARD])[:length])
            group.create_dataset("terminations", data=np.asarray(episode[TERMINATED])[:length])
            group.create_dataset("truncations", data=truncations)
            steps, count = steps + length, count + 1
    half.replace(root / MAIN)
    spaces = {_short(key): _space(feature) for key, feature in data.spec.observations.items()}
    seen = next(iter(spaces.values())) if single else {"type": "Dict", "subspaces": spaces}
    said = {
        "dataset_id": name,
        "minari_version": "0.5.4",
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": count,
        "total_steps": steps,
        "dataset_size": round((root / MAIN).stat().st_size / 1e6, 1),
        "observation_space": json.dumps(seen),
        "action_space": json.dumps(_space(data.spec.action)),
        **({"env_spec": env_spec} if (env_spec := _env_spec(data.spec.env)) else {}),
        OWN: json.dumps(data.spec.to_json()),
    }
    (root / METADATA).write_text(json.dumps(said, indent=1) + "\n")
    return count, steps


def _short(key: str) -> str:
    return key.removeprefix("observation.").replace(".", "_")


def _space(feature: Feature) -> dict[str, Any]:
    if feature.choices:
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": feature.choices}
    low, high = feature.bounds()
    if feature.dtype == "uint8":
        low, high = np.zeros(feature.shape), np.full(feature.shape, 255)
    return {
        "type": "Box",
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "low": low.tolist(),
        "high": high.tolist(),
    }


def _env_spec(env: str) -> str:
    """Gymnasium's own description of the world, where it is one of Gymnasium's."""
    name = env.partition(":")[0]
    if name not in OURS:
        return ""
    row = _built(name).spec
    return row.to_json() if row else ""


def _built(env: str) -> Any:
    world = catalog.find("envs", env)()
    world.close()
    return world
