"""A ladder's table and picture, from what `drivetrain ladder` found; the same file always gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES = {
    "il": ("imitation", "#2b6cb0"),
    "offline_rl": ("from data alone", "#2f855a"),
    "online_rl": ("by acting", "#c05621"),
    "world_model": ("by dreaming", "#6b46c1"),
}
LEFT, WIDE, RIGHT, ROW, TOP = 110, 520, 90, 26, 34  # pixels of the picture


def table(said: Mapping[str, Any]) -> str:
    """Markdown; who refused stands below, with the reason."""
    head = ["algorithm", "learns", "return, 95% interval", "each seed", "steps of data", "steps taken", "minutes"]
    rows = [head, ["---"] * len(head)]
    for rung in said["rungs"]:
        runs = rung["runs"]
        uses_data = "--dataset" in runs[0]["command"].split()
        rows.append(
            [
                f"`{rung['algorithm']}`",
                FAMILIES[rung["family"]][0],
                within(rung["summary"]),
                ", ".join(
                    [
                        *(f"{run['summary']['mean']:.1f}" for run in runs),
                        *(f"seed {seed} lost" for seed in rung["lost"]),
                    ]
                ),
                f"{said['data']['frames']:,}" if uses_data else "",
                f"{mean([run['acted'] for run in runs]):,.0f}" if any(run["acted"] for run in runs) else "",
                f"{mean([run['minutes'] for run in runs]):.1f}",
            ]
        )
    for name, summary in said["floors"].items():
        rows.append([untrained(name), "", within(summary), "", "", "", ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    refused = [f"- `{name}`: {why.partition(': ')[2] or why}" for name, why in said["refused"].items()]
    more = ["", "Not on this ladder:", "", *refused] if refused else []
    if pending := said.get("pending"):
        more += ["", f"Not climbed yet: {', '.join(f'`{name}`' for name in pending)}."]
    return "\n".join([*lines, *more]) + "\n"


def untrained(name: str) -> str:
    """Whoever needs no training: chance, or the expert that made the data."""
    return name if name == "random" else f"demonstrator ({name})"


def within(summary: Mapping[str, Any]) -> str:
    between = f" ({summary['low']:.1f} to {summary['high']:.1f})" if summary["low"] is not None else ""
    return f"{summary['mean']:.1f}{between}"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def picture(said: Mapping[str, Any]) -> str:
    """SVG: a dot for each mean with its interval, small ones for the seeds, a dashed line for whoever needs no training."""
    rungs, floors = said["rungs"], said["floors"]
    values = [value for rung in rungs for value in ends(rung["summary"])] + [s["mean"] for s in floors.values()]
    values += [run["summary"]["mean"] for rung in rungs for run in rung["runs"]]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    height = TOP + ROW * len(rungs) + 44

    def at(value: float) -> str:
        return f"{LEFT + WIDE * (value - low) / span:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{LEFT + WIDE + RIGHT}" height="{height}" fill="#ffffff"/>',
    ]
    for i, (name, summary) in enumerate(floors.items()):
        x, bottom = at(summary["mean"]), TOP + ROW * len(rungs)
        parts.append(f'<line x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{bottom}" stroke="#a0aec0" stroke-dasharray="4 3"/>')
        parts.append(
            f'<text x="{x}" y="{TOP - 14}" fill="#4a5568" text-anchor="{"start" if not i else "end"}">'
            f"{untrained(name)}</text>"
        )
    for row, rung in enumerate(rungs):
        y, colour = TOP + ROW * row + ROW // 2, FAMILIES[rung["family"]][1]
        first, last = ends(rung["summary"])
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{rung["algorithm"]}</text>')
        parts.append(f'<line x1="{at(first)}" y1="{y}" x2="{at(last)}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        for run in rung["runs"]:
            parts.append(
                f'<circle cx="{at(run["summary"]["mean"])}" cy="{y}" r="3" fill="{colour}" fill-opacity="0.35"/>'
            )
        mean_at = at(rung["summary"]["mean"])
        parts.append(f'<circle cx="{mean_at}" cy="{y}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + WIDE + 12}" y="{y + 4}" fill="#4a5568">{rung["summary"]["mean"]:.1f}</text>')
    across = LEFT
    for family, (words, colour) in FAMILIES.items():
        if any(rung["family"] == family for rung in rungs):
            parts.append(f'<circle cx="{across + 5}" cy="{height - 18}" r="5" fill="{colour}"/>')
            parts.append(f'<text x="{across + 16}" y="{height - 14}" fill="#4a5568">{words}</text>')
            across += 130
    return "\n".join([*parts, "</svg>"]) + "\n"


def ends(summary: Mapping[str, Any]) -> tuple[float, float]:
    if summary["low"] is None:
        return summary["mean"], summary["mean"]
    return summary["low"], summary["high"]
