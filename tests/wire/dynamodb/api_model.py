"""A slow and obviously right DynamoDB with one table, written from the API reference: a dict of native values.

It shares no code with the product. Items are dicts of native values (`query.attribute_values`); conditions and updates
are the trees and actions of the models in `query`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from query import test_evaluation, test_update_model
from query.test_evaluation import Tree
from query.test_update_model import Action, ImpossibleError, Path

Item = dict[str, Any]
Key = tuple[str, Decimal]
"""Of the attributes p and s."""


class RefusedError(Exception):
    """The code of DynamoDB's error."""


class Done(NamedTuple):
    """What a write came to."""

    shown: Item
    units: int


class Page(NamedTuple):
    """What a Query or Scan came to."""

    items: list[Item]
    scanned: int
    last: Item | None
    units: float


class Table:
    """All of its items, by key."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}

    def put(self, key: Key, attributes: Item, condition: Tree | None, returns: str = "NONE") -> Done:
        return self._replace(key, {**attributes, **named(key)}, condition, returns)

    def delete(self, key: Key, condition: Tree | None, returns: str = "NONE") -> Done:
        return self._replace(key, None, condition, returns)

    def _replace(self, key: Key, item: Item | None, condition: Tree | None, returns: str) -> Done:
        before = self.items.get(key)
        self.check(key, condition)
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item
        return Done(before or {} if returns == "ALL_OLD" else {}, write_units(before, item))

    def update(self, key: Key, actions: list[Action], condition: Tree | None, returns: str = "NONE") -> Done:
        before = self.items.get(key)
        self.check(key, condition)
        try:
            with localcontext(prec=400):  # exact
                after = test_update_model.model(actions, before or {})
        except ImpossibleError:
            raise RefusedError("ValidationException") from None
        if before is None and all(action[0] in ("REMOVE", "DELETE") for action in actions):
            return Done({}, 1)
        after = {**after, **named(key)}
        self.items[key] = after
        paths = [action[1] for action in actions]
        shown = {
            "NONE": {},
            "ALL_OLD": before or {},
            "ALL_NEW": after,
            "UPDATED_OLD": projection(before or {}, paths),
            "UPDATED_NEW": projection(after, paths),
        }[returns]
        return Done(shown, write_units(before, after))

    def check(self, key: Key, condition: Tree | None) -> None:
        if condition is not None and not test_evaluation.model(condition, self.items.get(key, {})):
            raise RefusedError("ConditionalCheckFailedException")

    def query(
        self,
        partition: str,
        wanted: Callable[[Decimal], bool],
        *,
        is_forward: bool,
        start: Decimal | None,
        limit: int | None,
        condition: Tree | None,
        paths: Sequence[Path] | None,
    ) -> Page:
        chosen = sorted(sort for found, sort in self.items if found == partition and wanted(sort))
        if not is_forward:
            chosen.reverse()
        if start is not None:
            chosen = [sort for sort in chosen if (sort > start if is_forward else sort < start)]
        return self.page([(partition, sort) for sort in chosen], limit, condition, paths)

    def page(
        self, keys: Sequence[Key], limit: int | None, condition: Tree | None, paths: Sequence[Path] | None
    ) -> Page:
        """A page of items in a given order."""
        seen = [self.items[key] for key in keys[:limit]]
        shown = [
            item if paths is None else projection(item, paths)
            for item in seen
            if condition is None or test_evaluation.model(condition, item)
        ]
        last = named(keys[len(seen) - 1]) if seen and len(seen) == limit else None
        return Page(shown, len(seen), last, read_units(sum(map(size_of, seen))) / 2)


def named(key: Key) -> Item:
    return {"p": key[0], "s": key[1]}


def projection(item: Item, paths: Sequence[Path]) -> Item:
    """The part of an item that some paths show."""
    shown = _shown(item, paths)
    return {} if shown is NOTHING else dict(shown)


NOTHING = object()


def _shown(value: Any, paths: Sequence[Path]) -> Any:
    """What paths, as they go on from here, show of a value; of a list the elements close up."""
    if () in paths:
        return value
    if isinstance(value, dict):
        members = {name: _below(member, name, paths) for name, member in value.items()}
        return {name: member for name, member in members.items() if member is not NOTHING} or NOTHING
    if isinstance(value, list):
        elements = [_below(element, index, paths) for index, element in enumerate(value)]
        return [element for element in elements if element is not NOTHING] or NOTHING
    return NOTHING


def _below(value: Any, part: str | int, paths: Sequence[Path]) -> Any:
    return _shown(value, [path[1:] for path in paths if path and path[0] == part])


def size_of(item: Item) -> int:
    """Bytes, as the Developer Guide counts them under "Item sizes and formats"."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Any) -> int:
    match value:
        case None | bool():
            return 1
        case int() | Decimal():
            return _number_size(Decimal(value))
        case str():
            return len(value.encode())
        case bytes():
            return len(value)
        case frozenset():
            return sum(map(_size, value))
        case list():
            return 3 + sum(1 + _size(element) for element in value)
        case dict():
            return 3 + sum(1 + len(name.encode()) + _size(member) for name, member in value.items())
    raise AssertionError(value)


def _number_size(number: Decimal) -> int:
    """A byte for two digits, which begin at even powers of ten, and one more; another one for a minus."""
    if number == 0:
        return 1
    _, digits, exponent = number.normalize().as_tuple()
    assert isinstance(exponent, int)
    last, first = exponent, exponent + len(digits) - 1
    return first // 2 - last // 2 + 1 + 1 + (number < 0)


def write_units(before: Item | None, after: Item | None) -> int:
    sizes = [0 if item is None else size_of(item) for item in (before, after)]
    return max(1, math.ceil(max(sizes) / 1024))


def read_units(size: int) -> int:
    """Of a consistent read."""
    return max(1, math.ceil(size / 4096))
