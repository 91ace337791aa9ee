"""Writes docs/results/checkpoint.md from a finished warm-up, so that no figure there is typed by hand.

lfpc demo --from-scratch --output demo         # or the warm-up alone: lfpc_trl.demo.warm_up.warm_up
python benchmarks/checkpoint_page.py DATE "MACHINE" demo/warm
"""

import hashlib
import json
import sys
from pathlib import Path

from lfpc_trl.demo.warm_up import PHASES

LOG = Path(__file__).parent.parent / "docs" / "results" / "checkpoint.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "checkpoint.md"
FIGURES = {
    "colour": "colour of the sign",
    "edge": "its edges, in visual tokens off",
    "letters": "letters, by the vision tower",
    "late_letters": "letters, in the language model",
    "flag": "which sign is asked for",
    "attention": "attention on what is meant",
    "said_letters": "letters that are written",
    "pixels_off": "coordinates that are written, pixels off",
}


def main(date: str, machine: str, folder: str) -> None:
    lines = [json.loads(line) for line in (Path(folder) / "warm-up.jsonl").read_text().splitlines()]
    weights = (Path(folder) / "model.safetensors").read_bytes()
    hours = lines[-1]["seconds"] / 3600
    page = [
        "# The checkpoint of the demo",
        "",
        f"Trained from scratch in one run by `lfpc_trl/demo/warm_up.py`, seed 0, {date}, {machine}:",
        f"{sum(phase.steps for phase in PHASES):,} steps in {hours:.1f} hours (`lfpc demo --from-scratch`).",
        f"Weights in half precision, {len(weights) / 1e6:.1f} MB,",
        f"sha256 `{hashlib.sha256(weights).hexdigest()}`.",
        "Written by `benchmarks/checkpoint_page.py` from [its log](checkpoint.jsonl). It was stopped a few",
        "times and resumed from its saved state; each batch depends only on its step.",
        "",
        "Figures are means over the last hundred steps of a phase, on scenes drawn only for these steps.",
        "",
        "| phase | steps | minutes | " + " | ".join(FIGURES.values()) + " |",
        "| --- |" + " ---: |" * (2 + len(FIGURES)),
    ]
    before = 0.0
    for phase in PHASES:
        last = [line for line in lines if line["phase"] == phase.name][-1]
        minutes = (last["seconds"] - before) / 60
        before = last["seconds"]
        cells = [f"{last[name]:.2f}" if name in last else "" for name in FIGURES]
        page.append(f"| `{phase.name}` | {phase.steps} | {minutes:.0f} | " + " | ".join(cells) + " |")
    LOG.write_bytes((Path(folder) / "warm-up.jsonl").read_bytes())
    PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
