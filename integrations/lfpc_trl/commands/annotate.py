"""`lfpc annotate`: nested boxes, questions and answers on a local page."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lfpc_trl.errors import UserError
from lfpc_trl.options import FRAMES, Parser, add_respondent
from lfpc_trl.results import tell_result

if TYPE_CHECKING:
    from lfpc_trl.annotate.app import ModelView
    from lfpc_trl.annotate.project import Project
    from lfpc_trl.annotate.proposals import Model
    from lfpc_trl.rollouts.crop_tool import CropSettings
    from lfpc_trl.rollouts.generate import RolloutSettings
    from lfpc_trl.rollouts.respondent import Respondent


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="lfpc annotate",
        description="Draw nested target boxes on the originals, on a local page.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, metavar="FILE", help="rows, or a folder of pictures")
    parser.add_argument("--export", type=Path, metavar="OUT", help="write the finished rows to OUT and stop")
    parser.add_argument(
        "--stage",
        type=int,
        choices=(1, 2),
        default=2,
        help="what the rows are for: 1 lets rows without boxes be finished and exported; default: 2",
    )
    parser.add_argument(
        "--annotator", metavar="NAME", help="written beside every change; default: your login"
    )
    parser.add_argument("--prefill", type=Path, metavar="RUN", help="trajectories whose crops are proposed")
    parser.add_argument(
        "--factor", type=int, metavar="N", help="pixels per visual token; default: the model's, or 28"
    )
    parser.add_argument(
        "--shown-tokens", type=int, default=256, metavar="N", help="of the overview; default: 256"
    )
    parser.add_argument(
        "--crop-tokens", type=int, metavar="N", help="of a crop; default: as the model was trained, or 1024"
    )
    add_respondent(parser, model="proposes boxes on the page")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--frame", choices=FRAMES, help="in which the model's boxes count")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8021, help="0 takes a free one; default: 8021")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Serve the page, or export."""
    args = make_parser().parse_args(arguments)
    for name in ("factor", "shown_tokens", "crop_tokens"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")

    from lfpc_trl.annotate.project import Project
    from lfpc_trl.data.frames import tell

    project = Project(args.source, stage=args.stage, leave_out=args.export is not None)
    for line in project.left_out_lines(at_most=None if args.export else 20):
        print(line, file=sys.stderr)
    tell(project.warning)
    if project.journal.skipped:
        print(
            f"{project.journal.path}: skipped {project.journal.skipped} line(s) that hold no change, "
            "such as a write that was cut short and never confirmed",
            file=sys.stderr,
        )
    if args.export is not None:
        _export(project, args.export)
        return

    from lfpc_trl.annotate.app import make_annotator
    from lfpc_trl.annotate.proposals import Proposal, Proposals
    from lfpc_trl.html.server import Access, serve
    from lfpc_trl.runs.reading import crops_by_row

    view, model = _view_and_model(args, project)
    crops = {} if args.prefill is None else crops_by_row(args.prefill)
    run = "" if args.prefill is None else args.prefill.resolve().name
    of_run = {row: [Proposal(box, run, image) for image, box in found] for row, found in crops.items()}
    access = Access.listening_on(args.host)
    app = make_annotator(
        project,
        access,
        annotator=args.annotator or getpass.getuser(),
        view=view,
        proposals=Proposals(of_run, model),
    )
    serve(app, access, args.port)
    print(f"every change is in {project.journal.path}")


def _view_and_model(args: argparse.Namespace, project: "Project") -> "tuple[ModelView, Model | None]":
    """How the model sees a picture, and who proposes boxes; weights are read when it is asked."""
    from lfpc_trl.annotate.app import ModelView

    named = [args.model, *(getattr(args, name) for name in vars(args) if name.startswith("endpoint"))]
    if all(each is None for each in named):
        default = ModelView()
        factor, tokens = args.factor or default.factor, args.crop_tokens or default.crop_tokens
        return ModelView(factor, args.shown_tokens, tokens), None

    from lfpc_trl.commands.eval import settings_of
    from lfpc_trl.jobs.running import check_engine
    from lfpc_trl.rollouts.respondent import respondent_of

    args.merge = args.ray = False
    check_engine(args)
    respondent = respondent_of(args)
    # One question at a time, greedily; turns and crops as the model was trained.
    args.max_crops = args.max_turns = args.max_new_tokens = args.batch_tokens = None
    args.batch_size, args.temperature, args.seed = 1, 0.0, 0
    crops, settings = settings_of(args, respondent)
    if args.factor not in (None, crops.factor):
        raise UserError(f"--factor must be {crops.factor}, that of the model, got {args.factor}")
    view = ModelView(crops.factor, min(args.shown_tokens, respondent.token_limit), crops.crop_tokens)
    return view, _model(respondent, crops, settings, view, project)


def _model(
    respondent: "Respondent",
    crops: "CropSettings",
    settings: "RolloutSettings",
    view: "ModelView",
    project: "Project",
) -> "Model":
    from lfpc_trl.annotate.journal import Content
    from lfpc_trl.annotate.looking import Looker
    from lfpc_trl.ask.asking import LONGEST_QUESTION
    from lfpc_trl.pictures.sizes import tokens_of
    from lfpc_trl.select.ask import check_questions

    most = max(project.items, key=lambda item: len(item.pictures))
    pictures = (picture for item in project.items for picture in item.pictures)
    opener = respondent.opener(
        [project.as_asked(most, Content("?" * LONGEST_QUESTION))],
        max(tokens_of(view.overview_size(picture), view.factor) for picture in pictures),
        max_new_tokens=settings.max_new_tokens,
        max_turns=settings.max_turns,
        crops=crops,
    )
    return Looker(
        respondent.name,
        opener,
        crops,
        settings,
        check=lambda row: check_questions([row], respondent.special_tokens),
    )


def _export(project: "Project", output: Path) -> None:
    from lfpc_trl.data.rows import write_rows

    if output.exists():
        raise UserError(f"{output}: already exists")
    rows, refused = project.exported()
    unfinished = project.unfinished()
    for line in (*project.unusable, *refused, *unfinished):
        print(line, file=sys.stderr)
    if not rows:
        raise UserError(f"{project.source}: no row is done, nothing to export")
    write_rows(rows, output)
    lost = f" (and {len(refused)} that are done but cannot be used, see above)" if refused else ""
    print(f"{output}: {len(rows)} rows, left out {len(unfinished)}{lost}")
    left_out = {"unfinished": unfinished, "refused": refused, "unusable": project.unusable}
    tell_result({"output": str(output), "rows": len(rows)} | {k: list(v) for k, v in left_out.items()})
