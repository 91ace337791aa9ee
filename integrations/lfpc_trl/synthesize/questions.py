"""Questions about signs with known answers, and the signs that make them unambiguous.

No two signs in a picture have the same color and shape, and no two the same content, unless the question asks
whether two have the same content. So every description matches exactly one sign.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from lfpc_trl.synthesize.contents import Object, near_word, random_word
from lfpc_trl.synthesize.scene import COLOURS, SHAPES, Plan, Sign

Kind = Literal["single", "pair", "attribute", "spatial"]
"""Kinds of questions: the content of a sign; whether two signs have the same content; the color or shape of
the sign with a given content; the relative position of two contents."""
KINDS: tuple[Kind, ...] = get_args(Kind)

SIGNS = (6, 10)
"""Minimum and maximum number of signs per picture, distractors included. Our choice."""


class Question(NamedTuple):
    """A question about a scene.

    Attributes:
        text: the question.
        answer: accepted answers, or the letter of an option.
        choices: option texts; None for an open question.
        asked: the signs that it asks about; each is a target region.
    """

    text: str
    answer: str
    choices: list[str] | None
    asked: list[Sign]


def plan_signs(
    rng: np.random.Generator, kind: Kind, objects: Sequence[Object], height: Callable[[], int]
) -> list[Plan]:
    """Plan the signs for a question of this kind; the question is about the first one or two of them.

    Args:
        rng: source of all random choices.
        kind: kind of the question.
        objects: the user's objects; if empty, the signs show words.
        height: returns a content height in pixels.
    """
    count = int(rng.integers(SIGNS[0], SIGNS[1] + 1))
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    chosen = [looks[i] for i in rng.permutation(len(looks))[:count]]
    # One distractor has the same color and one the same shape, so neither alone identifies the sign.
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
    """Call `make` until it returns a word that is not in `used`."""
    while (word := make()) in used:
        pass
    return word


def _words(rng: np.random.Generator, count: int) -> list[str | Object]:
    words: list[str | Object] = []
    while len(words) < count:
        words.append(unused(lambda: random_word(rng), words))
    return words


def _objects(rng: np.random.Generator, objects: Sequence[Object], count: int) -> list[str | Object]:
    """Choose up to `count` objects that cannot be confused with each other."""
    chosen: list[str | Object] = []
    for i in rng.permutation(len(objects)):
        if not any(isinstance(each, Object) and objects[i].confusable_with(each) for each in chosen):
            chosen.append(objects[i])
        if len(chosen) == count:
            break
    return chosen


def ask(rng: np.random.Generator, kind: Kind, signs: Sequence[Sign], names: Sequence[str]) -> Question:
    """Ask a question of this kind about the first sign or the first two.

    Args:
        rng: chooses between equally correct wordings.
        kind: kind of the question.
        signs: the drawn signs, in the order of `plan_signs`.
        names: names of all objects of the user; empty if the signs show words.
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
    """Ask for the position of the first sign relative to the second, along an axis without overlap."""
    a, b = first.boxes[-1], second.boxes[-1]
    axes = []
    if a[2] <= b[0] or b[2] <= a[0]:
        axes.append((a[2] <= b[0], "to the left of", "to the right of"))
    if a[3] <= b[1] or b[3] <= a[1]:
        axes.append((a[3] <= b[1], "above", "below"))
    before, one, other = axes[int(rng.integers(len(axes)))]
    subject, reference = (
        f"the {sign.name}" if named else f"the sign that says {sign.name}" for sign in (first, second)
    )
    text = f"Is {subject} {one} or {other} {reference}?"
    options = [one, other]
    return Question(text, "AB"[not before], options, [first, second])
