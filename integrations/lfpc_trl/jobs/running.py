"""How commands run long jobs: options, processes and the journal.

`lfpc select-resolution` and `lfpc eval` run many requests through a model. They share how these are split
across processes, shards and machines, saved as they finish, and resumed.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from lfpc_trl.errors import InterruptedRun, UserError
from lfpc_trl.jobs import workers
from lfpc_trl.jobs.journal import Journal

Shard = tuple[int, int]
"""(K, N): every N-th item, starting with the K-th, counted from 1."""


def add_options(parser: argparse.ArgumentParser, *, asked: str, shared: str) -> None:
    """Add the options of a long job.

    Args:
        parser: the command's parser.
        asked: what the engine gets in batches, such as "questions".
        shared: what is split into shards, such as "rows".
    """
    running = parser.add_argument_group("how it runs")
    running.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    running.add_argument(
        "--processes", type=int, default=1, metavar="N", help="each with its own model and GPU; default: 1"
    )
    running.add_argument("--batch-size", type=int, metavar="N", help=f"{asked} at a time")
    running.add_argument("--batch-tokens", type=int, metavar="N", help="visual tokens at a time")
    running.add_argument("--threads", type=int, metavar="N", help="torch threads of a process")
    running.add_argument(
        "--shard", metavar="K/N", help=f"ask about a part of the {shared} and write no output"
    )
    running.add_argument("--merge", action="store_true", help="ask nothing: the shards have all the answers")
    running.add_argument("--ray", action="store_true", help="the processes are actors of Ray Data")


def check_positive(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse given options that are below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def check_options(args: argparse.Namespace) -> Shard | None:
    """Refuse invalid options before anything is read; return the shard, if one is given."""
    check_positive(args, ("processes", "batch_size", "batch_tokens", "max_new_tokens", "threads"))
    if not 0 <= args.temperature <= 2:
        raise UserError(f"--temperature must be 0 to 2, got {args.temperature:g}")
    if args.shard is not None and args.merge:
        raise UserError("--shard and --merge exclude each other: give one of them")
    return None if args.shard is None else _shard(args.shard)


def check_engine(args: argparse.Namespace) -> None:
    """Refuse an engine that is not installed, unless it runs on other machines or not at all."""
    if args.engine == "vllm" and not args.merge and not args.ray:
        from lfpc_trl.models.engines import check_vllm

        check_vllm(training=False)


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard must be K/N with 1 <= K <= N, such as 3/16, got {text!r}")
    return int(match[1]), int(match[2])


def slice_of(shard: Shard | None) -> slice:
    """The part of a list that belongs to a shard."""
    return slice(None) if shard is None else slice(shard[0] - 1, None, shard[1])


def journal_in(folder: Path, shard: Shard | None) -> Path:
    """The path of the journal of a shard, or of a run without shards."""
    first, count = shard or (1, 1)
    return folder / f"{first}-of-{count}.jsonl"


def outcomes(
    args: argparse.Namespace,
    make: workers.MakeWork,
    items: Mapping[str, Any],
    *,
    at_a_time: int,
    begun: Callable[[], object],
) -> workers.Outcomes:
    """Run the work in this process, in several, or in Ray Data actors.

    Args:
        args: with the options of `add_options`.
        make: creates the work of one process.
        items: keyed items.
        at_a_time: items per call of a Ray Data actor.
        begun: called when the first engine has started, which can take minutes; not with Ray Data.
    """
    if args.ray:
        return workers.run_on_ray(make, items, workers=args.processes, at_a_time=at_a_time)
    if args.processes == 1:
        return workers.run_here(make, items, begun)
    return workers.run_processes(make, items, environments(args.processes, args.threads), begun)


def environments(processes: int, threads: int | None) -> list[dict[str, str]]:
    """The environment variables of each worker process: its GPU, and its share of the cores."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        visible = ",".join(str(index) for index in range(torch.cuda.device_count()))
    gpus = [name for name in visible.split(",") if name]
    if gpus and processes > len(gpus):
        raise UserError(f"--processes must be at most the {len(gpus)} visible GPUs, got {processes}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # With more threads than cores, everything slows down by orders of magnitude.
    common = {"OMP_NUM_THREADS": str(threads or max(1, cores // processes))}
    return [common | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}) for index in range(processes)]


def journal_outcomes(
    results: workers.Outcomes,
    journal: Path,
    header: Mapping[str, Any],
    take: Callable[[workers.Outcome], object],
    safe: Callable[[], str],
) -> None:
    """Append every piece to the journal, then pass it on.

    Args:
        results: the outcomes of the work.
        journal: the file.
        header: the settings that its records depend on.
        take: called with each outcome.
        safe: describes what is saved, such as "12 answers".

    Raises:
        UserError: the journal belongs to a run with other settings.
        InterruptedRun: Ctrl-C.
    """
    try:
        with Journal(journal, header) as writer, closing(results):
            for outcome in results:
                if isinstance(outcome, workers.Piece):
                    writer.append([outcome.record])
                take(outcome)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"{safe()} are saved in {journal.parent}; run the same command to resume"
        ) from None


def check_finished(failures: Sequence[workers.Failure], noun: str) -> None:
    """Raise `UserError` if any item could not be finished; it names the first one and the reason."""
    keys = [key for failure in failures for key in failure.keys]
    if keys:
        first = next(failure for failure in failures if failure.keys)
        more = f" (and {len(keys) - 1} more {noun}s)" if len(keys) > 1 else ""
        raise UserError(f"{noun} {first.keys[0]}: not finished, {first.reason}{more}")
    if failures:  # of a worker without pending items
        raise UserError(failures[0].reason)
