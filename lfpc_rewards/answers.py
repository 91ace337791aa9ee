"""Whether an answer is right, without a judge: options, numbers, yes and no, short text.

In doubt the answer is wrong: one that names two options, hedges or says nothing earns nothing, because
rewarding hedges trains hedging.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, repeat
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from lfpc_rewards._claims import (
    ANY_LETTER,
    LONGEST,
    index_of,
    mentioned,
    options_named,
    options_of,
    readings,
    statements,
)
from lfpc_rewards._typing import Accepted, Choices
from lfpc_rewards._wording import amount_of, plain, same, tidy, yes_no

_GOLD_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_LETTER_FORMS: dict[str | None, int] = {
    f"{before}{letter}{after}": place
    for alphabet in (ascii_uppercase, ascii_lowercase)
    for place, letter in enumerate(alphabet)
    for before, after in [("", ""), ("", "."), ("", ")"), ("", ":"), ("(", ")"), ("(", ").")]
}
"""The usual ways to write the letter of an option, and which option it is; -1 for saying nothing."""
_LETTER_FORMS |= {None: -1, "": -1}


def answers_match(answer: str | None, accepted: Accepted, choices: Choices | None = None) -> bool:
    r"""Whether `answer` says the same as one of the accepted answers.

    With `choices` both sides are read as options and must name the same one, and no other: by its letter
    ("B", "(b)", "The answer is B"), by its text ("red", "It is red."), or by both ("B. red", "red (B)"),
    which must agree. A letter wins over an option whose text is that letter. Without `choices`, an
    accepted answer that is a single letter is read as an option too.

    Otherwise texts are compared without case, punctuation and the articles a, an, the; numbers by value
    and unit ("3", "3.0", "three"; "1,000"; "1/2" is "0.5"; "10cm" is "10 cm"; "50%" is not "50", nor "$5"
    "5"). If "yes" or "no" is accepted, the first word decides ("Yes, it is.").

    A plain sentence may end with the answer ("The sign is red."), if no negation, no doubt and no second
    option stands in it. An option that is ruled out is none ("Not A, but B"), one that an explanation
    mentions is: "B. red" names two options where red is A. The page Answers of the reference has every
    rule with its examples.

    Args:
        answer: What the model answered; None (no answer) is wrong.
        accepted: The right answer, or a list of answers of which any is right: texts, or letters of
            options.
        choices: The texts of the options, the first being A; at most 26. None or empty if the question
            has none.

    Returns:
        True if the answer is right. An empty answer, an answer that names two options, and an
        answer that holds the right text elsewhere than at the end of a plain sentence are wrong.

    Raises:
        TypeError: `accepted` or `choices` is not made of strings.
        ValueError: `accepted` is empty, or names none of the choices.

    Source:
        Ours. Judges in published systems accept hedges, and their exact matches refuse "B)"; this does
        neither.

    Example:
        >>> answers_match("The answer is (B).", "B", ["red", "blue"])
        True
        >>> answers_match("Blue", "B", ["red", "blue"])
        True
        >>> answers_match("A or B", "B", ["red", "blue"])
        False
        >>> answers_match("Twenty-one.", "21"), answers_match("It is the  CAFÉ", ["bar", "café"])
        (True, True)
        >>> answers_match("The sign is red.", "red"), answers_match("The sign is not red.", "red")
        (True, False)
        >>> answers_match("", "B"), answers_match("not blue", "blue")
        (False, False)
        >>> answers_match("B", "E", ["red", "blue"])
        Traceback (most recent call last):
            ...
        ValueError: accepted must name one of the 2 choices, got 'E'
    """
    return answer_verdict(answer, accepted, choices) is True


def answer_verdict(answer: str | None, accepted: Accepted, choices: Choices | None = None) -> bool | None:
    """`answers_match`, but None where the rules do not decide.

    They decide that an answer is wrong if it is empty, names another option or several, or is another number,
    letter, or yes or no than the accepted one. Other words that differ are not decided.
    """
    wanted = _strings([accepted] if isinstance(accepted, str) else accepted, "accepted")
    options = _strings([] if choices is None else choices, "choices")
    if not wanted or not all(text.strip() for text in wanted):
        raise ValueError(f"accepted must hold at least one answer and no empty one, got {accepted!r}")
    if len(options) > 26:
        raise ValueError(f"choices must be at most 26, got {len(options)}")
    return _verdict(answer or "", tuple(wanted), tuple(options))


def match_letters(
    answers: Sequence[str | None],
    accepted: Sequence[Accepted | None],
    choices: Sequence[Choices | None] | None,
) -> list[bool | None]:
    """The verdict where both sides are a plain letter; None for the rows that need `answers_match`.

    Letters are by far the most common case, and this is many times faster.
    """
    given = map(_LETTER_FORMS.get, answers)
    right = [_LETTER_FORMS.get(one, -1) if type(one) is str else -1 for one in accepted]
    counts: Iterable[int] = repeat(26)
    if choices is not None:
        usual = set(map(type, choices)) <= {list, tuple}
        entries: Iterable[Any] = chain.from_iterable(choices) if usual else [None]  # type: ignore[arg-type]
        counts = map(len if set(map(type, entries)) <= {str} else _letters_of, choices)  # type: ignore[arg-type]
    return [
        a == b if a is not None and 0 <= b < count <= 26 and a < count else None
        for a, b, count in zip(given, right, counts, strict=False)
    ]


def _letters_of(choices: Choices | None) -> int:
    """How many letters name an option; 0 for choices that need a closer look."""
    if choices is None:
        return 26
    usual = type(choices) in (list, tuple) and set(map(type, choices)) == {str}
    return len(choices) if usual and len(choices) <= 26 else 0


@lru_cache(maxsize=4096)  # the rollouts of one prompt often say the same
def _verdict(answer: str, wanted: tuple[str, ...], choices: tuple[str, ...]) -> bool | None:
    """`answer_verdict` after its checks."""
    options = options_of(choices)
    right: set[int] = set()
    for text in wanted if choices else ():
        named = options_named(tidy(text), options)
        if len(named) != 1:
            raise ValueError(f"accepted must name one of the {len(choices)} choices, got {text!r}")
        right |= named
    given = tidy(answer)
    if not given:
        return False
    if choices:
        named = options_named(given, options)
        if not named:  # words, or options named in passing: two of those are a hedge
            return False if len(mentioned(given, options)) > 1 else None
        return len(named) == 1 and named <= right
    if any(_says(given, text) for text in wanted):
        return True
    return False if all(_says_another(given, tidy(text)) for text in wanted) else None


def _says_another(given: str, wanted: str) -> bool:
    """Whether an answer without `wanted` says another of its kind: a letter, a number, yes or no."""
    if _GOLD_LETTER.fullmatch(wanted):
        return bool(options_named(given, ANY_LETTER)) or len(mentioned(given, ANY_LETTER)) > 1
    tails = [tail for _, tail, _ in statements(given[:LONGEST])]
    if plain(wanted) in ("yes", "no"):
        return any(map(yes_no, tails))
    return amount_of(wanted) is not None and any(amount_of(tail) for tail in tails)


def _strings(values: object, name: str) -> list[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError(
            f"{name} must be a string or a list of strings, got {values!r}"
            if name == "accepted"
            else f"{name} must be a list of strings, got {values!r}"
        )
    return list(values)


def _says(given: str, wanted: str) -> bool:
    """Whether a tidied answer to a question without choices says `wanted`."""
    wanted = tidy(wanted)
    letter = _GOLD_LETTER.fullmatch(wanted)
    if letter:
        return options_named(given, ANY_LETTER) == {index_of(letter[1])}
    decided = plain(wanted) in ("yes", "no")
    if len(given) > LONGEST + len(wanted):
        return same(given, wanted)
    for _, tail, letters in statements(given):
        if any(same(text, wanted) for text in readings(tail)) or (
            decided and letters and yes_no(tail) == plain(wanted)
        ):
            return True
    return False
