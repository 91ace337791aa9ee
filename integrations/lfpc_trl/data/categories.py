"""The categories of a COCO file; those certainly absent from a picture can be wrong options."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Category(NamedTuple):
    """A category of a file.

    Attributes:
        name: as the file spells it.
        parent: the name of its supercategory, if it has one.
    """

    name: str
    parent: str | None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "Category":
        """From an entry of `categories`.

        Raises:
            KeyError: it has no name.
        """
        parent = item.get("supercategory")
        return cls(str(item["name"]), None if parent is None else str(parent))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


class Categories:
    """The categories of a file.

    A category counts as absent from a picture if it is annotated on another one (Roboflow's root category,
    which annotates nothing, is not a class), if it is neither an ancestor nor a descendant of a category on
    the picture (a picture of a car shows a vehicle), and if it has a different name.

    Args:
        categories: by id.
        annotated: ids of the categories that have an annotation.
    """

    def __init__(self, categories: Mapping[int, Category], annotated: Collection[int]) -> None:
        self.names = {number: each.name for number, each in categories.items()}
        self._annotated = sorted(number for number in categories if number in annotated)
        self._spelled: dict[int | str, str] = {}
        for number in self._annotated:
            self._spelled.setdefault(self.key(number), self.names[number])
        by_name = defaultdict(list)
        for number, each in categories.items():
            by_name[_plain(each.name)].append(number)
        self._above: dict[int, set[int]] = {}
        for number in categories:
            above: set[int] = set()
            todo = [number]
            while todo:
                found = self._parents(todo.pop(), categories, by_name)
                todo += found - above
                above |= found
            self._above[number] = above - {number}

    def _parents(
        self, number: int, categories: Mapping[int, Category], by_name: Mapping[str, list[int]]
    ) -> set[int]:
        """The categories a supercategory may name: among equal names the one that is not a class, if any."""
        parent = categories[number].parent
        named = set() if parent is None else set(by_name.get(_plain(parent), ())) - {number}
        return named - set(self._annotated) or named

    def key(self, number: int) -> int | str:
        """A key that is equal for categories of the same name."""
        return _plain(self.names[number]) if number in self.names else number

    def below(self, number: int, others: Collection[int]) -> list[int]:
        """The categories in `others` that are descendants of a category."""
        return [other for other in others if number in self._above.get(other, ())]

    def absent_from(self, present: Collection[int]) -> list[str]:
        """Names of the categories certainly absent from a picture, each once, in its first spelling."""
        above = set().union(*(self._above.get(number, ()) for number in present))
        maybe = {self.key(number) for number in present}
        # By name: if one of two categories of the same name may be present, the name may be right.
        maybe |= {
            self.key(number)
            for number in self._annotated
            if number in above or self._above[number] & set(present)
        }
        return [name for key, name in self._spelled.items() if key not in maybe]

    def spelling(self, number: int) -> str:
        """The name of a category as `absent_from` spells it: as the first annotated category of that name.

        Raises:
            KeyError: it is not annotated, or not a category.
        """
        return self._spelled[self.key(number)]
