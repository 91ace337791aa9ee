"""The categories of a COCO file: which of them are surely not on a picture, and so may be a wrong option."""

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
    """What is known of the categories of a file.

    A category is absent from a picture if it is annotated on another one (a root that nothing is annotated
    with, as Roboflow writes it, is no class), if it is neither above nor below a category on the picture
    (whoever shows a car shows a vehicle) and if it has another name.

    Args:
        categories: by id.
        annotated: ids of those that any annotation has.
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
        """What a supercategory may mean: of equal names the one that is no class, if there is one."""
        parent = categories[number].parent
        named = set() if parent is None else set(by_name.get(_plain(parent), ())) - {number}
        return named - set(self._annotated) or named

    def key(self, number: int) -> int | str:
        """Equal for categories of one name."""
        return _plain(self.names[number]) if number in self.names else number

    def below(self, number: int, others: Collection[int]) -> list[int]:
        """Those of `others` that are kinds of a category."""
        return [other for other in others if number in self._above.get(other, ())]

    def absent_from(self, present: Collection[int]) -> list[str]:
        """Names of the categories that are surely not on a picture, each once, in its first spelling."""
        above = set().union(*(self._above.get(number, ()) for number in present))
        maybe = {self.key(number) for number in present}
        # By name: where one of two categories of a name may be there, the name may be true.
        maybe |= {
            self.key(number)
            for number in self._annotated
            if number in above or self._above[number] & set(present)
        }
        return [name for key, name in self._spelled.items() if key not in maybe]

    def spelling(self, number: int) -> str:
        """The name of a category as `absent_from` spells it: that of the first annotated one of its name.

        Raises:
            KeyError: it is not annotated, or no category.
        """
        return self._spelled[self.key(number)]
