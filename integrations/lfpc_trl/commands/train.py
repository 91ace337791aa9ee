"""`lfpc train`: one stage on the user's rows, with a recipe."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfpc_trl.errors import InterruptedRun, UserError
from lfpc_trl.options import EVERYWHERE
from lfpc_trl.progress import Pace, is_quiet
from lfpc_trl.results import tell_result


@dataclass(frozen=True)
class RunArguments:
    """What is trained on what, and where to."""

    model: str | None = field(default=None, metadata={"help": "directory of a model of a supported family"})
    data: str | None = field(default=None, metadata={"help": "rows: a file or a folder"})
    columns: list[str] | None = field(
        default=None,
        metadata={"help": "where the data has them under other names, such as question=problem"},
    )
    output: str | None = field(default=None, metadata={"help": "new directory for the run"})
    resume: bool = field(default=False, metadata={"help": "go on with the run in --output"})
    shown_tokens: int | None = field(
        default=None, metadata={"help": "show every picture at so many visual tokens at most"}
    )
    allow_code: bool = field(
        default=False, metadata={"help": "run the code that the recipe itself names in reward and judge"}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "tell what the run would do and need, and do nothing"}
    )


def make_parser() -> argparse.ArgumentParser:
    """The options: those of the run, those of LFPC, and all of TRL that a recipe may hold."""
    from lfpc_trl.train.recipe import RecipeParser

    parser = RecipeParser(
        RunArguments,
        prog="lfpc train",
        usage="lfpc train --config RECIPE --model DIR --data FILE --output DIR [options]",
        description="Train one stage. RECIPE is the name of a recipe of this package or a .yaml file; "
        "options override it.",
    )
    parser.add_argument("--config", metavar="RECIPE", help="a recipe's name or file")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Train, or start the processes that do; prints a line per step."""
    from lfpc_trl.data.columns import columns_of
    from lfpc_trl.data.frames import read_with_warning, tell
    from lfpc_trl.data.rows import with_shown_tokens
    from lfpc_trl.train import launch
    from lfpc_trl.train.recipe import RecipeParser, parse, recipe_file, recipe_of

    parser = make_parser()
    assert isinstance(parser, RecipeParser)
    arguments = [word for word in arguments if word not in EVERYWHERE]  # TRL's parser does not know them
    objects = parse(parser, _with_config_file(arguments, recipe_file))
    run, recipe = objects[0], recipe_of(objects)
    _check_paths(run)
    model_dir, output_dir = Path(run.model), Path(run.output)
    processes = launch.processes_of(recipe.launch)
    recipe.check(processes)
    # Rows first: reading them needs no model, so a mistake in the data shows at once.
    needs_targets = recipe.stage.grounding_weight != 0
    rows, boxes = read_with_warning(run.data, require_targets=needs_targets, columns=columns_of(run.columns))

    from lfpc_trl.models.processors import factor_of
    from lfpc_trl.models.weights import default_device
    from lfpc_trl.train.run import check, check_before_training, train

    if run.shown_tokens is not None:
        rows = with_shown_tokens(rows, run.shown_tokens, factor=factor_of(model_dir))
    cpu = recipe.option("use_cpu") or (recipe.launch.accelerate_config is None and default_device() == "cpu")
    if run.dry_run:
        from lfpc_trl.train.dry_run import describe

        check(recipe, model_dir, rows, processes=processes, installed=False)
        sections = describe(recipe, model_dir, rows, processes)
        print("\n\n".join(f"# {title}\n{text}" for title, text in sections.items()))
        tell_result(sections | {"settings": recipe.flat()})
        return
    if not launch.is_launched():
        tell(boxes)
        check(recipe, model_dir, rows, processes=processes)
        command = launch.launch_command(recipe.launch, ["train", *arguments], cpu=cpu)
        if command is not None:
            # Each process proves this again; here it fails once and before any of them has started.
            check_before_training(recipe, model_dir, rows)
            launch.replace_process(command)
    try:
        result = train(recipe, model_dir, rows, output_dir, resume=run.resume, on_step=step_teller())
    except KeyboardInterrupt:
        from lfpc_trl.runs.directory import last_step

        step = last_step(output_dir)
        safe = f"saved up to step {step}, go on with --resume" if step else "nothing was saved yet"
        raise InterruptedRun(safe) from None
    if os.environ.get("RANK", "0") == "0":
        print(f"trained model: {result.output_dir}")
        last = result.metrics[-1] if result.metrics else None
        tell_result({"output": str(result.output_dir), "steps": result.steps, "last_step": last})


def _with_config_file(arguments: Sequence[str], recipe_file: Any) -> list[str]:
    """The arguments with a recipe's name replaced by its file, which is what TRL's parser reads."""
    words = [part for word in arguments for part in _split(word)]
    if "--config" not in words[:-1]:
        if {"-h", "--help"} & set(words):
            return words
        from lfpc_trl.train.recipe import recipe_names

        raise UserError(f"--config is needed: a .yaml file or one of {', '.join(recipe_names())}")
    if words.count("--config") > 1:
        raise UserError("--config is given twice; options override a recipe, another recipe does not")
    at = words.index("--config") + 1
    return [*words[:at], str(recipe_file(words[at])), *words[at + 1 :]]


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _check_paths(run: RunArguments) -> None:
    for name in ("model", "data", "output"):
        if getattr(run, name) is None:
            raise UserError(f"--{name} is needed")
    if run.shown_tokens is not None and run.shown_tokens < 1:
        raise UserError(f"--shown-tokens must be at least 1, got {run.shown_tokens}")


def step_teller() -> Callable[[int, int, dict[str, Any]], None]:
    """Prints each step of a run, with how fast they go and how long the others will take."""
    pace: Pace | None = None

    def tell(step: int, total: int, metrics: dict[str, Any]) -> None:
        nonlocal pace
        pace = pace or Pace(total, step)  # what comes before the first step tells nothing of their speed
        print_step(step, total, metrics, pace.text(step))

    return tell


def print_step(step: int, total: int, metrics: dict[str, Any], pace: str) -> None:
    """One line per step; with `--quiet` none."""
    if is_quiet():
        return
    names = ("reward", "accuracy", "format", "tool_calls", "failed_calls", "iou", "overlap", "bbox_ratio")
    values = [f"{name} {metrics[name]:.3f}" for name in names if metrics[name] is not None]
    print(f"step {step}/{total}  " + "  ".join(values) + pace, flush=True)
