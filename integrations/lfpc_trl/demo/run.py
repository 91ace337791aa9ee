"""`lfpc demo`: both LFPC stages on this machine, from pictures to a report.

    pictures ─ resolution selection ─ stage 1 ─┬─ stage 2 ──┬─ evaluation of all four models ─ report
                                               └─ control ──┘

Every step runs the same code as `lfpc train` and the library; only the data and the model are small. Stage 2
and its control start from the same model and see the same rows in the same order; they differ only in the
grounding reward. Independent steps run in parallel in two worker processes with one thread each.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from lfpc_trl.errors import UserError
from lfpc_trl.files import atomic_file, write_atomic
from lfpc_trl.json_values import read_json
from lfpc_trl.progress import Pace, Progress, is_quiet

MANIFEST = "demo.json"
WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the demo. A picture has three signs, hence three questions.

    Attributes:
        stage1_pictures: training pictures of stage 1.
        stage2_pictures: training pictures of stage 2 and its control.
        test_pictures: evaluation pictures.
        condition_pictures: the first of these, also evaluated with replaced crops and without the tool.
        stage1_steps: steps of stage 1.
        stage2_steps: steps of stage 2 and its control.
        prompts_per_step: questions per step.
        num_generations: rollouts per question.
    """

    stage1_pictures: int = 28
    stage2_pictures: int = 24
    test_pictures: int = 320
    condition_pictures: int = 24
    stage1_steps: int = 10
    stage2_steps: int = 8
    prompts_per_step: int = 8
    num_generations: int = 8


FULL = Scale()
QUICK = Scale(8, 8, 10, 10, 4, 4, 4, 4)

TEMPERATURE = 0.5
"""Sampling temperature of training rollouts: a small model is less sure of its boxes than a large one. The
evaluation decodes greedily, as the paper does, so that its results do not depend on sampling."""
FINEST, COARSEST = 216, 54
"""Visual tokens of the finest overview (the small model's own limit) and of the coarsest."""
CROP_TOKENS = 64
SMALL_MODEL = {
    "threads": 1,
    "temperature": TEMPERATURE,
    "crop_tokens": CROP_TOKENS,
    "response_tokens": 48,
    "trajectory_tokens": 512,
    "max_turns": 3,
    "max_crops": 2,
    # 200 times the paper's rate: the model is four orders of magnitude smaller.
    "learning_rate": 2e-4,
    "save_every": 10,
}


def run(
    output: Path, *, seed: int = 0, quick: bool = False, from_scratch: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Run the demo, print its figures and return the content of `results.json`.

    Args:
        output: a new or empty directory, or that of the demo to resume.
        seed: seed for pictures, sampling and training.
        quick: run only a few steps of everything.
        from_scratch: also train the warm checkpoint.
        resume: resume the demo in `output`.

    Raises:
        UserError: the directory cannot be used for this demo.
    """
    _prepare(output, {"seed": seed, "quick": quick, "from_scratch": from_scratch}, resume)
    results = Demo(output, QUICK if quick else FULL, seed, from_scratch).run()
    _print_summary(results, output)
    return results


def _prepare(output: Path, manifest: dict[str, Any], resume: bool) -> None:
    path = output / MANIFEST
    if path.exists():
        if not resume:
            raise UserError(f"{output}: already holds a demo; add --resume or choose another --output")
        try:
            before = read_json(path)
        except ValueError as error:
            raise UserError(f"{path}: not readable ({error})") from None
        for name, value in manifest.items():
            if before.get(name) != value:
                raise UserError(
                    f"{output}: holds a demo with other options: {name} was {before.get(name)}, now {value}"
                )
        return
    if resume:
        raise UserError(f"{output}: no demo to resume here")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: the output directory must be new or empty")
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(manifest) + "\n")


# --- the steps, each run in a worker process ---------------------------------------------------------

Report = Callable[[int, int], object]
"""Called with the units done so far and the total."""


def make_pictures(output: Path, scale: Scale, seed: int, report: Report) -> None:
    """Draw the pictures and rows of stage 1, stage 2 and the test (photographs never trained on)."""
    from lfpc_trl.demo import world

    counts = {
        "stage1": (scale.stage1_pictures, world.TRAINING_PHOTOS, 1),
        "stage2": (scale.stage2_pictures, world.TRAINING_PHOTOS, 2),
        "test": (scale.test_pictures, world.UNSEEN_PHOTOS, 3),
    }
    total = sum(count for count, _, _ in counts.values())
    done = 0
    for name, (count, photos, stream) in counts.items():
        for _ in world.make_pictures(
            output / "data", count, seed=10 * seed + stream, photos=photos, name=name
        ):
            done += 1
            report(done, total)


def select(output: Path, scale: Scale, seed: int, report: Report) -> dict[str, Any]:
    """Select resolutions offline with the warm checkpoint; all rows of stage 2 use the coarsest.

    Stage 2 needs harder rows than stage 1 (the paper uses another data set for it). Here harder means
    coarser: a sign that is 45 pixels wide is hard to box exactly.
    """
    del scale
    _be_quiet()
    from lfpc_trl.data.rows import read_rows, write_rows
    from lfpc_trl.models.processors import load_processor
    from lfpc_trl.models.weights import load_model
    from lfpc_trl.select.ask import select_resolution

    model, processor = load_model(output / "warm"), load_processor(output / "warm")
    summary: dict[str, Any] = {}
    rows = {name: read_rows(output / "data" / f"{name}.jsonl") for name in ("stage1", "stage2")}
    methods: dict[str, Literal["answer", "hard"]] = {"stage1": "answer", "stage2": "hard"}
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report(done, sum(map(len, rows.values())))

    for name, some in rows.items():
        selection = select_resolution(
            model,
            processor,
            some,
            method=methods[name],
            finest=FINEST,
            coarsest=COARSEST,
            seed=seed,
            max_new_tokens=16,
            batch_size=48,
            progress=progress,
        )
        write_rows(selection.rows, output / "data" / f"{name}-selected.jsonl")
        summary[name] = selection.summary
    return summary


def train_stage(output: Path, scale: Scale, seed: int, report: Report, *, name: str) -> None:
    """Train stage 1, stage 2, or the control: stage 1's reward on stage 2's rows for stage 2's steps."""
    _be_quiet()
    from lfpc_trl.data.rows import read_rows
    from lfpc_trl.train.run import train

    data = "stage1" if name == "stage1" else "stage2"
    start = "warm" if name == "stage1" else "stage1"
    directory = output / name
    train(
        recipe_of(name, scale, seed),
        output / start,
        read_rows(output / "data" / f"{data}-selected.jsonl", require_targets=True),
        directory,
        resume=(directory / "manifest.json").exists(),
        on_step=lambda step, total, _line: report(step, total),
    )


def recipe_of(name: str, scale: Scale, seed: int) -> Any:
    """The recipe of an arm: the CPU recipe, scaled to a very small model and few rollouts."""
    from lfpc_trl.train.recipe import load_recipe

    common: dict[str, Any] = SMALL_MODEL | {
        "prompts_per_step": scale.prompts_per_step,
        "prompts_per_update": scale.prompts_per_step,
        "num_generations": scale.num_generations,
        "per_device_train_batch_size": scale.prompts_per_step * scale.num_generations,
        "seed": seed,
    }
    if name == "stage1":
        # No other step runs at the same time, so it can use both cores.
        return load_recipe("cpu-stage1", **common | {"steps": scale.stage1_steps, "threads": WORKERS})
    common["steps"] = scale.stage2_steps
    if name == "control":
        return load_recipe("cpu-stage1", **common)
    # On this data the term varies less between boxes than accuracy does, hence the larger weight.
    return load_recipe("cpu-stage2", **common | {"grounding_weight": 2.0})


def evaluate_model(output: Path, scale: Scale, seed: int, report: Report, *, name: str) -> Any:
    """Evaluate one model greedily on the test pictures, shown at the coarsest overview."""
    _be_quiet()
    import torch

    from lfpc_trl.data.rows import read_rows, with_shown_tokens
    from lfpc_trl.evaluate.in_process import FOUR, Evaluation, evaluate
    from lfpc_trl.models.families import family_of
    from lfpc_trl.models.processors import factor, load_processor
    from lfpc_trl.models.weights import load_model
    from lfpc_trl.rollouts.crop_tool import CropSettings

    torch.set_num_threads(1)
    model, processor = load_model(output / name), load_processor(output / name)
    side = factor(processor)
    rows = with_shown_tokens(
        read_rows(output / "data" / "test.jsonl", require_targets=True), COARSEST, factor=side
    )
    condition_rows = rows[: 3 * scale.condition_pictures]
    done, total = 0, len(rows) + len(FOUR) * len(condition_rows)

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    own, others = (
        evaluate(
            model,
            processor,
            questions,
            crop_settings=CropSettings(
                family_of(output / name).resolve_frame(), side, crop_tokens=CROP_TOKENS, max_crops=2
            ),
            max_turns=3,
            max_new_tokens=48,
            seed=seed,
            batch_size=60,
            conditions=conditions,
            progress=progress,
        )
        for questions, conditions in ((rows, ("predicted",)), (condition_rows, FOUR))
    )
    metrics = others.metrics | {key: value for key, value in own.metrics.items() if value is not None}
    return Evaluation(metrics, own.trajectories, own.seconds + others.seconds)


def warm_up(output: Path, scale: Scale, seed: int, report: Report) -> None:
    """Train the warm checkpoint from scratch, with the seed of the shipped one."""
    del scale, seed
    from lfpc_trl.demo import warm_up as script

    total = sum(phase.steps for phase in script.PHASES)
    before = {p.name: sum(q.steps for q in script.PHASES[:i]) for i, p in enumerate(script.PHASES)}
    script.warm_up(
        output / "warm",
        on_step=lambda phase, step, _steps, _stats: report(before[phase] + step, total),
        workers=1,
    )


def _be_quiet() -> None:
    """Limit a worker process to one thread and silence transformers."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


# --- running them ------------------------------------------------------------------------------------

_messages: Any = None


def _start_worker(messages: Any) -> None:
    global _messages
    _messages = messages
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ctrl-C reaches the whole process group; the main process terminates the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Exit when the parent process is gone: a killed main process cannot terminate its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(
    title: str, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, float]:
    start = time.perf_counter()
    outcome = step(*args, report=lambda done, total: _messages.put((title, done, total)), **kwargs)
    return outcome, time.perf_counter() - start


class _Bar:
    """What is done of a step, how fast it goes and how long it will take, and a line when it is over.

    In a terminal it is a bar in a line of its own, as two steps run at a time.
    """

    def __init__(self, title: str, slot: int) -> None:
        self.title, self.slot = title, slot
        self._pace = Pace(None)
        self._done = self._total = 0
        self._line = Progress(None)
        terminal = sys.stderr.isatty() and not is_quiet()
        self._bar = tqdm(bar_format="{desc}", position=slot, leave=False) if terminal else None

    def show(self, done: int, total: int) -> None:
        if not self._total:  # startup and loading do not count for the speed
            self._pace = Pace(total, done)
        self._done, self._total = done, total
        text = f"{self.title:<22} {done}/{total}{self._pace.text(done)}"
        if self._bar is not None:
            self._bar.set_description_str(text)
        else:
            self._line.show(done, text)

    def finish(self, seconds: float) -> None:
        if self._bar is not None:
            self._bar.close()
        if not is_quiet():
            count = f"{self._done}/{self._total}" if self._total else ""
            tqdm.write(f"{self.title:<22} {count:>9}  {seconds:6.1f} s")
            sys.stdout.flush()  # so that a log file can be followed


class Demo:
    """One run of the demo in one output directory."""

    def __init__(self, output: Path, scale: Scale, seed: int, from_scratch: bool) -> None:
        self.output, self.scale, self.seed, self.from_scratch = output, scale, seed, from_scratch
        self.seconds: dict[str, float] = {}
        self.outcomes: dict[str, Any] = {}
        self._bars: dict[str, _Bar] = {}

    def run(self) -> dict[str, Any]:
        """All steps in order; returns the content of `results.json`."""
        context = multiprocessing.get_context("spawn")
        messages: Any = context.Queue()
        # name: (title, step, options, what it waits for)
        trained = {n: (train_stage, {"name": n}) for n in ("stage1", "stage2", "control")}
        models = ("warm", *trained)
        plan: dict[str, tuple[str, Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
            "pictures": ("drawing pictures", make_pictures, {}, ()),
            "selection": ("resolution selection", select, {}, ("pictures", "warm")),
            "stage1": ("stage 1", *trained["stage1"], ("selection",)),
            "stage2": ("stage 2", *trained["stage2"], ("stage1",)),
            "control": ("control", *trained["control"], ("stage1",)),
            **{
                f"evaluate {n}": (f"evaluating {n}", evaluate_model, {"name": n}, ("pictures", n))
                for n in models
            },
        }
        if self.from_scratch:
            from lfpc_trl.demo.warm_up import HOURS

            print(
                f"training the checkpoint from nothing first: about {HOURS:g} hours on one core", flush=True
            )
            plan["warm"] = ("warm checkpoint", warm_up, {}, ())
        else:
            self._copy_warm_checkpoint()
            self.outcomes["warm"] = None
        start = time.perf_counter()
        with ProcessPoolExecutor(
            WORKERS, mp_context=context, initializer=_start_worker, initargs=(messages,)
        ) as pool:
            self._run_plan(pool, plan, messages)
        self.seconds["all"] = time.perf_counter() - start
        return self._write(models)

    def _copy_warm_checkpoint(self) -> None:
        source = resources.files("lfpc_trl.demo") / "warm"
        target = self.output / "warm"
        target.mkdir(exist_ok=True)
        for file in source.iterdir():
            with atomic_file(target / file.name) as draft:
                draft.write_bytes(file.read_bytes())

    def _run_plan(self, pool: ProcessPoolExecutor, plan: Mapping[str, Any], messages: Any) -> None:
        waiting = dict(plan)
        running: dict[Future[Any], str] = {}
        try:
            while waiting or running:
                for name in [
                    n for n, (_, _, _, needs) in waiting.items() if all(m in self.outcomes for m in needs)
                ]:
                    if len(running) >= WORKERS:
                        break
                    title, step, options, _ = waiting.pop(name)
                    slot = min(set(range(WORKERS)) - {bar.slot for bar in self._bars.values()})
                    self._bars[title] = _Bar(title, slot)
                    future = pool.submit(_work, title, step, (self.output, self.scale, self.seed), options)
                    running[future] = name
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                self._drain(messages)
                for future in finished:
                    name = running.pop(future)
                    self.outcomes[name], self.seconds[name] = future.result()
                    self._bars.pop(plan[name][0]).finish(self.seconds[name])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise

    def _drain(self, messages: Any) -> None:
        while True:
            try:
                title, done, total = messages.get_nowait()
            except queue.Empty:
                return
            if title in self._bars:
                self._bars[title].show(done, total)

    def _write(self, models: tuple[str, ...]) -> dict[str, Any]:
        from lfpc_trl.demo.goals import differences_between, intervals_of
        from lfpc_trl.demo.report import write_report
        from lfpc_trl.runs.directory import read_metrics

        evaluations = {name: self.outcomes[f"evaluate {name}"] for name in models}
        trajectories = {name: evaluation.trajectories for name, evaluation in evaluations.items()}
        results: dict[str, Any] = {
            name: evaluation.metrics | {"intervals": intervals_of(evaluation.trajectories)}
            for name, evaluation in evaluations.items()
        }
        results["differences"] = differences_between(trajectories)
        results["selection"] = self.outcomes["selection"]
        results["seconds"] = {name: round(value, 1) for name, value in self.seconds.items()}
        text = json.dumps(results, indent=1) + "\n"
        write_atomic(self.output / "results.json", text)
        write_report(
            self.output / "report.html",
            results=results,
            curves={name: read_metrics(self.output / name) for name in ("stage1", "stage2", "control")},
            trajectories=trajectories,
            settings={
                "seed": self.seed,
                **dataclasses.asdict(self.scale),
                "temperature of training": TEMPERATURE,
            },
        )
        return results


def _print_summary(results: Mapping[str, Any], output: Path) -> None:
    columns = {
        "accuracy": "accuracy",
        "accuracy_noise_crop": "with noise",
        "tool_calls": "crops",
        "iou": "IoU",
        "overlap": "overlap",
        "bbox_ratio": "crop size",
        "format": "format",
    }
    print("\n" + " " * 10 + "".join(f"{title:>12}" for title in columns.values()))
    for name in ("warm", "stage1", "stage2", "control"):
        values = (results[name][key] for key in columns)
        print(f"{name:10}" + "".join(f"{'-' if v is None else format(v, '.3f'):>12}" for v in values))
    print(f"\nopen {output / 'report.html'}   (figures: {output / 'results.json'})")
