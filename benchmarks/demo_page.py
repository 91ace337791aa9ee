"""Writes docs/results/demo.md from finished demo runs, so that no figure there is typed by hand.

    python benchmarks/demo_page.py DATE "MACHINE" DEMO_DIR [DEMO_DIR ...]

The first directory is shown in full; all of them, one per seed, in the table of seeds.
"""

import json
import sys
from pathlib import Path

from lfpc_trl.demo.report import PHASES, check_goals

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


def cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def main(date: str, machine: str, *folders: str) -> None:
    runs = [json.loads((Path(folder) / "results.json").read_text()) for folder in folders]
    seeds = [json.loads((Path(folder) / "demo.json").read_text())["seed"] for folder in folders]
    first = runs[0]
    lines = [
        "# A full run of the demo",
        "",
        f"`lfpc demo --seed {seeds[0]}`, {date}, {machine}.",
        "Written by `benchmarks/demo_page.py` from the run's `results.json`.",
        "",
        f"{first['warm']['questions']} questions on pictures never trained on, one sampled answer each.",
        "",
        "| | " + " | ".join(name.lower() for name in PHASES.values()) + " |",
        "| --- |" + " ---: |" * len(PHASES),
    ]
    for key, title in METRICS.items():
        lines.append(f"| {title} | " + " | ".join(cell(first[name][key]) for name in PHASES) + " |")
    lines += ["", "## What it was meant to reach", "", "| goal | reached | figures |", "| --- | --- | --- |"]
    lines += [f"| {g.text} | {'yes' if g.met else '**no**'} | {g.numbers} |" for g in check_goals(first)]
    lines += ["", "## Seconds", "", "| step | seconds |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.0f} |" for name, value in first["seconds"].items()]
    lines += ["", "Steps overlap: two run at a time.", ""]
    for name, summary in first["selection"].items():
        levels = ", ".join(f"{count} at {tokens} tokens" for tokens, count in summary["tokens"].items())
        told = f"Resolution selection (`{summary['method']}`), rows of {name}: {levels}"
        if summary["method"] == "answer":
            told += f"; never diverged {summary['never_diverged']}, wrong at the finest level"
            told += f" {summary['wrong_at_full']} of {summary['rows']}"
        lines.append(told + ".")
        lines.append("")
    if len(runs) > 1:
        lines += [
            "## Other seeds",
            "",
            "Another seed changes pictures, sampling and training, not the warm checkpoint.",
            "",
        ]
        keys = ("accuracy", "accuracy_noise_crop", "iou", "overlap", "bbox_ratio", "format")
        lines += ["| seed | model | " + " | ".join(METRICS[k] for k in keys) + " |"]
        lines += ["| --- | --- |" + " ---: |" * len(keys)]
        for seed, run in zip(seeds, runs, strict=True):
            for name, title in PHASES.items():
                lines.append(
                    f"| {seed} | {title.lower()} | " + " | ".join(cell(run[name][k]) for k in keys) + " |"
                )
        lines += ["", "| goal | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"]
        lines += ["| --- |" + " --- |" * len(seeds)]
        goals = [check_goals(run) for run in runs]
        for same in zip(*goals, strict=True):
            lines.append(
                f"| {same[0].text} | " + " | ".join("yes" if g.met else "**no**" for g in same) + " |"
            )
        lines.append("")
    page = Path(__file__).parent.parent / "docs" / "results" / "demo.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
