"""The questions of a benchmark, independent of its file format."""

from dataclasses import dataclass

from lfpc_trl.data.rows import Problem, Row


def item_key(row: Row) -> str:
    """Return the work-item key of a row: the path of its picture, or of all its pictures."""
    return " + ".join(str(picture.image) for picture in row.pictures)


@dataclass(frozen=True)
class Question:
    """One row of a benchmark.

    Attributes:
        row: the row; its picture is an original on disk, its id is unique in the benchmark.
        question_id: shared by the rows that ask the same question with its options in another order. Figures
            are compared, and intervals estimated, over questions.
        category: the subset, as named in tables; None in a benchmark without subsets.
    """

    row: Row
    question_id: str
    category: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A set of questions.

    Attributes:
        name: its name in tables.
        questions: in the order of the file; rows that share a picture are adjacent.
        notes: notes for the user, one sentence each, such as a truncated file or missing targets.
        warning: set if the boxes do not seem to be in pixels.
    """

    name: str
    questions: tuple[Question, ...]
    notes: tuple[str, ...] = ()
    warning: Problem | None = None
