"""Whether two short texts say the same: words, amounts, yes and no."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from itertools import product

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Script that is written without spaces: Chinese, Japanese; Korean for the particles after a word."""
_SCRIPTS_MEET = re.compile(rf"(?<={CJK.pattern})(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?={CJK.pattern})")
_TAG = re.compile(r"</?answer>|<br\s*/?>", re.IGNORECASE)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|span|code)>")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_TEX_ESCAPE = re.compile(r"\\([%$#&_])")
_TEX_BOX = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathbf|mathrm|mathit|mathsf)\s*\{([^{}]*)\}")
_TEX_MATHS = re.compile(r"\\[()\[\]]|\$\$|\$((?:[^$\d\s][^$]*)|-?\d[\d.,/]*)\$(?!\d)")
_BULLET = re.compile(
    r"^[ \t]*(?:(?:[#*•·]+|>+(?!\s*\d))\s+|#(?=\(?[A-Za-z]\)?[.:)]?$)|-\s+(?=[^\d\s.]))+", re.MULTILINE
)
_EMPHASIS = re.compile(r"(?<!\w)(?:\*+|`+|_+(?=\S))|(?:\*+|`+|(?<=\S)_+)(?!\w)")
_EMPHASIS_MARKS = frozenset("*`_")
_QUOTED = re.compile(r"""(?<![\w'"])(["'])([^"']*)\1(?!\w)""")
_VIEW = r"in (?:total|(?:the|this) (?:picture|image|photo|scene|crop))"
_IN_VIEW = re.compile(
    rf"(?<=\w\w)(?<!\bis)(?<!\bare)(?<!\bnot)\s+{_VIEW}(?=\W*$)|^{_VIEW},\s*", re.IGNORECASE
)
_LINE_END = re.compile(r"(?<=[\w)\]])[ \t]*[\r\n]+\s*")
_ASIDE = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
    | {"\u3010": "[", "\u3011": "]", "\u300c": '"', "\u300d": '"'}
)

_ARTICLE = re.compile(r"\b(?<!-)(?:the|an|a(?=\s+\w\w))\s+(?=\w)")
_SIGNED_MONEY = re.compile(r"([+-])([$€£¥])(?=[\d.])")
_SIDE = re.compile(r"\b(?:on|to|at|in) the (left|right)(?:[ -]hand)?(?: side)?\b")
_ZERO_HOUR = re.compile(r"\b0(?=\d:\d\d\b)")
_MARK = re.compile(r"[^\w\s%#@]|_")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_PERCENT = re.compile(r"\bper ?cent\b")
_APOSTROPHE = re.compile(r"(?<=[^\W\d])'(?=[^\W\d])")
_BETWEEN_NUMBERS = re.compile(r"(?<=\d)\s*([/*:\u00d7\u00f7=+-])\s*(?=\d)")

# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELT_UNITS = {
    "%": "percent", "°": "degree degrees", "°c": "degreescelsius ℃", "°f": "degreesfahrenheit",
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres", "km": "kilometer kilometers kilometre kilometres",
    "in": "inch inches", "ft": "foot feet", "mi": "mile miles", "yd": "yard yards",
    "g": "gram grams", "kg": "kilogram kilograms kilo kilos kgs", "mg": "milligram milligrams",
    "lb": "lbs", "oz": "ounce ounces", "ml": "milliliter milliliters millilitre millilitres",
    "l": "liter liters litre litres", "km/h": "kmh kph kilometersperhour kilometresperhour",
    "mph": "milesperhour", "s": "sec secs second seconds", "min": "mins minute minutes",
    "h": "hr hrs hour hours", "day": "days", "week": "weeks", "month": "months", "year": "years",
    "pound": "pounds", "ton": "tons tonne tonnes", "gallon": "gallons", "pint": "pints", "acre": "acres",
    "volt": "volts v", "watt": "watts w", "amp": "amps", "knot": "knots", "bar": "bars", "pixel": "pixels px",
    "cent": "cents", "rupee": "rupees", "yuan": "", "yen": "", "peso": "pesos", "calorie": "calories kcal",
    "$": "dollar dollars usd us$", "€": "euro euros eur", "£": "gbp", "¥": "", "m2": "m^2 sqm", "cm2": "cm^2",
}
# fmt: on
_UNITS = {spelt: unit for unit, others in _SPELT_UNITS.items() for spelt in [unit, *others.split()]}
_WORDS = {word: value for value, word in enumerate(_ONES)}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_WORDS |= {f"{ten} {one}": _WORDS[ten] + _WORDS[one] for ten, one in product(_TENS, _ONES[1:10])}
_WORDS |= {
    f"{word} {unit}": value * _WORDS[word]
    for word, (unit, value) in product(_ONES[1:10], [("hundred", 100), ("thousand", 1000)])
}
_AMOUNT = re.compile(
    r"(?P<before>[$€£¥]|us\$|usd|eur|gbp)?\s*(?P<sign>[+-]?)\s*"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?P<part>\.\d+)?(?P<power>e[+-]?\d{1,3})?(?:/(?P<below>\d{1,9}))?"
    r"\s*(?P<unit>[^\d\s.,+-][^\d,]*)?\.?"
)
_SPELT_AMOUNT = re.compile(r"([a-z]+(?:[ -][a-z]+)?)(?:\s+(%|[a-z]+(?: cent)?))?\.?")
_TIME = re.compile(r"(\d{1,2})(?:[:.](\d\d))?\s*([ap])\.?\s?m\.?")
_YES_NO = re.compile(r"(yes|yeah|yep|yup|no|nope)(?![\w-])\s*([.,;:!?]*)\W*(\w*)\W*(\w*)")

Amount = tuple[object, str, bool]
"""A value, its unit ("" for none), and whether it was written as a fraction."""


def same(given: str, wanted: str) -> bool:
    """Whether two tidied texts say the same; `wanted` is the gold side. Yes and no must stand alone."""
    plain_given, plain_wanted = plain(given), plain(wanted)
    if plain_given == plain_wanted:
        return bool(plain_given)
    if plain_given and plain_wanted and _numbered(plain_given) == _numbered(plain_wanted):
        return True
    if "-" in given + wanted and not re.search(r"\d", given + wanted):  # CocaCola, Coca-Cola
        return plain(given.replace("-", "")) == plain(wanted.replace("-", "")) != ""
    amount, other = amount_of(wanted), amount_of(given)
    # 6/12 and 1/2 may be dates: two fractions must be written alike.
    return amount is not None and other is not None and amount[:2] == other[:2] and not amount[2] & other[2]


@lru_cache(maxsize=1024)
def _numbered(words: str) -> str:
    """Plain words with numbers in digits, times of day without a zero before them."""
    return " ".join(str(_WORDS.get(word, word)) for word in _ZERO_HOUR.sub("", words).split())


def yes_no(text: str) -> str | None:
    """Which of the two a tidied text says with its first word."""
    found = _YES_NO.match(text.casefold())
    if not found:
        return None
    word, stop, following, after = found.groups()
    verdict = "no" if word.startswith("n") else "yes"
    opposite = "no" if verdict == "yes" else "yes"
    if opposite in (following, after if following in ("and", "or", "but") else ""):
        return None
    # "No dog is here" does not say "no"; "No, a dog" and "No it is not" do.
    determiner = word == "no" and following and not stop
    pronouns = ("it", "there", "they", "he", "she", "this", "that")
    return None if determiner and following not in pronouns else verdict


@lru_cache(maxsize=4096)
def amount_of(text: str) -> Amount | None:
    """The amount in a tidied text: a number with or without a unit, or a time of day; else None."""
    text = _BETWEEN_NUMBERS.sub(r"\1", _SIGNED_MONEY.sub(r"\2\1", text.casefold().strip()))
    if time := _TIME.fullmatch(text):
        return (int(time[1]), int(time[2] or 0)), time[3] + "m", False
    found = _AMOUNT.fullmatch(text)
    if found and (found["whole"] or found["part"]):
        units = [_unit(found[side]) for side in ("before", "unit") if found[side]]
        if None in units or len(units) > 1:
            return None
        number = found["sign"] + found["whole"].replace(",", "") + (found["part"] or "")
        value = Decimal(number + (found["power"] or ""))
        if not found["below"]:
            return value, units[0] or "" if units else "", False
        below = int(found["below"])
        whole = len(number) < 10 and not (found["part"] or found["power"] or "," in found["whole"])
        return (value / below, units[0] or "" if units else "", True) if whole and below else None
    spelt = _SPELT_AMOUNT.fullmatch(text)
    if not spelt:
        return None
    words = " ".join(text.rstrip(".").replace("-", " ").split())
    if words in _WORDS:
        return Decimal(_WORDS[words]), "", False
    for cut in (1, 2):
        head, last = words.split(" ")[:-cut], _unit(" ".join(words.split(" ")[-cut:]))
        if last and " ".join(head) in _WORDS:
            return Decimal(_WORDS[" ".join(head)]), last, False
    return None


def _unit(text: str) -> str | None:
    return _UNITS.get(re.sub(r"[\s.]", "", text))


@lru_cache(maxsize=1024)  # the options of a prompt come again with each of its rollouts
def tidy(text: str) -> str:
    """One line of NFKC text without invisible characters, TeX, bullets, emphasis and quotes.

    Empty phrases at its ends ("in the picture", "in total") are removed.
    Line ends become full stops; letters and digits are separated from Chinese, Japanese and Korean script;
    superscript digits get a caret (10² is 10^2).
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", "".join(map(_compatible, text)))
        text = "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_ASIDE)
        text = _SCRIPTS_MEET.sub(" ", text.replace("\u2044", "/"))
    if "<" in text:
        text = _TAG.sub(" ", text)
        if "</" in text:  # without an end, <b> is the letter of an option
            text = _HTML.sub("", text)
    text = _LINE_END.sub(". ", _BULLET.sub("", text.strip()))
    if "\\" in text:
        text = _FRACTION.sub(r"\1/\2", text)
        for _ in range(3):
            text = _TEX_BOX.sub(r"\1", text)
        text = _TEX_ESCAPE.sub(r"\1", text)
    text = _TEX_MATHS.sub(r"\1", text).strip()
    if not _EMPHASIS_MARKS.isdisjoint(text):
        text = _EMPHASIS.sub("", text)
    return _IN_VIEW.sub("", " ".join(_QUOTED.sub(r"\2", text).split()))


def _compatible(c: str) -> str:
    kind = unicodedata.decomposition(c).partition(" ")[0]
    if kind == "<super>" and c.isdigit():
        return "^" + c
    return " " + c if kind == "<fraction>" else c


@lru_cache(maxsize=1024)
def plain(text: str) -> str:
    """Words only: folded case, no articles, no punctuation but that of numbers; else the text itself."""
    folded = unicodedata.normalize("NFKC", text.casefold()).replace("&", " and ")
    folded = _BETWEEN_NUMBERS.sub(r"\1", _SIGNED_MONEY.sub(r"\2\1", folded))
    folded = _THOUSANDS.sub("", folded)
    folded = _PERCENT.sub("%", folded).replace("%", " % ")
    folded = _SIDE.sub(r"\1", _APOSTROPHE.sub("", folded))
    named = _ARTICLE.sub("", folded)
    kept = _MARK.sub(lambda mark: mark[0] if _is_kept(named, mark.start()) else " ", named)
    return " ".join(kept.split()) or folded.strip()


def _is_kept(text: str, i: int) -> bool:
    """Whether the mark at i is not punctuation, or belongs to a number: its point, its sign, 5', 3/4."""
    if unicodedata.category(text[i])[0] != "P":
        return True
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if before.isdecimal() and text[i] in "'\"":
        return not after.isalpha()
    if not after.isdecimal():
        return False
    return before.isdecimal() or text[i] == "." or (text[i] == "-" and (not before or before in " $€£¥"))
