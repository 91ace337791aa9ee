"""`lfpc ask`: a question about a picture, what the model looks at, and its answer."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lfpc_trl.errors import UserError, not_found
from lfpc_trl.options import FRAMES, Parser, add_respondent
from lfpc_trl.progress import duration, is_quiet
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.ask.asking import Answer, Asker

BUDGET = 1024
"""Visual tokens of the whole picture: the smaller of the paper's budgets."""


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc ask",
        description="Ask a model about a picture. Without a question, each line of the keyboard is one.",
        allow_abbrev=False,
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="the picture")
    parser.add_argument("question", nargs="?", metavar="QUESTION", help="the question")
    add_respondent(parser, model="the model")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--choices", nargs="+", metavar="TEXT", help="options, shown as A, B, C, ...")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the crops and the conversation here")
    how = parser.add_argument_group("how the model is asked", "default: as it was trained, else the paper's")
    how.add_argument(
        "--budget",
        type=int,
        default=BUDGET,
        metavar="N",
        help=f"visual tokens of the whole picture at most; default: {BUDGET}",
    )
    how.add_argument("--crop-tokens", type=int, metavar="N", help="visual tokens of a crop at most")
    how.add_argument("--max-crops", type=int, metavar="N", help="crops of a question")
    how.add_argument("--max-turns", type=int, metavar="N", help="turns of a question")
    how.add_argument("--max-new-tokens", type=int, metavar="N", help="of one turn")
    how.add_argument("--frame", choices=FRAMES, help="in which the model's boxes count")
    how.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: greedy, the default")
    how.add_argument("--seed", type=int, default=0, help="of sampling; default: 0")
    page = parser.add_argument_group("a page")
    page.add_argument("--page", action="store_true", help="ask on a local page instead, and watch")
    page.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    page.add_argument("--port", type=int, default=8023, help="0 takes a free one; default: 8023")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Ask; prints what the model looks at, and its answers."""
    args = make_parser().parse_args(arguments)
    _check(args)

    from lfpc_trl.ask.asking import LONGEST_QUESTION, Asker, row_about
    from lfpc_trl.commands.eval import settings_of
    from lfpc_trl.models.weights import no_progress_bars
    from lfpc_trl.pictures.sizes import shown_size, tokens_of
    from lfpc_trl.rollouts.respondent import respondent_of
    from lfpc_trl.select.ask import check_questions

    row_about(args.picture, args.question or "?", args.choices)  # a mistake shows before the model is read
    respondent = respondent_of(args)
    crops, settings = settings_of(args, respondent)
    if args.question is not None:
        check_questions([row_about(args.picture, args.question, args.choices)], respondent.special_tokens)
    longest = row_about(args.picture, "?" * LONGEST_QUESTION, args.choices)
    budget = min(args.budget, respondent.token_limit)
    shown = tokens_of(shown_size(longest.size, budget, factor=crops.factor), crops.factor)
    opener = respondent.opener(
        [longest],
        shown,
        max_new_tokens=settings.max_new_tokens,
        max_turns=settings.max_turns,
        crops=crops,
    )
    with no_progress_bars():
        engine = opener()
    asker = Asker(engine, crops, settings, args.picture, budget, args.choices)
    if args.page:
        from lfpc_trl.ask.app import make_page
        from lfpc_trl.html.server import Access, serve

        access = Access.listening_on(args.host)
        serve(make_page(asker, access, name=respondent.name), access, args.port)
        return
    for number, question in enumerate(_questions(args.question), start=1):
        check_questions([row_about(args.picture, question, args.choices)], respondent.special_tokens)
        _ask(args, asker, question, number)


def _check(args: argparse.Namespace) -> None:
    from lfpc_trl.jobs.running import check_engine, check_positive

    check_positive(args, ("budget", "crop_tokens", "max_crops", "max_turns", "max_new_tokens"))
    if not 0 <= args.temperature <= 2:
        raise UserError(f"--temperature must be 0 to 2, got {args.temperature:g}")
    if not args.picture.is_file():
        raise not_found(args.picture)
    if args.save is not None and args.save.exists() and (args.save.is_file() or any(args.save.iterdir())):
        raise UserError(f"{args.save}: must be a new or empty directory")
    if args.page and (args.question is not None or args.save is not None):
        raise UserError("--page asks on the page: leave the question and --save out")
    args.merge = args.ray = False
    args.batch_size, args.batch_tokens = 1, None
    check_engine(args)


def _questions(given: str | None) -> Iterator[str]:
    """The one of the command line, or the lines of the keyboard until it ends."""
    if given is not None:
        yield given
        return
    asks = sys.stdin.isatty()
    while True:
        if asks:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _ask(args: argparse.Namespace, asker: "Asker", question: str, number: int) -> None:
    told = 0

    def tell(answer: "Answer") -> None:
        nonlocal told
        for number, look in enumerate(answer.looks[told:], start=told + 1):
            if not is_quiet():
                box, size = " ".join(map(str, look.box)), " x ".join(map(str, look.size))
                line = (
                    f"crop {number}: box {box}, shown as {size}, {look.tokens} tokens, {look.seconds:.1f} s"
                )
                print(line, flush=True)
        told = len(answer.looks)

    answer = asker.ask(question, tell)
    if args.save is not None:
        _save(args.save, answer, number)
    tell_result(answer.as_json())
    print(answer.answer if is_quiet() else f"answer: {answer.answer or 'none'}", flush=True)
    if not is_quiet():
        size, usage = " x ".join(map(str, asker.shown)), answer.usage
        refused = f", {len(answer.failures)} calls refused" if answer.failures else ""
        print(
            f"picture shown as {size}, {asker.tokens} tokens; {len(answer.turns)} turns{refused}, "
            f"{usage.prompt_tokens} tokens read, {usage.completion_tokens} written, "
            f"{duration(answer.seconds)}",
            flush=True,
        )


def _save(folder: Path, answer: "Answer", number: int) -> None:
    """The crops as the model saw them, and the conversation."""
    from lfpc_trl.files import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    for index, look in enumerate(answer.looks, start=1):
        look.picture.save(folder / f"{number}-crop-{index}.png")
    write_atomic(folder / f"{number}.json", json.dumps(answer.as_json(), indent=1) + "\n")
