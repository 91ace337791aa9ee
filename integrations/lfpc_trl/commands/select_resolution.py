"""`lfpc select-resolution`: the size at which each row's picture is shown."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc_trl.errors import UserError
from lfpc_trl.jobs import running
from lfpc_trl.jobs.clock import Clock
from lfpc_trl.options import Parser, add_columns, add_respondent
from lfpc_trl.progress import duration
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.data.rows import Row
    from lfpc_trl.jobs.workers import Outcome
    from lfpc_trl.rollouts.respondent import Respondent
    from lfpc_trl.select.ask import AskSettings, LadderItem
    from lfpc_trl.select.ladder import Answers, Ladder, Selection

_LISTED = 20
"""Flagged rows that are printed; all of them are marked in the output."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc select-resolution",
        description="Choose per row how coarsely its picture is shown in stage 1. "
        "A run that was stopped goes on when the same command is given again.",
        allow_abbrev=False,
    )
    add_respondent(parser, model="the model to be trained")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="rows: a file or a folder")
    add_columns(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="new file of rows")
    parser.add_argument("--method", choices=("answer", "hard", "random"), default="answer")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the method random and of sampling; default: 0"
    )
    ladder = parser.add_argument_group("the ladder", "visual tokens of the levels, finest first")
    ladder.add_argument("--finest", type=int, metavar="N", help="at most; default: the picture's")
    ladder.add_argument("--coarsest", type=int, metavar="N", help="where halving ends; default: 64")
    ladder.add_argument("--ladder", metavar="N,N,...", help="these levels instead, such as 4096,1024,256,64")
    asking = parser.add_argument_group("how the model is asked")
    asking.add_argument(
        "--max-new-tokens", type=int, default=2048, metavar="N", help="of one answer; default: 2048"
    )
    asking.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: greedy, the default")
    asking.add_argument(
        "--same-answer", default="rewards", metavar="NAME", help="rewards, exact, or module:function"
    )
    running.add_options(parser, asked="questions", shared="rows")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Select; prints how often each level was selected, and the flagged rows."""
    args = make_parser().parse_args(arguments)
    clock = Clock(answers_folder(args.output))
    shard = _check_options(args)
    ladder = _ladder(args)

    from lfpc_trl.data.columns import columns_of
    from lfpc_trl.data.frames import read_with_warning, tell
    from lfpc_trl.data.rows import write_rows
    from lfpc_trl.select.ladder import comparison, select_by_answers, select_by_rule

    same = comparison(args.same_answer)
    # Rows first: reading them needs no torch, so a mistake in the data shows at once.
    rows, boxes = read_with_warning(args.data, columns=columns_of(args.columns))
    tell(boxes)

    from lfpc_trl.models.processors import MAX_IMAGE_TOKENS
    from lfpc_trl.rollouts.respondent import respondent_of
    from lfpc_trl.select.ask import answers_header, check_questions, open_items, read_answers, spent

    respondent = respondent_of(args)
    side = respondent.factor
    ladders = [
        ladder.levels([picture.size for picture in row.pictures], factor=side, limit=MAX_IMAGE_TOKENS)
        for row in rows
    ]
    if args.method != "answer":
        selection = select_by_rule(rows, ladders, method=args.method, factor=side, seed=args.seed)
        write_rows(selection.rows, args.output)
        _print_levels(selection)
        tell_result({"output": str(args.output)} | selection.summary)
        return
    check_questions(rows, respondent.special_tokens)
    settings = _ask_settings(args, respondent)
    header = answers_header(respondent.engine, respondent.fingerprint(), settings)
    answers: Answers = read_answers(answers_folder(args.output), header, rows)
    mine = running.slice_of(shard)
    items = open_items(rows[mine], ladders[mine], answers, same)
    if items and args.merge:
        raise UserError(
            f"{answers_folder(args.output)}: {len(items)} of {len(rows)} rows still need answers, such as "
            f"row {next(iter(items))}; run the missing shards, or without --merge to ask here"
        )
    if items:
        answers = _ask(args, respondent, settings, rows, ladders, items, answers, header, shard, clock)
    if shard is not None:
        print(f"shard {args.shard}: {len(rows[mine])} rows answered; next: the other shards, then --merge")
        tell_result({"shard": args.shard, "rows": len(rows[mine])})
        return
    selection = select_by_answers(rows, ladders, answers, factor=side, same=same)
    write_rows(selection.rows, args.output)
    _print_levels(selection)
    at_full = {row.id: answers[row.id, sizes[0]] for row, sizes in zip(rows, ladders, strict=True)}
    _print_flagged(selection, at_full)
    requests, usage = spent(answers_folder(args.output), header)
    seconds, bill = clock.total(), respondent.bill(usage)
    print(f"all runs together: {requests:,} questions in {duration(seconds)}, {bill}")
    cost = {"requests": requests, "seconds": seconds, "tokens": asdict(usage), "cost": respondent.cost(usage)}
    tell_result({"output": str(args.output)} | selection.summary | {"asked": cost})


# --- options -----------------------------------------------------------------------------------------


def _check_options(args: argparse.Namespace) -> running.Shard | None:
    """Refuse what cannot work before anything is read; the shard, if one is asked for."""
    from lfpc_trl.data.rows import SUFFIXES

    if args.output.exists():
        raise UserError(f"{args.output}: already exists")
    if args.output.suffix not in SUFFIXES:
        raise UserError(f"{args.output}: rows are written to a .jsonl or .parquet file")
    shard = running.check_options(args)
    if args.method != "answer":
        if args.shard is not None or args.merge or args.ray:
            raise UserError(
                f"--shard, --merge and --ray are of the method answer; {args.method} asks nothing"
            )
    else:
        running.check_engine(args)
    return shard


def _ladder(args: argparse.Namespace) -> "Ladder":
    from lfpc_trl.select.ladder import Ladder

    if args.ladder is None:
        try:
            return Ladder(args.finest, 64 if args.coarsest is None else args.coarsest)
        except ValueError as error:
            raise UserError(str(error)) from None
    if args.finest is not None or args.coarsest is not None:
        raise UserError("--ladder names every level: leave --finest and --coarsest out")
    if not re.fullmatch(r"\d+(,\d+)*", args.ladder):
        raise UserError(f"--ladder must be whole numbers such as 4096,1024,256,64, got {args.ladder!r}")
    try:
        return Ladder.of([int(each) for each in args.ladder.split(",")])
    except ValueError as error:
        raise UserError(f"--ladder: {error}") from None


def _ask_settings(args: argparse.Namespace, respondent: "Respondent") -> "AskSettings":
    from lfpc_trl.select.ask import AskSettings

    batch_size, batch_tokens = respondent.batches
    return AskSettings(
        batch_size=args.batch_size or batch_size,
        batch_tokens=args.batch_tokens or batch_tokens,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
        same=args.same_answer,
    )


def answers_folder(output: Path) -> Path:
    """Where the answers of all runs and shards for an output are written down."""
    return output.with_name(f"{output.name}.answers")


# --- asking ------------------------------------------------------------------------------------------


def _ask(
    args: argparse.Namespace,
    respondent: "Respondent",
    settings: "AskSettings",
    rows: "Sequence[Row]",
    ladders: Sequence[Any],
    items: "Mapping[str, LadderItem]",
    answers: "Answers",
    header: Mapping[str, Any],
    shard: running.Shard | None,
    clock: Clock,
) -> "Answers":
    """Ask what is open, writing down every answer; all answers.

    Raises:
        UserError: rows could not be finished.
        InterruptedRun: Ctrl-C.
    """
    from lfpc_trl.pictures.sizes import tokens_of
    from lfpc_trl.progress import Progress
    from lfpc_trl.select.ask import Collector, MakeLadderWork

    # Two batches are in a worker's hands: with few rows they are made small enough for every worker.
    share = -(-len(items) // (2 * args.processes))
    settings = replace(settings, batch_size=min(settings.batch_size, share))
    side = respondent.factor
    picture_tokens = max(tokens_of(size, side) for levels in ladders for sizes in levels for size in sizes)
    opener = respondent.opener(rows, picture_tokens, max_new_tokens=args.max_new_tokens)
    make = MakeLadderWork(opener, settings, args.threads)
    collector = Collector(items, answers)
    progress = Progress(collector.total)
    if answers:
        print(f"going on: {len(answers)} answers are there already")

    def take(outcome: "Outcome") -> None:
        clock.tick()
        collector.take(outcome)
        given = len(collector.answers) - len(answers)
        progress.show(collector.steps, f"rows {collector.rows}/{len(items)}, answers {given}")

    clock.note()
    try:
        running.journal_outcomes(
            running.outcomes(args, make, items, at_a_time=2 * settings.batch_size, begun=progress.begin),
            running.journal_in(answers_folder(args.output), shard),
            header,
            take,
            lambda: f"{len(collector.answers)} answers",
        )
    finally:
        clock.note()
    collector.check()
    return collector.answers


# --- the outcome -------------------------------------------------------------------------------------


def _print_levels(selection: "Selection") -> None:
    """A histogram of the levels."""
    summary = selection.summary
    print(f"rows: {summary['rows']}, {summary['mean_tokens']:.1f} visual tokens on average")
    for level, count in summary["levels"].items():
        share = count / summary["rows"]
        print(f"level {level:>2}  {count:>7}  {share:>6.1%}  {'#' * round(40 * share)}".rstrip())


def _print_flagged(selection: "Selection", at_full: "Mapping[str, str | None]") -> None:
    """The rows that a person should look at."""
    wrong = [row for row in selection.rows if not row.extras["right_at_full"]]
    print(f"wrong at full resolution: {len(wrong)} (right_at_full is false)")
    for row in wrong[:_LISTED]:
        accepted = " or ".join(map(repr, row.answer))
        print(f"  {row.id}: answered {_quoted(at_full[row.id])}, accepted {accepted}")
    _print_rest(wrong)
    never = [row for row in selection.rows if not row.extras["diverged"]]
    print(f"never diverging: {len(never)} (diverged is false, shown at their coarsest)")
    for row in never[:_LISTED]:
        print(f"  {row.id}: kept to {_quoted(at_full[row.id])}")
    _print_rest(never)


def _quoted(answer: str | None) -> str:
    return "nothing" if answer is None else repr(answer)


def _print_rest(rows: "Sequence[Row]") -> None:
    if len(rows) > _LISTED:
        print(f"  ... and {len(rows) - _LISTED} more")
