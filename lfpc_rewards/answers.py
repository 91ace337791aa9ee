"""Whether an answer is right, without a judge: options, numbers, yes and no, short text.

The rules lean to "wrong" in doubt: an answer that names two options, hedges or says nothing earns
nothing, because a reward for a hedge trains hedging.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain, repeat, zip_longest
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from lfpc_rewards._typing import Accepted, Choices

_LEAD_IN = re.compile(
    r"(?:(?:so|thus|therefore|hence)\b,?\s*)?(?:(?:i think|i believe)(?:\s+that)?\s+)?"
    r"(?:(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)*(?:answer|option|choice)\s*(?:(?:is|:|=)\s*)+"
    r"|(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:option|choice|answer)\s+(?=\(?[a-z]\)?(?:\W|$))"
    r"|(?:it|this|that)(?:\s+is|'s)\s+)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(?:boxed|text|mathrm)\{([^{}]*)\}")
_GOLD_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:,)]*")
_LETTER_AND_MORE = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])\)|([A-Z])[.:])[\s.:,-]*(.+)")
_LETTER_SPACE_TEXT = re.compile(r"([A-Z])[\s,-]+(.+)")
_LONE_LETTER = re.compile(r"(?<![\w'])(\(?)([A-Z])(\)?)(?![\w'])(\s+[a-z]+)?")
_LETTER_FORMS: dict[str | None, int] = {
    f"{before}{letter}{after}": place
    for alphabet in (ascii_uppercase, ascii_lowercase)
    for place, letter in enumerate(alphabet)
    for before, after in [("", ""), ("", "."), ("", ")"), ("", ":"), ("(", ")"), ("(", ").")]
}
"""The usual ways to write the letter of an option, and which option it is; -1 for saying nothing."""
_LETTER_FORMS |= {None: -1, "": -1}
_CUE = re.compile(r"\b(?:answer|option|choice|choose|pick|select|correct|go with)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|none|except|cannot|wrong|incorrect)\b|n't\b", re.IGNORECASE
)
_REFUSAL = re.compile(r"(?:is|was)\s+(?:not|wrong|incorrect|false)\b|(?:is|was)n't\b", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?)\s*(\d{1,3}(?:,\d{3})+|\d*)(\.\d+)?\s*(%|percent|per cent)?\.?")
_YES_NO = re.compile(r"(yes|no)(?![\w-])\s*([.,;:!?]*)\W*(\w*)\W*(\w*)")

_ARTICLES = frozenset({"a", "an", "the"})
# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_WORDS |= {f"{ten} {one}": _WORDS[ten] + _WORDS[one] for ten in _TENS for one in _ONES[1:10]}

_ASIDE = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "*": "", "`": "", "$": ""}
)


def answers_match(answer: str | None, accepted: Accepted, choices: Choices | None = None) -> bool:
    r"""Whether `answer` says the same as one of the accepted answers.

    With `choices` both sides are read as options and must name exactly one, the same. An option is
    named by its letter ("B", "b", "(B)", "B.", "B. red", "The answer is B") or by its own text ("red",
    "It is red."). A letter wins over an option whose text is that letter. Without `choices`, an
    accepted answer that is a single letter is read as an option too.

    Otherwise texts are compared after Unicode NFKC, case folding, and removal of lead-ins ("The answer
    is"), punctuation and the articles a, an, the. Numbers are compared by value ("3", "3.0", "three";
    "1,000"; "50%" is "50 percent" but not "50"). If "yes" or "no" is accepted, the first word decides
    ("Yes, it is.").

    Args:
        answer: What the model answered; None (no answer) is wrong.
        accepted: The right answer, or a list of answers of which any is right: texts, or letters of
            options.
        choices: The texts of the options, the first being A; at most 26. None or empty if the question
            has none.

    Returns:
        True if the answer is right. An empty answer, an answer that names two options, and an
        answer that merely contains the right text among other words are wrong.

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

    They decide that an answer is wrong if it is empty, names another option or several, or is a number,
    letter or yes or no where another one is accepted. Of other words they only know that they differ.
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
    """What `answers_match` says where both sides are a plain letter; None for the rows that it must judge.

    Letters are the usual case by far, and this takes a fraction of the time.
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
def _verdict(answer: str, wanted: tuple[str, ...], options: tuple[str, ...]) -> bool | None:
    """`answer_verdict` after its checks."""
    right: set[int] = set()
    listed = list(options)
    for text in wanted if options else ():
        named = _options_named(_tidy(text), listed)
        if len(named) != 1:
            raise ValueError(f"accepted must name one of the {len(options)} choices, got {text!r}")
        right |= named
    given = _tidy(answer)
    if not given:
        return False
    if options:
        named = _options_named(given, listed)
        if not named:  # Words, or options named in passing: two of them are a hedge, whatever they mean.
            texts = [_tidy(option) for option in listed]
            return False if len(_mentioned(given, texts, len(listed))) > 1 else None
        return len(named) == 1 and named <= right
    if any(_says(given, text) for text in wanted):
        return True
    return False if all(_says_another(given, _tidy(text)) for text in wanted) else None


def _says_another(given: str, wanted: str) -> bool:
    """Whether an answer that does not say `wanted` says something of its kind."""
    if _GOLD_LETTER.fullmatch(wanted):
        return bool(_options_named(given, []))
    if _plain(wanted) in ("yes", "no"):
        return any(_yes_no(text) for text in _readings(given))
    return _number(wanted) is not None and any(_number(text) for text in _readings(given))


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
    wanted = _tidy(wanted)
    letter = _GOLD_LETTER.fullmatch(wanted)
    if letter:
        return _options_named(given, []) == {_index(letter[1])}
    return any(_same(text, wanted) for text in _readings(given))


def _options_named(text: str, options: list[str]) -> set[int]:
    """The options that a tidied text names; without `options`, any letter is one."""
    count = len(options) or 26
    texts = [_tidy(option) for option in options]
    for reading in _readings(text):
        if (whole := _LETTER.fullmatch(reading)) and _index(whole[1]) < count:
            return {_index(whole[1])}
        if same := {i for i, option in enumerate(texts) if _same(reading, option)}:
            return same
        first = _LETTER_AND_MORE.fullmatch(reading)
        if first and _index(first[1] or first[2] or first[3]) < count:
            if _REFUSAL.match(first[4]):
                return set()
            return {_index(first[1] or first[2] or first[3])} | _mentioned(first[4], texts, count)
        second = _LETTER_SPACE_TEXT.fullmatch(reading)
        if second and _index(second[1]) < count:
            same = {i for i, option in enumerate(texts) if _same(second[2], option)}
            if same:
                return same | {_index(second[1])}
    if _CUE.search(text) and not _NEGATION.search(text):
        letters = _lone_letters(text, count)
        return letters | _mentioned(text, texts, count) if letters else set()
    return set()


def _mentioned(text: str, options: list[str], count: int) -> set[int]:
    """Options that a text names in passing, by a letter standing alone or by their words."""
    words = f" {_plain(text)} "
    found = set()
    # Longest first, and taken out once found: "dark red" is not "red".
    for i in sorted(range(len(options)), key=lambda i: -len(_plain(options[i]))):
        if (plain := _plain(options[i])) and f" {plain} " in words:
            found.add(i)
            words = words.replace(f" {plain} ", " | ")
    return found | _lone_letters(text, count)


def _lone_letters(text: str, count: int) -> set[int]:
    found = set()
    for opened, letter, closed, following in _LONE_LETTER.findall(text):
        # "A dog", "I see" are words, "A is right" and "(A)" are options.
        is_word = letter in "AI" and following and following.strip() not in ("is", "and", "or")
        if _index(letter) < count and (opened or closed or not is_word):
            found.add(_index(letter))
    return found


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _readings(text: str) -> list[str]:
    """The text as it is, and without each of its lead-ins."""
    readings = [text]
    while (lead := _LEAD_IN.match(readings[-1])) and lead.end() < len(readings[-1]) and len(readings) < 5:
        readings.append(readings[-1][lead.end() :])
    return readings


def _same(given: str, wanted: str) -> bool:
    """Whether two tidied texts say the same; `wanted` is the gold side."""
    plain_given, plain_wanted = _plain(given), _plain(wanted)
    if plain_given == plain_wanted:
        return bool(plain_given)
    if plain_wanted in ("yes", "no"):
        return _yes_no(given) == plain_wanted
    number = _number(wanted)
    return number is not None and _number(given) == number


def _yes_no(text: str) -> str | None:
    found = _YES_NO.match(text.casefold())
    if not found:
        return None
    verdict, stop, following, after = found.groups()
    opposite = "no" if verdict == "yes" else "yes"
    if opposite in (following, after if following in ("and", "or", "but") else ""):
        return None
    # "No dog is here" does not say "no"; "No, a dog" and "No it is not" do.
    determiner = verdict == "no" and following and not stop
    pronouns = ("it", "there", "they", "he", "she", "this", "that")
    return None if determiner and following not in pronouns else verdict


def _number(text: str) -> tuple[Decimal, str] | None:
    """Value and unit ("%" or "") of a text that is a number."""
    text = text.casefold().strip()
    unit = "%" if text.rstrip(".").endswith(("%", "percent", "per cent")) else ""
    found = _NUMBER.fullmatch(text)
    if found and (found[2] or found[3]):
        return Decimal(found[1] + found[2].replace(",", "") + (found[3] or "")), unit
    words = _plain(text).removesuffix(" %")
    return (Decimal(_WORDS[words]), unit) if words in _WORDS else None


@lru_cache(maxsize=1024)  # the options of a prompt come again with each of its rollouts
def _tidy(text: str) -> str:
    """One line of NFKC text without invisible characters, TeX boxes, emphasis and outer quotes."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_ASIDE)
    for _ in range(3):
        text = _BOXED.sub(r"\1", text)
    return " ".join(text.split()).strip("\"' ")


@lru_cache(maxsize=1024)  # the options of a prompt come again with each of its rollouts
def _plain(text: str) -> str:
    """Words only: folded case, no punctuation, no articles; the text itself if nothing else is left."""
    folded = unicodedata.normalize("NFKC", text.casefold()).replace("&", " and ").replace("'", "")
    folded = re.sub(r"(?<=\d),(?=\d{3}\b)", "", folded)
    folded = re.sub(r"\bper ?cent\b", "%", folded).replace("%", " % ")
    kept = "".join(
        " " if unicodedata.category(c)[0] == "P" and c not in "%#@" and not _is_point(folded, i) else c
        for i, c in enumerate(folded)
    )
    words = kept.split()
    # "a red car" is "red car", but in "A, B" and in "a" the letter is all there is.
    pairs = zip_longest(words, words[1:], fillvalue="")
    named = [word for word, following in pairs if word not in _ARTICLES or len(following) < 2]
    return " ".join(named) or folded.strip()


def _is_point(text: str, i: int) -> bool:
    """Whether character i is the point or the sign of a number."""
    if i + 1 >= len(text) or not text[i + 1].isdecimal():
        return False
    return text[i] == "." or (text[i] == "-" and (i == 0 or text[i - 1].isspace()))
