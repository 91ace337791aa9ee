"""The page of what passes with which family: `python -m tests.conformance.record` writes it.

It runs the suite on a tiny model of each family; `test_families.py` runs it again and compares.
"""

import datetime as dt
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from lfpc_trl.conformance.checks import CHECKS, Verdict, examine
from lfpc_trl.models.families import FAMILIES, family_named
from lfpc_trl.versions import installed
from tests import tiny

PAGE = Path(__file__).parents[2] / "docs" / "results" / "families.md"
TABLE = re.compile(r"(?<=<!-- written by tests/conformance/record.py -->\n).*", re.DOTALL)
PACKAGES = ("torch", "transformers", "trl", "peft")
_SAID = {"ok": "yes", "warning": "with a warning", "problem": "no", "skipped": "-"}


def known_types() -> list[str]:
    """The model types of the families that the installed transformers has; Qwen4-Exp came late."""
    types = [family.model_type for family in FAMILIES]
    return [each for each in types if each in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]


def make_model(folder: Path, model_type: str) -> Path:
    """A tiny model of a family, with a chat template that writes calls as the family does."""
    return tiny.make_model(folder, model_type, chat_template=tiny.compact(model_type))


def row(model_type: str, verdicts: Sequence[Verdict]) -> str:
    """The line of a family: what each check said."""
    levels = {verdict.name: verdict.level for verdict in verdicts}
    return f"| {family_named(model_type).name} | {' | '.join(_SAID[levels[name]] for name in CHECKS)} |"


def table(found: Mapping[str, Sequence[Verdict]]) -> str:
    """The table of all families, and what the suite said where it is not a plain yes."""
    versions = ", ".join(f"{name} {(installed(name) or '').partition('+')[0]}" for name in PACKAGES)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    lines = [f"\nPython {platform.python_version()}, {versions}, {today}:\n"]
    lines += [f"| family | {' | '.join(CHECKS)} |", f"| --- |{' --- |' * len(CHECKS)}"]
    lines += [row(model_type, verdicts) for model_type, verdicts in found.items()]
    lines += [""]
    for model_type, verdicts in found.items():
        update = next(verdict.text for verdict in verdicts if verdict.name == "update")
        lines.append(f"- {family_named(model_type).name}: {update}")
        lines += [f"  - {each.name}: {each.text}" for each in verdicts if each.level != "ok"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the suite on all families and write the page."""
    found = {}
    for model_type in known_types():
        with tempfile.TemporaryDirectory() as folder:
            found[model_type] = list(examine(make_model(Path(folder), model_type)))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: table(found), page), encoding="utf-8")


if __name__ == "__main__":
    main()
