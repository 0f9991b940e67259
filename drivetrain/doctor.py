"""What this machine has, and what will run here."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from drivetrain import __version__, catalog

EXTRAS = {
    "mujoco": ("mujoco",),
    "pusht": ("gym_pusht", "pymunk"),
    "fast": ("envpool",),
    "vlm": ("transformers", "peft"),
    "sim": ("msgpack", "numba"),
    "carla": ("carla",),
    "export": ("onnx", "onnxruntime", "openvino"),
    "data": ("datasets", "h5py"),
    "tensorboard": ("tensorboard",),
    "dev": ("pytest", "ruff", "mypy"),
    "bench": ("stable_baselines3",),
}


def examine() -> dict[str, Any]:
    """The facts, for people and machines."""
    import torch

    return {
        "drivetrain": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "processors": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "extras": {extra: not missing(extra) for extra in EXTRAS},
        "missing": {extra: missing(extra) for extra in EXTRAS if missing(extra)},
        "runs": {
            table: {name: catalog.present(row) for name, row in rows.items()} for table, rows in catalog.TABLES.items()
        },
    }


def room() -> tuple[str, int]:
    """Where a model would go, and the bytes there in all."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    return "cpu", min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), allowed())


def allowed() -> int:
    """Bytes that a container may take; without one, as good as all there are."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return 1 << 62


def missing(extra: str) -> list[str]:
    return [package for package in EXTRAS[extra] if importlib.util.find_spec(package) is None]


def in_words(found: dict[str, Any]) -> str:
    lines = [
        f"drivetrain {found['drivetrain']}, Python {found['python']}, torch {found['torch']} on {found['device']}",
        f"{found['processors']} processors, {found['memory_gb']} GB memory, {found['disk_free_gb']} GB free here",
        "",
    ]
    for extra, there in found["extras"].items():
        packages = ", ".join(EXTRAS[extra])
        lines.append(f"  {'yes' if there else 'no ':<4}{extra:<12} {packages if there else how_to_get(extra)}")
    lines.append("")
    for table, rows in found["runs"].items():
        lines.append(f"{table} that run here: {', '.join(n for n, there in rows.items() if there)}")
        if absent := [n for n, there in rows.items() if not there]:
            lines.append(f"{table} that do not: {', '.join(absent)}")
    return "\n".join(lines)


def how_to_get(extra: str) -> str:
    return f"lacks {', '.join(missing(extra))}; pip install 'drivetrain[{extra}]'"
