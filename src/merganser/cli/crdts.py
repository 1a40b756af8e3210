"""``merganser update`` and ``session``: values that merge themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from merganser.cli.values import as_json, ask, bytes_of, whole_number
from merganser.core.crdt import types
from merganser.model.errors import ConfigurationError


def update(
    admin: str,
    table: str,
    key: str,
    operation: Mapping[str, object],
    *,
    identity: str | None,
    context: str | None,
    consistency: str,
) -> None:
    """Make one operation, and print whether anything has changed.

    Raises:
        ConfigurationError: it was not made, or that is unknown; says why.
    """
    query = {"table": table, "key": key, "id": identity, "context": context, "consistency": consistency}
    try:
        content = orjson.dumps([operation])
    except TypeError:  # a type or an action that is no UTF-8
        raise ConfigurationError("types and actions are words, and one of these is no UTF-8") from None
    made = ask(admin, "update", query, content)
    print("made" if made["made"] else "nothing to change")  # noqa: T201  # a command line speaks


def typed(kind: str, action: str, value: str | None) -> object:
    """Return ``value`` as the action takes it: as a number if it takes one and this is one.

    Raises:
        ConfigurationError: it takes a number, and this one has more than 64 bits.
    """
    if value is None or types.ACTIONS.get(kind, {}).get(action) is not int:
        return None if value is None else as_json(value)
    number = whole_number(value)
    return as_json(value) if number is None else number


def session(admin: str, table: str, *, life_s: int) -> None:
    """Open a session and print its name; raises as `update`."""
    print(ask(admin, "session", {"table": table, "life_s": str(life_s)})["session"])  # noqa: T201


def print_plain(values: list[dict[str, Any]]) -> None:
    """Print what a key reads as: numbers, truths and texts as they are, the rest in JSON; each type on a line."""
    for value in values:
        plain = _plain(value)
        is_short = isinstance(plain, str | int) and not isinstance(plain, bool)
        print(plain if is_short else orjson.dumps(plain).decode())  # noqa: T201


def _plain(told: dict[str, Any]) -> object:
    value = told["value"]
    if told["type"] == "map":
        names = [_text(field["name"]) for field in value]
        return {
            name if names.count(name) == 1 else f"{name} ({field['type']})": _plain(field)
            for name, field in zip(names, value, strict=True)
        }
    if isinstance(value, list):
        return [_text(one) for one in value]
    return _text(value) if isinstance(value, dict) else value


def _text(told: dict[str, Any]) -> str:
    return bytes_of(told).decode(errors="backslashreplace")
