"""Whether an answer is right, without a judge: options, numbers, yes and no, short text.

The rules lean to "wrong" in doubt: an answer that names two options, hedges or says nothing earns
nothing, because a reward for a hedge trains hedging. An answer is credited only by where it stands (the
whole text, after "the answer is", at the end of a plain sentence), and refused for anything else that it
mentions anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice, repeat
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from lfpc_rewards._typing import Accepted, Choices
from lfpc_rewards._wording import amount_of, plain, same, tidy, yes_no

# The rules. A statement is the whole text, or what follows one of these:
_SURE = r"(?:(?:clearly|definitely|certainly|obviously|surely|probably|most likely)[\s,]+)?"
_ADVERB_FIRST = re.compile(
    r"(?:definitely|certainly|clearly|obviously|surely|i think|i believe)[\s,]+", re.IGNORECASE
)
_STATED = re.compile(
    # "The final answer is: B", "I would choose B", "It is B", "Option B", "so B", "答案是B", "选B"
    r"(?<![\w'])(?:(?:(?:the|my)\s+)?(?:(?:final|correct|right|best|most likely)\s+)*"
    r"(?:answer|option|choice|letter|(?:correct|right|best)(?:\s+one)?)\s*"
    rf"(?:(?:\bis\b|\b(?:would|should|must) be\b|:|=|->)\s*{_SURE})+|ans\s*[.:]\s*"
    r"|(?:(?:the|correct|right|best)\s+)*(?:option|choice|answer|letter)\s+(?=[(\[]?[a-z][)\]]?(?:[^\w']|$))"
    rf"|(?:i|we)(?:'d|'ll|\s+would|\s+will)?\s+{_SURE}(?:choose|chose|pick|select|say|answer|go with)\s+"
    rf"|(?:it|this|that)(?:\s+is|'s|\s+(?:should|must|would|has to) be)\s+{_SURE})"
    r"|(?:\b(?:so|therefore|thus|hence)[\s,:]+|(?:->|=>|→)\s*)(?=[(\[]?[A-Z][)\]]?\W*$)"
    r"|(?:正确|最终)?的?(?:答案|选项)应?该?\s*[是为选:]+\s*|(?:选择|选项|选)+\s*:?\s*",
    re.IGNORECASE,
)
_LETTER_NEXT = re.compile(r"(?<=[\w)\]])[.!。]\s+(?=[(\[]?[A-Z](?:\W|$))")  # "The sign is blue. B"
_SENTENCE = re.compile(  # before a text, not a letter: "The sign is red.", "I see a horse", "标志是红色"
    r"(?:(?<=\w)\s+(?:is|are|was|were|says?|reads?|shows|see|saw|has|looks|displays|contains|spells|states"
    rf"|(?:appears|seems)(?:\s+to\s+be)?|(?:must|should)\s+be)|(?<=\w)'s)\b\s*[:,]?\s*{_SURE}|[这它那]?是"
)
_PLACED = re.compile(
    r"(?:(?:on|to|at|in)\s+the|about|approximately|around|roughly)\s+(?=\S)", re.IGNORECASE
)  # "on the left"
_FOLLOWED = re.compile(
    r"\s+(?:one|(?:in\s+)?colou?r(?:ed)?)\W*$|(?<=[\u3400-\u9fff])的\W*$", re.IGNORECASE
)  # "the red one"
_COUNTED = re.compile(  # "There are three people": one word that is counted
    r"(?:there (?:is|are|were)|i (?:can )?(?:see|count))\s+([\w,-]+)\s+([a-z]+)\W*", re.IGNORECASE
)
_MULTIPLE = re.compile(
    r"hundred|thousand|million|billion|dozen|score|times|more|fewer|less|or|to|and|half", re.IGNORECASE
)
# A statement names an option so:
_LETTER = re.compile(r"[(\[{<]*['\"]?([A-Za-z])['\"]?[)\]}>]*[.:,;!?)。、]*")  # "B", "(b).", "[B]", "B!"
_LABEL = re.compile(  # "(b) blue", "b. blue", "B.blue", "B, blue", "B - blue", "B/blue"
    r"(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[).:]|([A-Z])(?=[,;!?/、。]|\s*(?:-(?![\d.])|[|=])))"
    r"[.:;,)\]!?/、。]*\s*(?:(?:-(?![\d.])|[|=])\s*)?(.+)"
)
_SPACED_LABEL = re.compile(r"([A-Z])\s+(.+)")  # "B blue"
_LABEL_LAST = re.compile(  # "blue (B)", "blue, B"
    r"(.+?)(?:\s*[(\[]([A-Za-z])[)\]]|\s*[,:/]\s*([A-Z])|\s+-\s+([A-Z]))[.!]*"
)
_EXPLAINED = re.compile(  # "B. It is blue", "C, because it is green", "C because it is green"
    r"(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])\)|([A-Z])(?=[.:;,!?。]|\s+-\s|\s+(?:because|since|as|for)\b))"
    r"[\s.:;,!?。-]*(.+)"
)
_REASON = re.compile(  # "Blue, because the sign is blue", "Blue. The sign is blue"
    r"(?<=[\w)\]])(?:\s*,?\s*(?:because|since|as it)\b|[.!;。]\s+(?=(?:\S+\s+){2}\S))"
)
_IS_RIGHT = re.compile(  # "B is the correct answer", "B is right because ...", "B是正确的"
    r"(.+?)(?:\s+(?:is|(?:must|should|would) be|seems|looks)\s+(?:the\s+)?(?:(?:correct|right|best)"
    r"(?:\s+(?:answer|option|choice|one))?|(?:final\s+)?(?:answer|choice))|\s*是?(?:正确|对)(?:的|答案|选项)*)"
    r"(?:$|[.,;!。]+\s*|\s+(?:because|since)\b)(.*)",
    re.IGNORECASE,
)
# It counts for nothing where the words before it or after it say one of these:
_UNSURE = re.compile(  # "It is not red", "either red", "might be red"
    r"\b(?:not|no|never|neither|nor|none|nothing|nobody|except|cannot|without|least|unlikely|hardly|wrong|"
    r"incorrect|false|opposite|exclud\w*|eliminat\w*|doubt\w*|rather|than|instead|or|either|maybe|perhaps|might|may|could|"
    r"possibly|if|whether|unless|which|thought|guess\w*|but|although|though|used to|unsure|"
    r"unclear)\b|n't\b|[?]"
    r"|[不没非无错或]|可能",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(  # "(B) is wrong", "B. No wait"
    r"^(?:is|was)(?:\s+(?:not|wrong|incorrect|false)\b|n't)"
    r"|\b(?:wait|maybe|perhaps|unless|not sure|unsure|or not)\b"
    r"|(?:\bnot|n't)\s+(?:it|so|right|correct|true|the\s+(?:\w+\s+)?answer)\b|\b(?:wrong|incorrect)\b|[错误]",
    re.IGNORECASE,
)
_LONE_LETTER = re.compile(r"(?<![\w'])([(\[]?)([A-Za-z])([)\]]?)(?![\w'])(\s+[a-z]+)?")
_LONGEST = 1000  # characters in which the rules are looked for; longer texts would take long
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

    With `choices` both sides are read as options and must name exactly one, the same. An option is
    named by its letter ("B", "b", "(B)", "B.", "B. red", "The answer is B") or by its own text ("red",
    "It is red."). A letter wins over an option whose text is that letter. Without `choices`, an
    accepted answer that is a single letter is read as an option too.

    Otherwise texts are compared after Unicode NFKC, case folding, and removal of lead-ins ("The answer
    is"), punctuation and the articles a, an, the. Numbers are compared by value and unit ("3", "3.0",
    "three"; "1,000"; "1/2" is "0.5"; "10cm" is "10 cm"; "50%" is not "50", nor "$5" "5"). If "yes" or
    "no" is accepted, the first word decides ("Yes, it is.").

    A plain sentence may hold the answer at its end ("The sign is red."), if no negation, no doubt and no
    second option stands in it. An option that is ruled out does not count ("Not A, but B"), one that an
    explanation mentions does: "B. red" names two options where red is A.

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
def _verdict(answer: str, wanted: tuple[str, ...], choices: tuple[str, ...]) -> bool | None:
    """`answer_verdict` after its checks."""
    options = _options_of(choices)
    right: set[int] = set()
    for text in wanted if choices else ():
        named = _options_named(tidy(text), options)
        if len(named) != 1:
            raise ValueError(f"accepted must name one of the {len(choices)} choices, got {text!r}")
        right |= named
    given = tidy(answer)
    if not given:
        return False
    if choices:
        named = _options_named(given, options)
        if not named:  # Words, or options named in passing: two of them are a hedge, whatever they mean.
            return False if len(_mentioned(given, options)) > 1 else None
        return len(named) == 1 and named <= right
    if any(_says(given, text) for text in wanted):
        return True
    return False if all(_says_another(given, tidy(text)) for text in wanted) else None


def _says_another(given: str, wanted: str) -> bool:
    """Whether an answer that does not say `wanted` says something of its kind."""
    if _GOLD_LETTER.fullmatch(wanted):
        return bool(_options_named(given, _ANY_LETTER))
    tails = [tail for _, tail, _ in _statements(given[:_LONGEST])]
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
        return _options_named(given, _ANY_LETTER) == {_index(letter[1])}
    decided = plain(wanted) in ("yes", "no")
    if len(given) > _LONGEST + len(wanted):
        return same(given, wanted)
    for _, tail, letters in _statements(given):
        if any(same(text, wanted) for text in _bare(tail)) or (
            decided and letters and yes_no(tail) == plain(wanted)
        ):
            return True
    return False


class _Options(NamedTuple):
    """The options of a question, tidied, and how many letters name one."""

    texts: tuple[str, ...]
    letters: int
    rejected: re.Pattern[str]


@lru_cache(maxsize=1024)  # the options of a prompt come again with each of its rollouts
def _options_of(choices: tuple[str, ...]) -> _Options:
    texts = tuple(tidy(text) for text in choices)
    count = len(texts) or 26
    letters = ascii_uppercase[:count]
    bare = (re.sub(r"^(?:an?|the)\s+(?=\w\w)", "", text, flags=re.IGNORECASE) for text in texts)
    longest = "|".join(sorted((re.escape(text) for text in bare if text), key=len, reverse=True)) or "(?!)"
    one = rf"(?:(?i:option\s+|(?:an?|the)\s+)?(?:(?i:{longest})|[(\[]?[{letters}][)\]]?)(?![\w']))"
    every = r"\W+(?:(?:and|or)\W+)?".join(letters) if 1 < count < 26 else r"(?!)"
    ends = r"(?=\s*(?:[.;!)。]|$|,?\s*(?:but|it is|it's|because|since)\b))(?:,?\s*\b(?:but|it is|it's)\b)?"
    wrong = r"\s+(?:is|was)\s+(?:not (?:correct|right)|incorrect|wrong|false)\s*[.;,]\s*(?:but\s+)?"
    among = r"\b(?i:among|between|of|from|at|considering|comparing)\s+(?:the\s+)?"
    rejected = (
        rf",? ?\(?(?:\b(?i:not|rather than|instead of)\s|而?不[是选])\s*{one}\)?{ends}",
        rf"(?<![\w']){one}{wrong}",
        rf"{among}(?:options?|choices?|answers?)?\s*\b{every}\b",
    )
    return _Options(texts, count, re.compile("|".join(rejected)))


_ANY_LETTER = _options_of(())
"""Where the options are not known, any letter is one."""


def _options_named(text: str, options: _Options) -> set[int]:
    """The options that a tidied text names: what it claims, and whatever else it mentions."""
    longest = _LONGEST + max(map(len, options.texts), default=0)
    if len(text) > longest:  # Only its end may state an answer; all of it may mention others.
        if named := _texts_same(text, options):
            return named
        named = _options_named(text[-_LONGEST:].partition(" ")[2], options)
        return named | _mentioned(text, options) if named else named
    for head, tail, letters in _statements(text):
        if claimed := _claimed(tail, options, letters):
            return claimed | _mentioned(options.rejected.sub(" ", head), options)
    # "Not A, but B", "B is wrong; C is right", "Among A, B, C and D, the best is D": these name one.
    rest = options.rejected.sub(" ", text).strip(" ,.;")
    for head, tail, letters in _statements(rest):
        if claimed := _claimed(tail, options, letters) or _claimed_at_length(tail, options, letters):
            return claimed | _mentioned(head, options)
    return set()


def _statements(text: str) -> Iterator[tuple[str, str, bool]]:
    """Where a text may state its answer: what stands before it, it, and whether a letter may be it."""
    yield "", text, True
    if adverb := _ADVERB_FIRST.match(text):
        yield "", text[adverb.end() :], True
    for found in islice(_STATED.finditer(text), 8):
        head = text[: found.start()]
        if found.end() < len(text) and not _UNSURE.search(re.split(r"[.;!。]", head)[-1]):
            yield head, text[found.end() :], True
    for found in islice(_LETTER_NEXT.finditer(text), 8):
        head = text[: found.start()]
        if len(head.split()) > 2 and not _UNSURE.search(head):
            yield head, text[found.end() :], True
    if placed := _PLACED.match(text):
        yield "", text[placed.end() :], False
    counted = _COUNTED.fullmatch(text)
    counts = counted and amount_of(counted[1]) and not amount_of(f"1 {counted[2]}")
    if counted and counts and not _MULTIPLE.fullmatch(counted[2]):
        yield "", counted[1], False
    for found in islice(_SENTENCE.finditer(text), 8):
        head, tail = text[: found.start()], text[found.end() :]
        if tail and not _UNSURE.search(head) and "?" not in tail:
            yield head, tail, False


def _bare(text: str) -> list[str]:
    """A statement as it is, and without words that only place or class it: "on the left", "the red one"."""
    bare = _FOLLOWED.sub("", _PLACED.sub("", text, count=1) if _PLACED.match(text) else text)
    return [text, bare] if bare and bare != text else [text]


def _texts_same(text: str, options: _Options) -> set[int]:
    for bare in _bare(text):
        if found := {i for i, option in enumerate(options.texts) if same(bare, option)}:
            return found
    return set()


def _claimed(text: str, options: _Options, letters: bool) -> set[int]:
    """Options that a statement names by a letter, a text or both, with nothing beside."""
    if not letters:
        return _texts_same(text, options)
    if (letter := _LETTER.fullmatch(text)) and _index(letter[1]) < options.letters:
        return {_index(letter[1])}
    if label := _LABEL.fullmatch(text):  # "B. blue"; "A. blue" claims two
        mine, named = _index(label[1] or label[2] or label[3]), _texts_same(label[4], options)
        if named and mine < options.letters:
            return {mine} if mine in named else named | {mine}
    named = _texts_same(text, options)
    if (label := _SPACED_LABEL.fullmatch(text)) and (mine := _index(label[1])) < options.letters:
        own = _texts_same(label[2], options)
        if mine in own:
            return {mine}
        # "A horse" may be the option "a horse", and "A red car" the option "red car"; "A 2" is two options.
        whole = text.rstrip(".!").casefold() in (option.rstrip(".!").casefold() for option in options.texts)
        if own and not whole and (mine or len(label[2].split()) < 2):
            return own | {mine}
    if named:
        return named
    if label := _LABEL_LAST.fullmatch(text):  # "blue (B)"
        mine, named = _index(label[2] or label[3] or label[4]), _texts_same(label[1], options)
        if named and mine < options.letters:
            return {mine} if mine in named else named | {mine}
    return set()


def _claimed_at_length(text: str, options: _Options, letters: bool) -> set[int]:
    """Options that a statement names at its beginning, and those that its explanation mentions."""
    found = _IS_RIGHT.fullmatch(text) if letters else None
    if found and not _TAKEN_BACK.search(found[2]) and (named := _claimed(found[1], options, True)):
        return named | _mentioned(found[2], options)
    if letters and (found := _EXPLAINED.fullmatch(text)):
        mine = _index(found[1] or found[2] or found[3])
        if mine < options.letters and not _TAKEN_BACK.search(found[4]):
            return {mine} | _mentioned(found[4], options)
    found = _REASON.search(text)
    if found and not _UNSURE.search(text[found.end() :]):
        named = _texts_same(text[: found.start()], options)
        if named:
            return named | _mentioned(text[found.end() :], options)
    if letters and (word := yes_no(text)):
        named = {i for i, option in enumerate(options.texts) if plain(option) == word}
        if named:
            return named | _mentioned(text.partition(" ")[2], options)
    return set()


def _mentioned(text: str, options: _Options) -> set[int]:
    """Options that a text names in passing, by a letter standing alone or by their words."""
    words, found = f" {plain(text)} ", set()
    # Longest first, and taken out once found: "dark red" is not "red", and "Terminal A" is not A.
    for i in sorted(range(len(options.texts)), key=lambda i: -len(options.texts[i])):
        option = plain(options.texts[i])
        if option in ("yes", "no"):  # "no" is a word of many sentences
            stands = rf"(?<!\w){option}(?=\s*(?:[^\w\s]|$|and\b|or\b))"
            met = re.search(stands, text, re.IGNORECASE) is not None
        else:
            met = (len(option) > 1 or option.isdecimal()) and f" {option} " in words
        if met:
            found.add(i)
            words = words.replace(f" {option} ", " | ")
            text = re.sub(rf"(?<!\w){re.escape(options.texts[i])}(?!\w)", " | ", text, flags=re.IGNORECASE)
    for opened, letter, closed, following in _LONE_LETTER.findall(text):
        # "a dog", "I see" are words, "A is right" and "(A)" are options.
        is_word = letter in "AaI" and following and following.strip() not in ("is", "and", "or")
        if _index(letter) < options.letters and (opened or closed or not is_word):
            found.add(_index(letter))
    return found


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")
