"""What an evaluation asks: the questions of a benchmark, whatever file they come from."""

from dataclasses import dataclass

from lfpc_trl.data.rows import Problem, Row


def item_key(row: Row) -> str:
    """What the work is divided by: the picture of a row, or its pictures."""
    return " + ".join(str(picture.image) for picture in row.pictures)


@dataclass(frozen=True)
class Question:
    """One row of a benchmark.

    Attributes:
        row: the row, its picture an original on disk; its id is unique in the benchmark.
        question_id: what is asked. Rows that put the same question with their options in another order share
            it; figures are compared, and chance is estimated, over questions.
        category: the subset, as tables name it; None in a benchmark without subsets.
    """

    row: Row
    question_id: str
    category: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A set of questions.

    Attributes:
        name: as tables name it.
        questions: in the order of the file; rows that share a picture stand together.
        notes: what the person should know about it, one sentence each: a file that was cut, missing targets.
        warning: what the boxes seem to count in, if not in pixels.
    """

    name: str
    questions: tuple[Question, ...]
    notes: tuple[str, ...] = ()
    warning: Problem | None = None
