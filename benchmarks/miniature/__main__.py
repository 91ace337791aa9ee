"""The paper in miniature: `python -m benchmarks.miniature OUTPUT`.

Again with the same OUTPUT after a stop: what is done stays done, and trainings go on from their checkpoints.

    python -m benchmarks.miniature PACE --scale pace --seeds 0      how long a little of everything takes
    python -m benchmarks.miniature OUTPUT --pace PACE               says what the run will cost, and runs it

The claims, the rule and when the run stops are in claims.md.
"""

import argparse
import datetime as dt
import hashlib
import json
import platform
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.miniature import page
from benchmarks.miniature.cost import estimate, one_of_each_kind
from benchmarks.miniature.jobs import SCALES
from benchmarks.miniature.plan import plan
from benchmarks.miniature.runner import run_jobs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.miniature", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(page.SEEDS))
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for all workers")
    parser.add_argument("--scale", choices=SCALES, default="full", help="tiny: a step of everything")
    parser.add_argument(
        "--pace", type=Path, help="a run at the scale pace: say first what this one will cost"
    )
    parser.add_argument(
        "--hours", type=float, default=12.0, help="of one core; with --pace, the most it may cost"
    )
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="SEED=DIR",
        help="a checkpoint of its own below a seed's start, in place of the shipped one",
    )
    parser.add_argument(
        "--page", type=Path, default=page.PAGE, help="where the results page goes (full scale)"
    )
    args = parser.parse_args(arguments)
    starts = {int(seed): Path(folder) for seed, _, folder in (each.partition("=") for each in args.start)}
    jobs = plan(args.output, args.seeds, SCALES[args.scale], args.device, starts)
    if args.pace:
        measured = plan(args.pace, read_run(args.pace)["seeds"], SCALES["pace"], args.device)
        hours = estimate([job for job in jobs if not job.marker.exists()], measured) / 3600
        print(f"{len(jobs)} jobs, at most about {hours:.1f} hours of one core to go", flush=True)
        if hours > args.hours:
            parser.error(f"--hours {args.hours:g} are not enough: take fewer arms")
    args.output.mkdir(parents=True, exist_ok=True)
    fixed = {"scale": args.scale, "device": args.device}
    if (args.output / page.RECORD).exists():
        before = read_run(args.output)
        for name, value in fixed.items():
            if before[name] != value:
                parser.error(f"{args.output} holds a run with {name} {before[name]}, not {value}")
    else:
        before = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "commit": commit(),
            "checkpoint": checkpoint(),
        }
    about = fixed | {"seeds": args.seeds, "workers": args.workers, "machine": machine()}
    (args.output / page.RECORD).write_text(json.dumps(before | about, indent=1) + "\n", encoding="utf-8")
    run_jobs(one_of_each_kind(jobs) if args.scale == "pace" else jobs, workers=args.workers)
    if args.scale == "full":
        page.write(args.output, args.page)
    return 0


def read_run(output: Path) -> dict[str, Any]:
    """What a run has written about itself."""
    about: dict[str, Any] = json.loads((output / page.RECORD).read_text(encoding="utf-8"))
    return about


def commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(page.ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def checkpoint() -> str:
    """The beginning of the SHA-256 of the shipped checkpoint, from which the starting models are made."""
    weights = resources.files("lfpc_trl.demo") / "warm" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    cores = sum(line.startswith("processor") for line in lines)
    return f"{cores} x {names.pop()}" if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
