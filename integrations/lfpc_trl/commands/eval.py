"""`lfpc eval`: how good a model is on benchmarks, and whether its answers come from its crops."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc_trl.errors import UserError, did_you_mean, not_one_of
from lfpc_trl.jobs import running
from lfpc_trl.jobs.clock import Clock
from lfpc_trl.options import FRAMES, Parser, add_columns, add_respondent
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.evaluate.questions import Benchmark
    from lfpc_trl.evaluate.records import MakeRecords, Plan
    from lfpc_trl.evaluate.work import PictureTasks
    from lfpc_trl.jobs.workers import Outcome
    from lfpc_trl.rollouts.crop_tool import CropSettings
    from lfpc_trl.rollouts.generate import RolloutSettings, Usage
    from lfpc_trl.rollouts.respondent import Open, Respondent

BUDGETS = (1024, 16384)
"""The paper's two budgets of visual tokens for the full image."""
JOURNALS, PICTURES = "journal", "pictures"
"""What an evaluation keeps in its directory, beside the trajectories."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc eval",
        description="Evaluate a model on benchmarks: its answers, its crops, and what becomes of the answers "
        "when the crops are replaced. A run that was stopped goes on when the same command is given again.",
        allow_abbrev=False,
    )
    add_respondent(parser, model="the model")
    parser.add_argument(
        "--data", action="append", required=True, metavar="PATH", help="a benchmark, or NAME=PATH; repeatable"
    )
    add_columns(parser)
    parser.add_argument(
        "--boxes", action="append", metavar="PATH", help="targets for a benchmark, or NAME=PATH"
    )
    parser.add_argument(
        "--layout",
        action="append",
        metavar="LAYOUT",
        help="of a benchmark's file, or NAME=LAYOUT; default: what its columns say",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--budget",
        type=int,
        action="append",
        metavar="N",
        help="visual tokens of the full image at most; repeatable; default: 1024 and 16384",
    )
    asked.add_argument(
        "--conditions",
        metavar="NAMES",
        help="of predicted,target,noise,elsewhere,no_picture,no_tool; default: all that apply",
    )
    asked.add_argument("--samples", type=int, default=1, metavar="N", help="draws per row; default: 1")
    asked.add_argument("--limit", type=int, metavar="N", help="questions of each benchmark; default: all")
    how = parser.add_argument_group("how the model is asked", "default: as it was trained, else the paper's")
    how.add_argument("--crop-tokens", type=int, metavar="N", help="visual tokens of a crop at most")
    how.add_argument("--max-crops", type=int, metavar="N", help="crops of a rollout")
    how.add_argument("--max-turns", type=int, metavar="N", help="turns of a rollout")
    how.add_argument("--max-new-tokens", type=int, metavar="N", help="of one turn")
    how.add_argument(
        "--frame", choices=FRAMES, help="in which the model's boxes count; default: as its family was taught"
    )
    how.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: greedy, the default")
    how.add_argument("--seed", type=int, default=0, help="of sampling, noise and places; default: 0")
    running.add_options(parser, asked="rollouts", shared="pictures")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Evaluate; prints where the results are."""
    args = make_parser().parse_args(arguments)
    clock = Clock(args.output / JOURNALS)
    shard = _check_options(args)
    from lfpc_trl.data.frames import tell

    # Rows first: reading them needs no torch, so a mistake in the data shows at once.
    benchmarks = _read_benchmarks(args)
    for note in (note for benchmark in benchmarks for note in benchmark.notes):
        print(f"note: {note}")
    for benchmark in benchmarks:
        tell(benchmark.warning)

    from lfpc_trl.evaluate.outputs import EVALUATION, PAGE, TABLES, read_about, write_outputs
    from lfpc_trl.evaluate.questions import item_key
    from lfpc_trl.evaluate.records import MakeRecords, open_items, read_records, records_header, usage_of
    from lfpc_trl.evaluate.results import write_results
    from lfpc_trl.rollouts.respondent import respondent_of
    from lfpc_trl.runs.directory import write_json
    from lfpc_trl.select.ask import check_questions

    respondent = respondent_of(args)
    rows = [question.row for benchmark in benchmarks for question in benchmark.questions]
    check_questions(rows, respondent.special_tokens)
    crops, settings = settings_of(args, respondent)
    plan = _plan(args, benchmarks, respondent)
    opener = _opener(respondent, plan, crops, settings)
    header = records_header(respondent.engine, respondent.fingerprint(), crops, settings)
    journals = args.output / JOURNALS
    records = read_records(journals, header, plan)
    pictures = list(dict.fromkeys(map(item_key, rows)))
    mine = set(pictures[running.slice_of(shard)])
    items = {picture: item for picture, item in open_items(plan, records).items() if picture in mine}
    if items and args.merge:
        raise UserError(
            f"{journals}: {len(items)} of {len(pictures)} pictures still need rollouts, such as "
            f"{next(iter(items))}; run the missing shards, or without --merge to ask here"
        )
    if items:
        make = MakeRecords(opener, crops, settings, args.threads)
        _ask(args, make, items, header, shard, before=len(records), clock=clock)
    if shard is not None:
        print(f"shard {args.shard}: {len(mine)} pictures done; next: the other shards, then --merge")
        tell_result({"shard": args.shard, "pictures": len(mine)})
        return
    records = read_records(journals, header, plan)
    write_results(args.output, plan, records, crops)
    write_json(
        args.output / EVALUATION,
        _about(args, respondent, plan, header, usage_of(records.values()), clock.total()),
    )
    write_outputs(args.output)
    if respondent.endpoint is not None:
        print(respondent.bill(usage_of(records.values())))
    print(f"tables: {args.output / TABLES}")
    print(f"page: {args.output / PAGE}")
    told = {"tables": str(args.output / TABLES), "page": str(args.output / PAGE)}
    tell_result(told | {"evaluation": read_about(args.output)})


# --- options -----------------------------------------------------------------------------------------


def _check_options(args: argparse.Namespace) -> running.Shard | None:
    """Refuse what cannot work before anything is read; the shard, if one is asked for."""
    shard = running.check_options(args)
    running.check_positive(args, ("samples", "limit", "crop_tokens", "max_crops", "max_turns"))
    if any(budget < 1 for budget in args.budget or ()):
        raise UserError(f"--budget must be at least 1, got {min(args.budget)}")
    if args.samples > 1 and args.temperature == 0:
        raise UserError("--samples above 1 needs a --temperature above 0: greedy draws are all the same")
    if not _is_ours(args.output):
        raise UserError(f"{args.output}: must be new, empty or an evaluation to go on with")
    running.check_engine(args)
    return shard


def _is_ours(output: Path) -> bool:
    """Whether a directory may be written to."""
    if not output.exists():
        return True
    return output.is_dir() and (
        (output / JOURNALS).is_dir() or {path.name for path in output.iterdir()} <= {PICTURES}
    )


def _read_benchmarks(args: argparse.Namespace) -> "tuple[Benchmark, ...]":
    """The benchmarks, cut down to `--limit`."""
    from lfpc_trl.data.columns import columns_of
    from lfpc_trl.evaluate.formats import read_benchmark
    from lfpc_trl.evaluate.layouts import BENCHMARK_LAYOUTS

    paths: dict[str, Path] = {}
    for text in args.data:
        name, path = _named(text)
        name = name or (path.resolve().name if path.is_dir() else path.stem)
        if name in paths:
            raise UserError(f"--data: two benchmarks are called {name!r}, name them: NAME=PATH")
        paths[name] = path
    boxes = _by_benchmark("--boxes", "PATH", args.boxes, paths)
    layouts = _by_benchmark("--layout", "LAYOUT", args.layout, paths)
    for layout in layouts.values():
        if layout not in BENCHMARK_LAYOUTS:
            raise UserError(not_one_of("--layout", layout, BENCHMARK_LAYOUTS))
    columns = columns_of(args.columns)
    read = [
        read_benchmark(
            path,
            pictures=args.output / PICTURES,
            name=name,
            layout=layouts.get(name),
            columns=columns,
            boxes=boxes.get(name),
            seed=args.seed,
        )
        for name, path in paths.items()
    ]
    return tuple(_limited(benchmark, args.limit) for benchmark in read)


def _by_benchmark(
    option: str, what: str, given: Sequence[str] | None, names: Mapping[str, Path]
) -> dict[str, str]:
    """What an option says of each benchmark; of the only one also without its name."""
    found: dict[str, str] = {}
    for text in given or ():
        name, value = _named(text)
        if name is None and len(names) == 1:
            name = next(iter(names))
        if name is None or name not in names:
            hint = "" if name is None else did_you_mean(name, names)
            raise UserError(
                f"{option} must be NAME={what}, NAME one of {', '.join(names)}, got {text!r}{hint}"
            )
        found[name] = str(value)
    return found


def _named(text: str) -> tuple[str | None, Path]:
    """NAME=PATH or PATH. A path that is there may hold a sign of equality."""
    name, sign, path = text.partition("=")
    return (name, Path(path)) if sign and name and not Path(text).exists() else (None, Path(text))


def _limited(benchmark: "Benchmark", limit: int | None) -> "Benchmark":
    """Questions evenly spaced over the file, so that each of its parts is in it."""
    questions = list(dict.fromkeys(question.question_id for question in benchmark.questions))
    count = min(limit or len(questions), len(questions))
    kept = {questions[index * len(questions) // count] for index in range(count)}
    return replace(
        benchmark,
        questions=tuple(question for question in benchmark.questions if question.question_id in kept),
    )


def settings_of(args: argparse.Namespace, respondent: "Respondent") -> "tuple[CropSettings, RolloutSettings]":
    """How crops are cut and turns are written: as asked, else as in the training, else as in the paper."""
    from lfpc_trl.rollouts.generate import RolloutSettings
    from lfpc_trl.runs.directory import read_manifest
    from lfpc_trl.train.settings import StageSettings

    manifest = None if respondent.model_dir is None else read_manifest(respondent.model_dir)
    recipe = (manifest or {}).get("recipe", {})
    trained = recipe if recipe.get("method", "lfpc") == "lfpc" else {}
    asked = {
        "crop_tokens": args.crop_tokens,
        "max_crops": args.max_crops,
        "max_turns": args.max_turns,
        "response_tokens": args.max_new_tokens,
        "frame": args.frame,
    }
    known = {name: trained[name] for name in (*asked, "min_side") if name in trained}
    stage = StageSettings(**known | {name: value for name, value in asked.items() if value is not None})
    batch_size, batch_tokens = respondent.batches
    crops = stage.crop_settings(respondent.resolve_frame(stage.frame), respondent.factor, seed=args.seed)
    return crops, RolloutSettings(
        stage.max_turns,
        stage.response_tokens,
        args.temperature,
        args.seed,
        args.batch_size or batch_size,
        # A server makes batches itself; each turn is asked as soon as it can be.
        None if respondent.endpoint is not None else args.batch_tokens or batch_tokens,
    )


def _plan(args: argparse.Namespace, benchmarks: "tuple[Benchmark, ...]", respondent: "Respondent") -> "Plan":
    from lfpc_trl.evaluate.conditions import choose
    from lfpc_trl.evaluate.records import Plan

    limit = respondent.token_limit
    for budget in args.budget or ():
        if budget > limit:
            print(f"budget {budget}: taken as {limit}, the most that the processor lets through")
    budgets = sorted({min(budget, limit) for budget in args.budget or BUDGETS})
    names = None if args.conditions is None else [name.strip() for name in args.conditions.split(",")]
    rows = [question.row for benchmark in benchmarks for question in benchmark.questions]
    try:
        conditions = choose(names, rows)
    except ValueError as error:
        raise UserError(f"--conditions: {error}") from None
    return Plan(benchmarks, tuple(budgets), conditions, args.samples, respondent.factor)


def _opener(
    respondent: "Respondent", plan: "Plan", crops: "CropSettings", settings: "RolloutSettings"
) -> "Open":
    """What opens the model for the largest conversation to come.

    Raises:
        UserError: a picture and a turn alone are more than the model reads.
    """
    from lfpc_trl.pictures.sizes import tokens_of

    rows = [question.row for benchmark in plan.benchmarks for question in benchmark.questions]
    sizes = [plan.sizes(row, plan.budgets[-1]) for row in rows]
    shown = [sum(tokens_of(size, plan.factor) for size in each) for each in sizes]
    largest, context = max(shown), respondent.context
    if context is not None and largest + settings.max_new_tokens > context:
        row = rows[shown.index(largest)]
        pictures = "its picture has" if len(row.pictures) == 1 else f"its {len(row.pictures)} pictures have"
        raise UserError(
            f"{row.name}: at budget {plan.budgets[-1]} {pictures} {largest} visual tokens "
            f"and a turn up to {settings.max_new_tokens}, but the model reads {context} tokens in all; give "
            "a smaller --budget or --max-new-tokens"
        )
    return respondent.opener(
        rows,
        max(tokens_of(size, plan.factor) for each in sizes for size in each),
        max_new_tokens=settings.max_new_tokens,
        max_turns=settings.max_turns,
        crops=crops,
    )


# --- asking ------------------------------------------------------------------------------------------


def _ask(
    args: argparse.Namespace,
    make: "MakeRecords",
    items: "Mapping[str, PictureTasks]",
    header: Mapping[str, Any],
    shard: running.Shard | None,
    before: int,
    clock: Clock,
) -> None:
    """Make the rollouts of all items, writing down every one.

    Raises:
        UserError: pictures could not be finished.
        InterruptedRun: Ctrl-C.
    """
    from lfpc_trl.jobs.workers import Failure
    from lfpc_trl.progress import Progress

    total = sum(len(asking.conditions) for item in items.values() for asking in item)
    if before:
        print(f"going on: {before} rollouts are there already")
    if args.processes > 1:  # two batches are in a worker's hands: small enough for every worker
        share = -(-total // (2 * args.processes))
        make = replace(make, settings=replace(make.settings, batch_size=min(make.settings.batch_size, share)))
    progress = Progress(total)
    failures: list[Failure] = []
    rollouts = pictures = 0

    def take(outcome: "Outcome") -> None:
        nonlocal rollouts, pictures
        if isinstance(outcome, Failure):
            failures.append(outcome)
            return
        clock.tick()
        rollouts, pictures = rollouts + 1, pictures + outcome.last
        progress.show(rollouts, f"rollouts {rollouts}/{total}, pictures {pictures}/{len(items)}")

    at_a_time = -(-2 * make.settings.batch_size * len(items) // total)
    clock.note()
    try:
        running.journal_outcomes(
            running.outcomes(args, make, items, at_a_time=at_a_time, begun=progress.begin),
            running.journal_in(args.output / JOURNALS, shard),
            header,
            take,
            lambda: f"{before + rollouts} rollouts",
        )
    finally:
        clock.note()
    running.check_finished(failures, "picture")


# --- the outcome -------------------------------------------------------------------------------------


def _about(
    args: argparse.Namespace,
    respondent: "Respondent",
    plan: "Plan",
    header: Mapping[str, Any],
    usage: "Usage",
    seconds: float,
) -> dict[str, Any]:
    """What `evaluation.json` holds beside the figures."""
    from lfpc_trl.runs.directory import versions

    about: dict[str, Any] = {
        "settings": {
            "model": respondent.name,
            "fingerprint": header["model"],
            "engine": respondent.engine,
            "budgets": list(plan.budgets),
            "conditions": list(plan.conditions),
            "samples": plan.samples,
            **{
                name: header[name] for name in ("temperature", "seed", "max_turns", "max_new_tokens", "crops")
            },
            "limit": args.limit,
            "versions": versions(),
        },
        "benchmarks": [_facts(benchmark) for benchmark in plan.benchmarks],
        "wall_seconds": seconds,
        "tokens": asdict(usage),
    }
    if respondent.endpoint is not None:
        about["endpoint"] = {"url": respondent.endpoint.url, "cost": respondent.cost(usage)}
    return about


def _facts(benchmark: "Benchmark") -> dict[str, Any]:
    rows = [question.row for question in benchmark.questions]
    return {
        "name": benchmark.name,
        "questions": len({question.question_id for question in benchmark.questions}),
        "rows": len(rows),
        "pictures": len({picture.image for row in rows for picture in row.pictures}),
        "all_targets": all(row.regions is not None for row in rows),
    }
