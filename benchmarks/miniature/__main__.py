"""The paper in miniature: `python -m benchmarks.miniature OUTPUT`, on two cores in one and a half hours.

Again with the same OUTPUT after a stop: what is done stays done, and trainings go on from their checkpoints.
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

from benchmarks.miniature import page
from benchmarks.miniature.jobs import FULL, TINY
from benchmarks.miniature.plan import plan
from benchmarks.miniature.runner import run_jobs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.miniature", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for all workers")
    parser.add_argument("--tiny", action="store_true", help="one step of everything")
    parser.add_argument("--training-only", action="store_true", help="leave the evaluations to a later call")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="where the results page goes")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    record = args.output / page.RUN
    fixed = {"tiny": args.tiny, "device": args.device}
    if record.exists():
        before = {"checkpoint": "unknown"} | json.loads(record.read_text(encoding="utf-8"))
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
    if not args.training_only:
        about["evaluation_commit"] = commit()
    record.write_text(json.dumps(before | about, indent=1) + "\n", encoding="utf-8")
    jobs = plan(args.output, args.seeds, TINY if args.tiny else FULL, args.device)
    if args.training_only:
        jobs = [job for job in jobs if "data" not in job.options]
    run_jobs(jobs, workers=args.workers)
    if not args.training_only:
        page.write(args.output, args.page)
    return 0


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
