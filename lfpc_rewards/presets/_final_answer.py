"""Normalization of final math answers before they are compared as texts.

The rules are Minerva's (arXiv 2206.14858, appendix D.1), which several systems use: a fixed list of units and
LaTeX commands, no mathematics.
"""

from __future__ import annotations

import re
from functools import lru_cache

REPLACED = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text")),
    *((",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
_WORDS = (
    "square ways integers dollars mph inches hours km units \\ldots sue points feet minutes digits cents "
    "degrees cm gm pounds meters meals edges students childrentickets multiples"
)
_LATEX = "\\text{s}|\\text{.}|\\text{\ns}|\\text{}^2|\\text{}^3|\\text{\n}|\\text{}|\\mathrm{th}"
_SIGNS = '^\\circ|^{\\circ}|\\;|,\\!|{,}|"|\\dots'
REMOVED = (*_WORDS.split(), *_LATEX.split("|"), *_SIGNS.split("|"))
_DOLLARS = re.compile(r"(.*?)\$(.*?)\$(.*)")
_WRAPPED = tuple(re.compile(rf"\\{name}\{{(.*?)\}}") for name in ("text", "textbf", "overline"))
_BOXED = re.compile(r"\\boxed\{(.*)\}")
_FRACTION = re.compile(r"frac([^{])(.)")
_ROOT = re.compile(r"sqrt([^{])")
_ANSWER_LINE = re.compile(r"Answer\s*:\s*([^\n]+)", re.IGNORECASE)


@lru_cache(maxsize=1024)  # each rollout of a prompt has the same gold answer
def normalize_final_answer(text: str) -> str:
    """Return the text after the last "=", without units, spaces, wrappers and thousands separators."""
    text = text.split("=")[-1]
    for before, after in REPLACED:
        text = text.replace(before, after)
    for word in REMOVED:
        text = text.replace(word, "")
    text = _DOLLARS.sub(r"$\2$", text)
    for wrapper in _WRAPPED:
        text = wrapper.sub(r"\1", text)
    text = _BOXED.sub(r"\1", text)
    text = _ROOT.sub(r"sqrt{\1}", _FRACTION.sub(r"frac{\1}{\2}", text)).replace("$", "")
    digits = text.replace(",", "")
    return (digits if digits.isdigit() else text).strip()


def same_answer_line(text: str, gold: str) -> bool:
    """Whether the last line "Answer: .." is the gold answer, both normalized; no line is "[INVALID]"."""
    # `find` is much faster than the regex, but `lower` may change the length of non-ASCII text.
    start = text.lower().find("answer") if text.isascii() else 0
    lines = _ANSWER_LINE.findall(text, start) if start >= 0 else []
    return normalize_final_answer(lines[-1] if lines else "[INVALID]") == normalize_final_answer(gold)
