"""Items as documents: what lies at a path, and the part of an item that some paths show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from merganser.query.syntax import Path
from merganser.query.values import AttributeValue

Item = Mapping[str, Any]
"""Attribute name to attribute value in normal form."""

Branches = dict[Any, Any]
"""A tree of paths that do not overlap: each part leads to further branches or to what was given for the path."""


def value_at(item: Item, path: Path) -> AttributeValue | None:
    """Return the value that a path leads to, None if there is none."""
    parts = path.parts
    value: AttributeValue | None = item.get(str(parts[0]))
    for part in parts[1:]:
        if value is None:
            return None
        value = _inside(value, part)
    return value


def branches_of(ends: Iterable[tuple[Path, object]]) -> Branches:
    """Return the tree of some paths, each with what is at its end, which is no dict."""
    root: Branches = {}
    for path, end in ends:
        branches = root
        for part in path.parts[:-1]:
            branches = branches.setdefault(part, {})
        branches[path.parts[-1]] = end
    return root


def projected(item: Item, paths: Iterable[Path]) -> dict[str, Any]:
    """Return the part of an item that some paths show, which do not overlap.

    Maps and lists on the way are there with what is shown of them; the elements shown of a list close up, in its order.
    """
    return _shown_members(item, branches_of((path, None) for path in paths))


def _inside(value: AttributeValue, part: str | int) -> AttributeValue | None:
    if isinstance(part, str):
        members = value.get("M")
        return None if members is None else members.get(part)
    elements = value.get("L")
    return elements[part] if elements is not None and part < len(elements) else None


def _shown_members(members: Mapping[str, Any], branches: Branches) -> dict[str, Any]:
    shown = {}
    for name, below in branches.items():
        value = members.get(name)
        if value is not None and below is not None:
            value = _shown(value, below)
        if value is not None:
            shown[name] = value
    return shown


def _shown(value: AttributeValue, branches: Branches) -> AttributeValue | None:
    if isinstance(next(iter(branches)), str):
        members = _shown_members(value.get("M") or {}, branches)
        return {"M": members} if members else None
    elements = value.get("L") or ()
    shown = []
    for index in sorted(branches):
        if index < len(elements):
            below = branches[index]
            element = elements[index] if below is None else _shown(elements[index], below)
            if element is not None:
                shown.append(element)
    return {"L": shown} if shown else None
