"""Answer options written inside the question."""

import re
from string import ascii_uppercase

_HEADING = re.compile(r"\s*\b(?:Options|Choices|Option|Choice)\s*:?\s*$", re.IGNORECASE)
_AT_LINE_START = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]+(?=\S)", re.MULTILINE)
_IN_BRACKETS = re.compile(r"(?<!\S)\(([A-Z])\)[ \t]*(?=[^\s(])")


def split_choices(text: str) -> tuple[str, list[str]] | None:
    r"""Split a text into (question, options), if it clearly lists options as A, B, ...; else None.

    Options are at the start of a line (`A. red`, `A) red`, `A: red`, `(A) red`) or, in brackets, anywhere.

    Example:
        >>> split_choices("Which colour?\nOptions:\nA. red\nB. dark blue")
        ('Which colour?', ['red', 'dark blue'])
        >>> split_choices("Find x. (A) 3 (B) 4 (C) 5")
        ('Find x.', ['3', '4', '5'])
        >>> split_choices("Is A. Smith on the sign?")
    """
    for pattern in (_AT_LINE_START, _IN_BRACKETS):
        marks = list(pattern.finditer(text))
        letters = "".join(mark[1] or mark[mark.lastindex or 1] for mark in marks)
        if len(marks) < 2 or letters != ascii_uppercase[: len(marks)]:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        options = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
        question = _HEADING.sub("", text[: marks[0].start()]).strip()
        # A line after the last option may be anything, so the text is left unchanged.
        if question and all(options) and not any("\n" in option for option in options):
            return question, options
    return None
