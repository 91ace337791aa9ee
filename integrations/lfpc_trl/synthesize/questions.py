"""Questions about signs whose answer is certain by construction, and the signs that make them so.

No two signs of a picture have the same colour and shape, and no two the same content, unless the question is
whether two of them do. So every description names one sign.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from lfpc_trl.synthesize.contents import Object, near_word, random_word
from lfpc_trl.synthesize.scene import COLOURS, SHAPES, Plan, Sign

Kind = Literal["single", "pair", "attribute", "spatial"]
"""What a question is about: the content of one sign; whether two have the same content; the colour or the
shape of the sign with a content; where two contents are relative to each other."""
KINDS: tuple[Kind, ...] = get_args(Kind)

SIGNS = (6, 10)
"""Fewest and most signs of a picture: the asked ones, the rest distracts. Our choice."""


class Question(NamedTuple):
    """A question about a scene.

    Attributes:
        text: the question.
        answer: accepted answers, or the letter of an option.
        choices: option texts; None for an open question.
        asked: the signs it is about: each is a region of targets.
    """

    text: str
    answer: str
    choices: list[str] | None
    asked: list[Sign]


def plan_signs(
    rng: np.random.Generator, kind: Kind, objects: Sequence[Object], height: Callable[[], int]
) -> list[Plan]:
    """Signs for a question of this kind; the first one or two of them are asked about.

    Args:
        rng: chooses everything.
        kind: of the question.
        objects: a user's objects; words stand on the signs if there are none.
        height: gives the height of a content in pixels.
    """
    count = int(rng.integers(SIGNS[0], SIGNS[1] + 1))
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    chosen = [looks[i] for i in rng.permutation(len(looks))[:count]]
    # One distractor shares the colour and one the shape: neither alone finds the sign.
    colour, shape = chosen[0]
    near = [(colour, _other(rng, SHAPES, shape)), (_other(rng, COLOURS, colour), shape)]
    rest = [look for look in chosen[1:] if look not in near]
    chosen = [chosen[0], rest[0], *near, *rest[1:]]
    contents = _objects(rng, objects, count) if objects else _words(rng, count)
    if kind == "pair":
        if rng.random() < 0.5:
            contents[1] = contents[0]
        elif isinstance(contents[0], str):
            contents[1] = unused(lambda: near_word(rng, str(contents[0])), contents)
    return [
        Plan(colour, shape, content, height())
        for (colour, shape), content in zip(chosen, contents, strict=False)
    ]


def _other(rng: np.random.Generator, names: Iterable[str], name: str) -> str:
    rest = [each for each in names if each != name]
    return rest[int(rng.integers(len(rest)))]


def unused(make: Callable[[], str], used: Sequence[object]) -> str:
    """The first word made that is not among the used ones."""
    while (word := make()) in used:
        pass
    return word


def _words(rng: np.random.Generator, count: int) -> list[str | Object]:
    words: list[str | Object] = []
    while len(words) < count:
        words.append(unused(lambda: random_word(rng), words))
    return words


def _objects(rng: np.random.Generator, objects: Sequence[Object], count: int) -> list[str | Object]:
    """Objects of which none may be taken for another, as many as there are."""
    found: list[str | Object] = []
    for i in rng.permutation(len(objects)):
        if not any(isinstance(each, Object) and objects[i].may_be_taken_for(each) for each in found):
            found.append(objects[i])
        if len(found) == count:
            break
    return found


def ask(rng: np.random.Generator, kind: Kind, signs: Sequence[Sign], names: Sequence[str]) -> Question:
    """The question of this kind about the first sign, or the first two.

    Args:
        rng: chooses between wordings that are equally true.
        kind: of the question.
        signs: from `plan_signs`, drawn.
        names: of all objects a user has; empty if words stand on the signs.
    """
    first, second = signs[0], signs[1]
    verb = "show" if names else "say"
    if kind == "single":
        text = f"What does the {_look(first)} sign {verb}?"
        if not names:
            return Question(text, first.name, None, [first])
        others = sorted(set(names) - {first.name, *first.maybe})
        wrong = [others[i] for i in rng.permutation(len(others))[:3]]
        return _choice(rng, text, first.name, wrong, [first])
    if kind == "attribute":
        content = f"shows the {first.name}" if names else f"says {first.name}"
        if rng.random() < 0.5:
            wrong = [name for name in SHAPES if name != first.plan.shape]
            return _choice(rng, f"Which shape has the sign that {content}?", first.plan.shape, wrong, [first])
        others = [name for name in COLOURS if name != first.plan.colour]
        wrong = [others[i] for i in rng.permutation(len(others))[:3]]
        return _choice(rng, f"Which colour has the sign that {content}?", first.plan.colour, wrong, [first])
    if kind == "pair":
        text = f"Do the {_look(first)} sign and the {_look(second)} sign {verb} the same?"
        return Question(text, "yes" if first.name == second.name else "no", None, [first, second])
    return _spatial(rng, first, second, named=bool(names))


def _look(sign: Sign) -> str:
    return f"{sign.plan.colour} {sign.plan.shape}"


def _choice(
    rng: np.random.Generator, text: str, right: str, wrong: Sequence[str], asked: list[Sign]
) -> Question:
    options = [right, *wrong]
    options = [options[i] for i in rng.permutation(len(options))]
    return Question(text, "ABCD"[options.index(right)], options, asked)


def _spatial(rng: np.random.Generator, first: Sign, second: Sign, *, named: bool) -> Question:
    """Where the first is from the second, along a direction in which the whole signs do not overlap."""
    a, b = first.boxes[-1], second.boxes[-1]
    ways = []
    if a[2] <= b[0] or b[2] <= a[0]:
        ways.append((a[2] <= b[0], "to the left of", "to the right of"))
    if a[3] <= b[1] or b[3] <= a[1]:
        ways.append((a[3] <= b[1], "above", "below"))
    before, one, other = ways[int(rng.integers(len(ways)))]
    what = [f"the {sign.name}" if named else f"the sign that says {sign.name}" for sign in (first, second)]
    text = f"Is {what[0]} {one} or {other} {what[1]}?"
    options = [one, other]
    return Question(text, "AB"[not before], options, [first, second])
