"""Benchmarks, read from local files."""

from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.evaluation.questions import Benchmark, Question
from lfpc_trl.rows import read_rows


def read_benchmark(
    path: str | Path,
    *,
    pictures: str | Path,  # noqa: ARG001
    name: str | None = None,
    layout: str | None = None,  # noqa: ARG001
    boxes: str | Path | None = None,
    seed: int = 0,  # noqa: ARG001
) -> Benchmark:
    """The project's own rows as a benchmark.

    Raises:
        DataError: as `read_rows`.
    """
    if boxes is not None:
        raise UserError(f"{boxes}: own rows hold their targets themselves")
    questions = [
        Question(row, str(row.extras.get("x_question", row.id)), row.extras.get("x_category"))
        for row in read_rows(path)
    ]
    return Benchmark(name or Path(path).stem, tuple(sorted(questions, key=lambda each: str(each.row.image))))
