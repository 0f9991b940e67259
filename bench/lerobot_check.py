"""Does the real LeRobot read what we write, and do we read what it writes? Side by side, frame by frame.

    python bench/lerobot_check.py                                        writes bench/results/lerobot.json
    python bench/lerobot_check.py --read data/carla                      one data set of yours, every number and picture
    python bench/lerobot_check.py --torch-index https://download.pytorch.org/whl/cpu     where pip would bring CUDA

LeRobot 0.4.4, the newest for Python 3.11, pins an older torch, so it lives in an environment of its own (`--env`, built
on the first run) by this recipe, which goes around its pins:

    pip install torch==2.13.0                                            first, from the index named
    pip install --no-deps lerobot==0.4.4 torchvision==0.28 torchcodec==0.13.0
    pip install datasets==5.2 av==18.1 jsonlines einops termcolor deepdiff draccus==0.10.0 imageio
                opencv-python-headless pandas accelerate numpy==2.2.6
    a torchvision for CUDA beside a torch for CPU wants its two operators declared before it is imported (`_shim`)
    torchcodec wants FFmpeg's libraries: those inside PyAV's wheel, under the names it looks for (`_link_ffmpeg`)

The half that imports LeRobot is this same file, run by that environment's Python with `--inside`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PINNED = ["lerobot==0.4.4", "torchvision==0.28", "torchcodec==0.13.0"]
BESIDE = ["datasets==5.2", "av==18.1", "jsonlines", "einops", "termcolor", "deepdiff", "draccus==0.10.0", "imageio"]
BESIDE += ["opencv-python-headless", "pandas", "accelerate", "numpy==2.2.6"]
VIDEO_MEAN, VIDEO_MOST = 3.0, 25.0  # grey levels of 255 by which a picture from video may be off
EXACT = ("min", "max", "mean", "std", "count")  # of the statistics; quantiles are estimates on LeRobot's side
LIDAR = "observation.lidar.top"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--env", type=Path, default=HERE.parent / ".venv-lerobot", help="LeRobot's environment")
    parser.add_argument("--torch-index", default="", help="the index that torch comes from; pip's own if empty")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "lerobot.json")
    parser.add_argument("--read", type=Path, help="a data set in our format: does LeRobot see what is in it?")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        (read_one if options.read else inside)(options.inside)
        return 0
    sys.path.insert(0, str(HERE.parent))
    if not (options.env / "ready").exists():
        build(options.env, options.torch_index)
    if options.read:
        report = one(options.env, options.read)
        print(json.dumps(report, indent=1))
        return 0 if report["passed"] else 3
    with tempfile.TemporaryDirectory() as folder:
        report = compare(options.env, Path(folder))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 3


def build(env: Path, torch_index: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    pip = [str(env / "bin/python"), "-m", "pip", "install", "--quiet"]
    index = ["--index-url", torch_index] if torch_index else []
    for wanted in (["torch==2.13.0", *index], ["--no-deps", *PINNED], BESIDE):
        subprocess.run([*pip, *wanted], check=True)
    (env / "ready").touch()


def one(env: Path, root: Path) -> dict[str, Any]:
    """Every array of a data set, as we read it and as LeRobot does."""
    from drivetrain.data.lerobot import open_lerobot

    data = open_lerobot(root)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "set").symlink_to(root.resolve())
        np.savez(folder / "ours.npz", **{key: data.values(key) for key in data.arrays})
        path = _link_ffmpeg(env, folder / "libraries")
        command = [str(env / "bin/python"), __file__, "--inside", str(folder), "--read", str(root)]
        subprocess.run(command, check=True, env={**os.environ, "LD_LIBRARY_PATH": path})
        report: dict[str, Any] = json.loads((folder / "inside.json").read_text())
    report["passed"] = not report["unequal"] and report["frames"] == len(data) and report["episodes"] == data.episodes
    return report


def read_one(folder: Path) -> None:
    _shim()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    wanted = np.load(folder / "ours.npz")
    data = LeRobotDataset("local/one", root=folder / "set")
    unequal: dict[str, int] = {}
    ours = {key: wanted[key] for key in wanted}
    for i in range(len(data)):
        item = data[i]
        for key, values in ours.items():
            seen = item[key].numpy()
            if key.startswith("observation.images."):
                seen = np.rint(seen.transpose(1, 2, 0) * 255).astype(np.uint8)
            if not np.array_equal(seen.reshape(values[i].shape), values[i]):
                unequal[key] = unequal.get(key, 0) + 1
    found = {"frames": len(data), "episodes": data.meta.total_episodes, "compared": sorted(ours), "unequal": unequal}
    (folder / "inside.json").write_text(json.dumps(found))


def compare(env: Path, folder: Path) -> dict[str, Any]:
    """Both directions, as a report."""
    from drivetrain.data.lerobot import open_lerobot

    for kind in ("image", "video"):
        write_ours(folder, kind)
    libraries = _link_ffmpeg(env, folder / "ffmpeg")
    variables = {"LD_LIBRARY_PATH": libraries, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [str(env / "bin/python"), str(HERE / "lerobot_check.py"), "--inside", str(folder)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"LeRobot's half ended with status {done.returncode}:\n{done.stderr[-4000:]}")
    report = json.loads((folder / "inside.json").read_text())
    for kind in ("image", "video"):
        back = open_lerobot(folder / f"theirs-{kind}")
        wanted = {key: value for key, value in np.load(folder / f"{kind}.npz").items() if not key.startswith("_")}
        seen = {key: back.arrays[key][:] for key in wanted}
        names = [back.tasks[index] for index in back.task_index]
        tasks = names == np.load(folder / f"{kind}.npz")["_task"].tolist()
        ours = {"frames": len(back), "episodes": back.episodes, "tasks_equal": tasks, **_told(seen, wanted, kind)}
        report["lerobots_read_by_us"][kind] = ours
        report[f"statistics_of_{kind}_set"] = statistics(folder / f"ours-{kind}", folder / f"theirs-{kind}")
    report["passed"] = all(_passed(part) for side in report.values() if isinstance(side, dict) for part in _parts(side))
    return {**report, "machine": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}


def write_ours(folder: Path, kind: str) -> None:
    """Our writer's set, and the numbers that went into it as one .npz for both sides to compare with."""
    from drivetrain.data.fake import open_fake
    from drivetrain.data.lerobot import Writer
    from drivetrain.sample import ACTION, FRONT, STATE, TASK, Feature, Spec

    spec = Spec(
        {
            STATE: Feature((4,), names=("x_m", "y_m", "yaw_rad", "speed_mps")),
            "observation.speed_mps": Feature(()),
            "observation.route": Feature((5, 2)),
            "observation.bev": Feature((3, 4, 2)),
            LIDAR: Feature((7, 3), ragged=True),
            FRONT: Feature((64, 96, 3), "uint8", colour="rgb"),
            "observation.images.stack": Feature((32, 32, 6), "uint8", colour="rgb"),
            ACTION: Feature((2,), names=("steer", "gas")) if kind == "image" else Feature((), "int64", choices=3),
        },
        task="follow the lane",
        fps=10,
    )
    data = open_fake(spec, episodes=5, length=24, seed=1)
    if kind == "video":
        for key in (FRONT, "observation.images.stack"):
            data.arrays[key] = wave(data.arrays[key].shape)
    writer = Writer(folder / f"ours-{kind}", spec, video=kind == "video")
    tasks = []
    for number in range(data.episodes):
        episode = data.episode(number)
        for t in range(int(data.lengths[number])):
            tasks.append("stop" if number == 2 else spec.task)
            writer.add({**{key: values[t] for key, values in episode.items()}, TASK: tasks[-1]})
        writer.end_episode()
    writer.finish()
    arrays: dict[str, Any] = {}
    arrays |= {f"{k}.{i}": data.arrays[k][..., 3 * i : 3 * i + 3] for k in data.arrays if "stack" in k for i in (0, 1)}
    arrays |= {key: values[:] for key, values in data.arrays.items() if "stack" not in key}
    np.savez(folder / f"{kind}.npz", _lengths=data.lengths, _task=np.array(tasks), **arrays)


def wave(shape: tuple[int, ...]) -> np.ndarray:
    """Moving grey pictures that a video holds well."""
    count, height, width = shape[:3]
    still = np.sin(np.arange(height)[:, None] / 5 + np.arange(width) / 7) * 60 + 128
    grey = (still + np.arange(count)[:, None, None] % 40).astype(np.uint8)
    return np.repeat(grey[..., None], shape[-1], axis=-1)


def statistics(ours: Path, theirs: Path) -> dict[str, Any]:
    """How far our meta/stats.json is from the one LeRobot made of the same frames, as a share of each feature's range.

    Two differences are meant: LeRobot counts the padding of a ragged feature in, and squares pictures as uint8, which
    wraps around, so that its standard deviation of a picture is wrong (near 0 for noise). Both are left out here.
    """
    one, other = (json.loads((root / "meta/stats.json").read_text()) for root in (ours, theirs))
    off = {"exact": 0.0, "quantiles": 0.0, "std_of_pictures": 0.0}
    for key in set(other) - {LIDAR}:
        spread = float(np.subtract(other[key]["max"], other[key]["min"], dtype=np.float64).max()) or 1.0
        for name, values in other[key].items():
            kind = "quantiles" if name not in EXACT else "exact"
            kind = "std_of_pictures" if name == "std" and "images" in key else kind
            mine, wanted = np.asarray(one[key][name], np.float64), np.asarray(values, np.float64)
            assert mine.shape == wanted.shape, (key, name, mine.shape, wanted.shape)
            off[kind] = max(off[kind], float(np.abs(mine - wanted).max()) / spread)
    return {"features_equal": set(one) == set(other), "furthest_off": off}


def inside(folder: Path) -> None:
    """LeRobot's half: read ours, write the same frames with LeRobot itself."""
    _shim()
    import datasets
    import lerobot
    import torch
    import torchcodec

    versions = {"lerobot": lerobot.__version__, "torch": torch.__version__, "torchcodec": torchcodec.__version__}
    report: dict[str, Any] = {"versions": {**versions, "datasets": datasets.__version__}}
    report["ours_read_by_lerobot"] = {kind: read_ours(folder, kind) for kind in ("image", "video")}
    report["lerobots_read_by_us"] = {}
    for kind in ("image", "video"):
        write_theirs(folder, kind)
    (folder / "inside.json").write_text(json.dumps(report))


def read_ours(folder: Path, kind: str) -> dict[str, Any]:
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    wanted = np.load(folder / f"{kind}.npz")
    lengths, tasks = wanted["_lengths"], wanted["_task"].tolist()
    data = LeRobotDataset("local/ours", root=folder / f"ours-{kind}")
    items = [data[i] for i in range(len(data))]
    keys = [key for key in wanted if not key.startswith("_")]
    seen = {}
    for key in keys:
        values = torch.stack([item[key] for item in items]).numpy()
        pictures = key.startswith("observation.images.")
        seen[key] = np.rint(values.transpose(0, 2, 3, 1) * 255).astype(np.uint8) if pictures else values
    ends = [(row["dataset_from_index"], row["dataset_to_index"]) for row in data.meta.episodes]
    steps = {"action": [-0.1, 0.0, 0.1], "observation.images.front": [-0.1, 0.0]}
    windows = LeRobotDataset("local/ours", root=folder / f"ours-{kind}", delta_timestamps=steps)
    last = int(lengths[0]) - 1
    pads = [windows[i]["action_is_pad"].tolist() for i in (0, 1, last)]
    batch = next(iter(torch.utils.data.DataLoader(windows, batch_size=4)))
    return {
        "frames": len(data),
        "episodes": data.meta.total_episodes,
        "lengths_equal": [b - a for a, b in ends] == lengths.tolist(),
        "tasks_equal": [item["task"] for item in items] == tasks,
        "windows_padded_at_episode_ends": pads == [[True, False, False], [False] * 3, [False, False, True]],
        "a_loader_batches_pictures": list(batch["observation.images.front"].shape) == [4, 2, 3, 64, 96],
        **_told(seen, {key: wanted[key] for key in keys}, kind),
    }


def write_theirs(folder: Path, kind: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    given = np.load(folder / f"{kind}.npz")
    info = json.loads((folder / f"ours-{kind}" / "meta/info.json").read_text())
    arrays = {key: given[key] for key in given if not key.startswith("_")}
    features = {key: {**info["features"][key], "shape": tuple(info["features"][key]["shape"])} for key in arrays}
    data = LeRobotDataset.create(
        "local/theirs", 10, features, root=folder / f"theirs-{kind}", use_videos=kind == "video"
    )
    row = 0
    for length in given["_lengths"]:
        for _ in range(length):
            frame = {key: values[row].reshape(features[key]["shape"]) for key, values in arrays.items()}
            data.add_frame({**frame, "task": str(given["_task"][row])})
            row += 1
        data.save_episode()
    data.finalize()


def _told(seen: dict[str, np.ndarray], wanted: dict[str, np.ndarray], kind: str) -> dict[str, Any]:
    """Which features are equal bit for bit, and how far pictures from video are off."""
    far = {key for key in wanted if kind == "video" and key.startswith("observation.images.")}
    shaped = {key: seen[key].reshape(wanted[key].shape) for key in wanted}
    unequal = [key for key in wanted if key not in far and not np.array_equal(shaped[key], wanted[key])]
    told: dict[str, Any] = {"equal": sorted(set(wanted) - far - set(unequal)), "unequal": unequal}
    if far:
        off = [np.abs(shaped[key].astype(int) - wanted[key]) for key in far]
        told["video_off_by"] = {"mean": max(float(o.mean()) for o in off), "most": max(int(o.max()) for o in off)}
    return told


def _parts(side: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in side.values() if isinstance(part, dict)] + [side]


def _passed(part: dict[str, Any]) -> bool:
    off = part.get("video_off_by", {"mean": 0, "most": 0})
    near = off["mean"] < VIDEO_MEAN and off["most"] < VIDEO_MOST and not part.get("unequal")
    return near and part.get("exact", 0) < 1e-5 and all(v for v in part.values() if isinstance(v, bool))


def _shim() -> None:
    from importlib.metadata import version

    import torch

    if "+cpu" in torch.__version__ and "+cpu" not in version("torchvision"):
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore
        torch.torchvision_operators = library  # type: ignore[attr-defined]  # it must outlive this function


def _link_ffmpeg(env: Path, folder: Path) -> str:
    """LD_LIBRARY_PATH on which PyAV's own libavcodec-<hash>.so.62.x is also called libavcodec.so.62."""
    folder.mkdir()
    inside_wheel = next((env / "lib").glob("python*/site-packages/av.libs"))
    for path in inside_wheel.glob("lib*"):
        if named := re.match(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+)", path.name):
            (folder / f"{named[1]}.so.{named[2]}").symlink_to(path)
    return f"{folder}:{inside_wheel}"


if __name__ == "__main__":
    sys.exit(main())
