"""Runs jobs that wait for each other in a few processes, and starts where it was stopped.

A finished job leaves `<folder>/done/<name>.json` with its outcome; a job without that file is run again.
"""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Job:
    """A call of `work(folder, *args, **options)`.

    Attributes:
        folder: where it works; with the name it identifies the job.
        name: unique in its folder.
        work: a function of a module, returning what JSON can hold.
        args: after the folder.
        options: by name.
        needs: names of jobs in the same folder that must be done before.
    """

    folder: Path
    name: str
    work: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def marker(self) -> Path:
        return marker(self.folder, self.name)

    @property
    def ready(self) -> bool:
        return all(marker(self.folder, name).exists() for name in self.needs)


def marker(folder: Path, name: str) -> Path:
    return folder / "done" / f"{name}.json"


def outcome(folder: Path, name: str) -> Any:
    """What a finished job returned."""
    return json.loads(marker(folder, name).read_text(encoding="utf-8"))["outcome"]


def run_jobs(jobs: Sequence[Job], *, workers: int) -> None:
    """Run all jobs that are not done; the first ready one in the order of the list comes next.

    Raises:
        ValueError: jobs wait for something that is not among them.
        Exception: of a job; what was finished before stays finished.
    """
    waiting = [job for job in jobs if not job.marker.exists()]
    running: dict[Future[None], Job] = {}
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        while waiting or running:
            for job in [job for job in waiting if job.ready][: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(_run, job)] = job
            if not running:
                raise ValueError(
                    f"job {waiting[0].name} waits for {', '.join(waiting[0].needs)}: no such job"
                )
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                future.result()
                seconds = json.loads(job.marker.read_text(encoding="utf-8"))["seconds"]
                left = len(waiting) + len(running)
                print(f"{job.folder.name:8} {job.name:28} {seconds:7.1f} s   {left} to go", flush=True)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run(job: Job) -> None:
    start, used = time.perf_counter(), time.process_time()
    result = job.work(job.folder, *job.args, **job.options)
    record = {
        "outcome": result,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - used, 1),
    }
    job.marker.parent.mkdir(parents=True, exist_ok=True)
    partial = job.marker.with_suffix(".tmp")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(job.marker)


def _start_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A main process that was killed cannot end its workers; they see it themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
