"""A run's story: report.md with settings, numbers, what an examination found, and curves.png. Reads the run folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drivetrain.run import WALL, read_config, read_metrics

CURVES = 6  # at most so many, the most telling first
FIRST = ("return", "held_out/same", "held_out/error", "held_out/loss", "loss")


def write_report(folder: Path, opening: str = "") -> Path:
    """report.md and curves.png of a run folder; `opening` comes before the settings."""
    said, rows = read_config(folder), read_metrics(folder)
    curves = draw_curves(folder / "curves.png", rows)
    parts = [
        f"# {said['algorithm']}",
        opening,
        "![curves](curves.png)" if curves else "",
        numbers(rows),
        examination(folder / "examination.json"),
        (folder / "samples.md").read_text().strip() if (folder / "samples.md").is_file() else "",
        settings(said),
    ]
    path = folder / "report.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n")
    return path


def draw_curves(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    """One small picture per number; the faint line is every row, the dark one a running mean."""
    names = curve_names(rows)
    if not names:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(4.2 * columns, 2.8 * lines), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        steps, values = zip(*[(row["step"], row[name]) for row in rows if name in row], strict=True)
        axis.plot(steps, values, color="#2b6cb0", alpha=0.25, linewidth=1)
        axis.plot(steps, smoothed(values), color="#2b6cb0", linewidth=1.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return names


def curve_names(rows: list[dict[str, Any]]) -> list[str]:
    """Numbers with two rows or more: those a reader asks for first, then the others as they come."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row:
            counts[name] = counts.get(name, 0) + 1
    known = [name for name, count in counts.items() if count > 1 and name not in ("step", WALL)]
    return sorted(known, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))[:CURVES]


def smoothed(values: Any, share: float = 0.05) -> list[float]:
    width = max(int(len(values) * share), 1)
    return [sum(values[max(0, i - width) : i + 1]) / (i + 1 - max(0, i - width)) for i in range(len(values))]


def examination(path: Path) -> str:
    """By kind of question, with the pictures as they are and dealt to other rows."""
    if not path.is_file():
        return ""
    said = json.loads(path.read_text())
    lines = ["## What it knows", "", "| held-out question | measure | its pictures | others' pictures | asked |"]
    lines.append("|---|---|---|---|---|")
    for kind, seen in said["seen"].items():
        measure = "right" if "right" in seen else "correlation"
        cells = [interval(found[measure]) for found in (seen, said["shuffled"][kind])]
        lines.append(f"| {kind} | {measure} | {cells[0]} | {cells[1]} | {seen['asked']} |")
    return "\n".join(lines)


def interval(said: dict[str, Any] | None) -> str:
    if said is None or said["low"] is None:
        return "-" if said is None else f"{said['value']:.2f}"
    return f"{said['value']:.2f} ({said['low']:.2f} to {said['high']:.2f})"


def numbers(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = ["| number | first | last |", "|---|---|---|"]
    for name in curve_names(rows):
        values = [row[name] for row in rows if name in row]
        lines.append(f"| {name} | {values[0]:.4g} | {values[-1]:.4g} |")
    took = f"{rows[-1]['step']} steps in {rows[-1][WALL]:.0f} seconds."
    return "\n".join([*lines, "", took])


def settings(said: dict[str, Any]) -> str:
    lines = ["| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in said["config"].items()]
    return "\n".join(lines)
