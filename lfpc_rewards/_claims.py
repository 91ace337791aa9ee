"""What an answer claims: the statements in it, the options that they name, and what else it mentions.

Only a text in the right position counts as the answer (the whole text, after "the answer is", at the end of a
plain sentence), and anything else that it mentions counts against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from string import ascii_uppercase
from typing import NamedTuple

from lfpc_rewards._wording import CJK, amount_of, plain, same, tidy, yes_no

LONGEST = 1000
"""Statements are searched for in this many characters; longer texts would take too long."""

# 1. A statement is the whole text, the text after these words, or what follows one of the phrases below.
_SURE = r"(?:(?:clearly|definitely|certainly|obviously|surely|probably|most likely)[\s,]+)?"
_FIRST = re.compile(  # "Definitely B", "So, B is the answer"
    r"(?:(?:definitely|certainly|clearly|obviously|surely|probably|most likely|of course|i think|i believe"
    r"|so|therefore|thus|hence)[\s,:]+|(?:所以|因此)[,:\s]*)+",
    re.IGNORECASE,
)
_STATED = re.compile(
    # "The final answer is: B", "Option B", "I would choose B", "It is B", "so B", "答案是B", "选B"
    r"\b(?<!')(?:(?:answer|option|choice|letter|(?:correct|right|best)(?:\s+one)?)\s*"
    rf"(?:(?:\bis\b|\b(?:would|should|must) be\b|[:=]|->|\.\s|-\s+(?=[^\d\s]))\s*{_SURE})+|ans\s*[.:]\s*"
    r"|(?:option|choice|answer|letter|choose|select|pick|going with)\s+(?=[(\[]?[a-z][)\]]?(?:[^\w']|$))"
    rf"|(?:i|we)(?:'d|'ll|\s+would|\s+will)?\s+{_SURE}(?:choose|chose|pick|select|say|answer|go with)\s+"
    rf"|(?:it|this|that)(?:\s+is|'s|\s+(?:should|must|would|has to) be)\s+{_SURE}|it\s+(?=cannot\b))"
    r"|(?:\b(?:so|therefore|thus|hence)[\s,:]+|(?:->|=>|→)\s*)(?=[(\[]?[A-Z][)\]]?\W*$)"
    r"|(?:答案|选项)应?该?\s*[是为选:]+\s*|(?:选择|选项|选)+\s*:?\s*",
    re.IGNORECASE,
)
_LETTER_NEXT = re.compile(r"(?<=[\w)\]])[.!。]\s+(?=[(\[]?[A-Z](?:\W|$))")  # "The sign is blue. B"
_SENTENCE = re.compile(  # before a text, not a letter: "The sign is red.", "I see a horse", "标志是红色"
    r"(?:(?<=\w)\s+(?:(?:is|are|was|were)(?:\s+(?:made of|called|named|labell?ed))?|says?|reads?|shows|see"
    r"|saw|has|counts?|costs|weighs|measures|wears|(?:looks|seems)(?:\s+like)?|displays|depicts|contains|spells|states"
    rf"|means|(?:appears|seems)(?:\s+to\s+be)?|(?:must|should)\s+be)|(?<=\w)'s)\b\s*[:,]?\s*{_SURE}|[这它那]?(?<!还)是|[在有]"
)
_PLACED = re.compile(
    r"(?:(?:on|to|at|in)\s+the|about|approximately|around|roughly)\s+(?=\S)|一[个只辆条张把件位](?=\S)",
    re.IGNORECASE,
)  # "on the left", "about 5", "一辆公交车"
_FOLLOWED = re.compile(
    r"(?<!\bno)\s+(?:one|side|of (?:them|these|those)|(?:in\s+)?colou?r(?:ed)?)\W*$"
    r"|(?<=[\u3400-\u9fff])的\W*$",
    re.IGNORECASE,
)  # "the red one"
_COUNTED = re.compile(  # "There are three people", "3 dogs": one word that is counted
    r"(?:(there (?:is|are|were)|i (?:can )?(?:see|count))\s+)?"
    r"(?:(?:about|approximately|around|roughly|exactly|only)\s+)?([\w,-]+)\s+([a-z]+)\W*",
    re.IGNORECASE,
)
_MANY = re.compile(r"(?!.*ss$)[a-z]{2,}s|people|men|women|children|sheep|fish", re.IGNORECASE)
_MULTIPLE = re.compile(
    r"(?:hundred|thousand|million|billion|dozen|score|pair|time|quarter|third|half|halve|point)s?|more|fewer|less"
    r"|or|to|and",
    re.IGNORECASE,
)
# 2. A statement names an option by its letter, its text, or both.
_LETTER = re.compile(  # "B", "(b).", "[B]", "B!", "B选项"
    r"[(\[{<]*\s*['\"]?([A-Za-z])['\"]?\s*[)\]}>]*(?:\s*选?项)?\s*[.:,;!?)。、]*"
)
_LABEL = re.compile(  # "(b) blue", "b. blue", "B.blue", "B, blue", "B - blue", "B/blue"
    r"(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[).:]|([A-Z])(?=[,;!?/、。]|\s*(?:-(?![\d.])|[|=])))"
    r"[.:;,)\]!?/、。]*\s*(?:(?:-(?![\d.])|[|=])\s*)?(.+)"
)
_SPACED_LABEL = re.compile(r"([A-Z])(?:\s+|(?=\())(.+)")  # "B blue", "B(blue)"
_LABEL_LAST = re.compile(  # "blue (B)", "blue, B"
    r"(.+?)(?:\s*[(\[]([A-Za-z])[)\]]|\s*[,:/]\s*([A-Z])|\s+-\s+([A-Z]))[.!]*"
)
# 3. An explanation may follow; what it mentions counts too.
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
# 4. A statement does not count if one of these stands before or after it.
_UNSURE = re.compile(  # "It is not red", "either red", "might be red"
    r"\b(?:not|no|never|neither|nor|none|nothing|nobody|except|cannot|without|least|unlikely|hardly|wrong|"
    r"incorrect|false|opposite|exclud\w*|eliminat\w*|doubt\w*|rather|than|instead|or|either|maybe|perhaps|might|may|could|"
    r"possibly|if|whether|unless|which|thought|guess\w*|but|although|though|used to|unsure|"
    r"unclear|second[- ]best|worse|worst)\b|n't\b|[?]"
    r"|[不没非无错或别勿]|可能|还是",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(  # "(B) is wrong", "B. No wait", "B? No"
    r"^no\W*$|\b(?:guess|probably|maybe|perhaps|think)\s+not\b|^(?:is|was)(?:\s+(?:not|wrong|incorrect|false)\b|n't)"
    r"|\b(?:wait|maybe|perhaps|unless|not sure|unsure|or not)\b"
    r"|(?:\bnot|n't)\s+(?:it|so|right|correct|true|the\s+(?:\w+\s+)?answer)\b|\b(?:wrong|incorrect)\b|[错误]",
    re.IGNORECASE,
)
# 5. Ruled out or listed options are not mentions: `_without_ruled_out` removes them from texts that match
# this.
_RULES_OUT = re.compile(
    r"\b(?i:not|rather than|instead of|wrong|incorrect|false)\b|n't\b|不|\b[A-Z]\W+(?:(?:and|or)\W+)?[A-Z]\b"
)
_SHORT_NOT = re.compile(r"\b(is|are|was|were)n't\b", re.IGNORECASE)
_LONE_LETTER = re.compile(r"(?<![\w'])([(\[]?)([A-Za-z])([)\]]?)(?![\w'])(\s+[a-z]+)?")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w\w)", re.IGNORECASE)
_END = re.compile(r"[.;!。]")


class Options(NamedTuple):
    """The options of a question, tidied, with what is derived from them once."""

    texts: tuple[str, ...]
    letters: int
    """How many letters name an option."""
    words: dict[str, set[int]]
    """Plain words to the options that have them."""


@lru_cache(maxsize=1024)  # the options of a prompt come again with each of its rollouts
def options_of(choices: tuple[str, ...]) -> Options:
    """The options of a question; without their own labels ("A. red", "B. blue")."""
    texts = tuple(tidy(text) for text in choices)
    labels = [_LABEL.fullmatch(text) for text in texts]
    if all(label and index_of(label[1] or label[2] or label[3]) == i for i, label in enumerate(labels)):
        texts = tuple(label[4] for label in labels if label)
    words: dict[str, set[int]] = {}
    for i, text in enumerate(texts):
        words.setdefault(plain(text), set()).add(i)
    ends: dict[str, set[int]] = {}
    for i, text in enumerate(texts):  # "red" says "The sign is red"
        if (found := _SENTENCE.search(text)) and text[: found.start()].casefold() != "there":
            ends.setdefault(plain(text[found.end() :]), set()).add(i)
    words |= {end: named for end, named in ends.items() if end and end not in words}
    return Options(texts, len(texts) or 26, words)


@lru_cache(maxsize=1024)
def _ruled_out(texts: tuple[str, ...]) -> re.Pattern[str]:
    """What rules options out or lists them all: "not B", "B is wrong", "among A, B, C and D"."""
    letters = ascii_uppercase[: len(texts) or 26]
    bare = (_ARTICLE.sub("", text) for text in texts)
    longest = "|".join(sorted((re.escape(text) for text in bare if text), key=len, reverse=True)) or "(?!)"
    one = rf"(?:(?i:option\s+|(?:an?|the)\s+)?(?:(?i:{longest})|[(\[]?[{letters}][)\]]?)(?![\w']))"
    several = rf"{one}(?:(?:\s*,\s*{one})*\s*,?\s*\b(?:or|nor|and)\s+{one})?"
    every = r"\W+(?:(?:and|or)\W+)?".join(letters) if 1 < len(letters) < 26 else r"(?!)"
    ends = r"(?=\s*(?:[.;!)。]|$|,?\s*(?:but|so|it is|it's|because|since)\b))(?:,?\s*\b(?:but|it is|it's)\b)?"
    it_is = r"(?:\b(?i:it|this|that)(?:\s+is|'s)\s+)?"
    negated = rf"(?:{it_is}\b(?i:not|rather than|instead of)\s|而?不[是选])"
    not_one = rf",? ?\(?{negated}\s*{several}\)?{ends}"
    wrong = r"\s+(?:is|was)\s+(?:not (?:correct|right)|incorrect|wrong|false)\s*[.;,]\s*(?:but\s+)?"
    among = r"\b(?i:among|between|of|from|at|considering|comparing)\s+(?:the\s+)?"
    listed = rf"{among}(?:options?|choices?|answers?)?\s*\b{every}\b"
    return re.compile(rf"{not_one}|(?<![\w']){one}{wrong}|{listed}")


ANY_LETTER = options_of(())
"""For unknown options: any letter is one."""


def options_named(text: str, options: Options) -> set[int]:
    """The options that a tidied text names: those it claims and those it mentions."""
    longest = LONGEST + max(map(len, options.texts), default=0)
    if len(text) > longest:  # only its end may state the answer, but all of it may mention others
        if named := _texts_same(text, options):
            return named
        named = options_named(text[-LONGEST:].partition(" ")[2], options)
        return named | mentioned(text, options) if named else named
    found = []
    for head, tail, letters in statements(text):
        found.append((head, tail, letters))
        if claimed := _claimed(tail, options, letters):
            return claimed | mentioned(_without_ruled_out(head, options), options)
    # "Not A, but B", "B is wrong; C is right", "Among A, B, C and D, the best is D": these name one.
    rest = _without_ruled_out(text, options).strip(" ,.;")
    for head, tail, letters in found if rest == text.strip(" ,.;") else statements(rest):
        if claimed := _claimed(tail, options, letters) or _claimed_at_length(tail, options, letters):
            return claimed | mentioned(head, options)
    return set()


def _without_ruled_out(text: str, options: Options) -> str:
    if not _RULES_OUT.search(text):
        return text
    return _ruled_out(options.texts).sub(" ", _SHORT_NOT.sub(r"\1 not", text))


def statements(text: str) -> Iterator[tuple[str, str, bool]]:
    """Where a text may state its answer: the text before, the statement, whether it may be a letter."""
    yield "", text, True
    if first := _FIRST.match(text):
        yield "", text[first.end() :], True
    for found in islice(_STATED.finditer(text), 8):
        head = text[: found.start()]
        if found.end() < len(text) and not _UNSURE.search(_END.split(head)[-1]):
            yield head, text[found.end() :], True
    for found in islice(_LETTER_NEXT.finditer(text), 8):
        head = text[: found.start()]
        if len(head.split()) > 2 and not _UNSURE.search(head):
            yield head, text[found.end() :], True
    if placed := _PLACED.match(text):
        yield "", text[placed.end() :], False
    if (counted := _COUNTED.fullmatch(text)) and _is_counted(*counted.groups()):
        yield "", counted[2], False
    for found in islice(_SENTENCE.finditer(text), 8):
        head, tail = text[: found.start()], text[found.end() :]
        if tail and not _UNSURE.search(head) and "?" not in tail:
            yield head, tail, False


def _is_counted(introduced: str | None, number: str, noun: str) -> bool:
    """Whether the noun is what a bare number counts, not its unit and not a part of the number."""
    if _MULTIPLE.fullmatch(noun) or not (introduced or _MANY.fullmatch(noun)):
        return False
    return amount_of(number) is not None and amount_of(f"1 {noun}") is None


def readings(text: str) -> list[str]:
    """A statement as it is, and without filler: "on the" in "on the left", "one" in "the red one"."""
    bare = _FOLLOWED.sub("", _PLACED.sub("", text, count=1) if _PLACED.match(text) else text)
    return [text, bare] if bare and bare != text else [text]


def _texts_same(text: str, options: Options) -> set[int]:
    for reading in readings(text):
        if found := options.words.get(plain(reading)):
            return found
        if found := {i for i, option in enumerate(options.texts) if same(reading, option)}:
            return found
    return set()


def _claimed(text: str, options: Options, letters: bool) -> set[int]:
    """Options that a statement names by a letter, a text or both, and nothing else."""
    if not letters:
        return _texts_same(text, options)
    if (letter := _LETTER.fullmatch(text)) and index_of(letter[1]) < options.letters:
        return {index_of(letter[1])}
    if label := _LABEL.fullmatch(text):  # "B. blue"; "A. blue" claims two
        mine, named = index_of(label[1] or label[2] or label[3]), _texts_same(label[4], options)
        if named and mine < options.letters:
            return {mine} if mine in named else named | {mine}
    named = _texts_same(text, options)
    if (label := _SPACED_LABEL.fullmatch(text)) and (mine := index_of(label[1])) < options.letters:
        own = _texts_same(label[2], options)
        if mine in own:
            return {mine}
        # "A horse" may be the option "a horse"; "A 2" and "A blue" are two options.
        whole = text.rstrip(".!").casefold() in (option.rstrip(".!").casefold() for option in options.texts)
        if own and not whole:
            return own | {mine}
    if named:
        return named
    if label := _LABEL_LAST.fullmatch(text):  # "blue (B)"
        mine, named = index_of(label[2] or label[3] or label[4]), _texts_same(label[1], options)
        if named and mine < options.letters:
            return {mine} if mine in named else named | {mine}
    return set()


def _claimed_at_length(text: str, options: Options, letters: bool) -> set[int]:
    """Options that a statement names at its beginning, and those that its explanation mentions."""
    found = _IS_RIGHT.fullmatch(text) if letters else None
    if found and not _TAKEN_BACK.search(found[2]) and (named := _claimed(found[1], options, True)):
        return named | mentioned(found[2], options)
    if letters and (found := _EXPLAINED.fullmatch(text)):
        mine = index_of(found[1] or found[2] or found[3])
        if mine < options.letters and not _TAKEN_BACK.search(found[4]):
            return {mine} | mentioned(found[4], options)
    found = _REASON.search(text)
    if found and not _UNSURE.search(text[found.end() :]):
        named = _texts_same(text[: found.start()], options)
        if named:
            return named | mentioned(text[found.end() :], options)
    if letters and (word := yes_no(text)) and word in options.words:
        rest = text.partition(" ")[2]
        return set() if _TAKEN_BACK.search(rest) else options.words[word] | mentioned(rest, options)
    return set()


def mentioned(text: str, options: Options) -> set[int]:
    """Options that a text names in passing, by a letter standing alone or by their words."""
    if not text:
        return set()
    words, found = f" {plain(text)} ", set()
    # Longest first, and taken out once found: "dark red" is not "red", and "Terminal A" is not A.
    for option in sorted(options.words, key=len, reverse=True):
        alone = option if CJK.search(option) else f" {option} "  # Chinese has no spaces between words
        if option in ("yes", "no"):  # "no" is a word of many sentences
            stands = rf"(?<!\w){option}(?=\s*(?:[^\w\s]|$|and\b|or\b))"
            met = re.search(stands, text, re.IGNORECASE) is not None
        else:
            met = alone in words and (len(option) > 1 or option.isdecimal() or alone == option)
        if met:
            found |= options.words[option]
            words = words.replace(alone, " | ")
            for i in options.words[option]:  # a word stays, so that the "a" of "a dog" is no letter
                own = rf"(?<!\w){re.escape(options.texts[i])}(?!\w)"
                text = re.sub(own, "option", text, flags=re.IGNORECASE)
    for opened, letter, closed, following in _LONE_LETTER.findall(text):
        # "a dog", "I see" are words, "A is right" and "(A)" are options.
        is_word = letter in "AaI" and following and following.strip() not in ("is", "and", "or")
        if index_of(letter) < options.letters and (opened or closed or not is_word):
            found.add(index_of(letter))
    return found


def index_of(letter: str) -> int:
    """The index of the option with this letter."""
    return ord(letter.upper()) - ord("A")
