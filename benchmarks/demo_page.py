"""Writes docs/results/demo.md from finished demo runs, so that no figure there is typed by hand.

    for seed in 0 1 2; do lfpc demo --seed $seed --output seed$seed; done
    python benchmarks/demo_page.py DATE "MACHINE" seed0 seed1 seed2

A run that misses a goal is published like any other.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lfpc_trl.demo.goals import QUANTITIES, check_goals, told
from lfpc_trl.demo.report import PHASES

METRICS = {
    "accuracy": "accuracy",
    "accuracy_without_tool": "accuracy, tool not offered",
    "accuracy_noise_crop": "accuracy, noise in place of the crops",
    "accuracy_target_crop": "accuracy, target region in place of the crops",
    "tool_calls": "crops per question",
    "iou": "IoU",
    "overlap": "overlap with the innermost target",
    "bbox_ratio": "crop area / picture area",
    "crop_tokens": "visual tokens per crop",
    "format": "well-formed replies",
    "format_noise_crop": "well-formed replies with noise crops",
}
PAGE = Path(__file__).parent.parent / "docs" / "results" / "demo.md"


def cell(metrics: dict[str, Any], key: str) -> str:
    value = metrics[key]
    if value is not None and key in QUANTITIES:
        return told(metrics["intervals"][key] | {"value": value}, ".3f")
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def table(run: dict[str, Any]) -> list[str]:
    """The figures of one seed."""
    lines = ["| | " + " | ".join(name.lower() for name in PHASES.values()) + " |"]
    lines.append("| --- |" + " ---: |" * len(PHASES))
    for key, title in METRICS.items():
        lines.append(f"| {title} | " + " | ".join(cell(run[name], key) for name in PHASES) + " |")
    return lines


def selection(run: dict[str, Any]) -> list[str]:
    """What resolution selection found for one seed."""
    lines = []
    for name, summary in run["selection"].items():
        levels = ", ".join(f"{count} at {tokens} tokens" for tokens, count in summary["tokens"].items())
        told = f"Resolution selection (`{summary['method']}`), rows of {name}: {levels}"
        if summary["method"] == "answer":
            told += f"; never diverged {summary['never_diverged']}, wrong at the finest level"
            told += f" {summary['wrong_at_full']} of {summary['rows']}"
        lines += [told + ".", ""]
    return lines


def main(date: str, machine: str, *folders: str) -> None:
    runs = [json.loads((Path(folder) / "results.json").read_text()) for folder in folders]
    seeds = [json.loads((Path(folder) / "demo.json").read_text())["seed"] for folder in folders]
    goals = [check_goals(run) for run in runs]
    reached = ", ".join(f"{sum(goal.met for goal in found)} of {len(found)}" for found in goals)
    lines = [
        f"# The demo with {len(runs)} seeds",
        "",
        f"`lfpc demo --seed N` for N = {', '.join(map(str, seeds))}, each run once, {date}, {machine}.",
        "Written by `benchmarks/demo_page.py` from the runs' `results.json`.",
        "",
        "A seed decides about pictures, sampling and training. All start from the checkpoint that the",
        "package ships ([how it was made](checkpoint.md)). Settings were chosen on seed 10, not shown.",
        "",
        f"{runs[0]['warm']['questions']:,} questions on pictures never trained on, decoded greedily. Crops",
        "are replaced and the tool is taken away on the first of them. In brackets 95 % intervals, with the",
        "picture as the unit; those of differences are paired.",
        "",
        "## What it was meant to reach",
        "",
        f"Goals reached: {reached}.",
        "",
        "| goal | seed | reached | figures |",
        "| --- | --- | --- | --- |",
    ]
    for same in zip(*goals, strict=True):
        for seed, goal in zip(seeds, same, strict=True):
            met = "yes" if goal.met else "**no**"
            lines.append(f"| {goal.text} | {seed} | {met} | {goal.numbers} |")
    for seed, run in zip(seeds, runs, strict=True):
        lines += ["", f"## Seed {seed}", "", *table(run), "", *selection(run)]
    steps = runs[0]["seconds"]
    lines += ["", "## Seconds", "", "| step | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"]
    lines.append("| --- |" + " ---: |" * len(seeds))
    lines += [f"| {name} | " + " | ".join(f"{r['seconds'][name]:.0f}" for r in runs) + " |" for name in steps]
    lines += ["", "Steps overlap: two run at a time."]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
