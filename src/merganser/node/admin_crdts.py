"""Values that merge themselves, as the admin port takes and tells them.

An update is a JSON array of operations, which are made all or not at all::

    [{"type": "counter", "action": "increment", "value": 5, "path": ["visits"]},
     {"type": "set", "action": "add", "value": "milk", "path": ["basket"]}]

Numbers are numbers, other values and the names of fields are texts, or ``{"base64": "…"}`` where they are no UTF-8. A
value is told as ``{"type": …, "value": …}``; that of a map is an array of its fields, each with its ``name``.
"""

from __future__ import annotations

import base64

import msgspec

from merganser.model.crdt import Field, Operation, Shown
from merganser.model.errors import RequestError
from merganser.node.admin_contents import as_json

SESSION_S = 3600


class _Bytes(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    action: str
    value: int | str | _Bytes | None = None
    path: tuple[str | _Bytes, ...] = ()


_operations = msgspec.json.Decoder(list[_Operation])


def operations_of(body: bytes) -> list[Operation]:
    """Return the operations of an update.

    Raises:
        RequestError: they are not as they should be; says how they should.
    """
    try:
        return [
            Operation(given.type, given.action, _value(given.value), tuple(_bytes(name) for name in given.path))
            for given in _operations.decode(body)
        ]
    except (msgspec.MsgspecError, ValueError) as error:
        raise RequestError(
            f'{error}: an update is an array of operations in JSON, such as {{"type": "counter", '
            '"action": "increment", "value": 5, "path": ["visits"]}'
        ) from None


def told(shown: Shown) -> dict[str, object]:
    """Return a value as JSON has it."""
    return {"type": shown.type, "value": _told(shown.value)}


def _told(value: object) -> object:
    if isinstance(value, bytes):
        return as_json(value)
    if isinstance(value, tuple):
        return [_told(one) for one in value]
    if isinstance(value, Field):
        return {"name": as_json(value.name), **told(value.of)}
    return value


def _value(given: int | str | _Bytes | None) -> int | bytes | None:
    return given if given is None or isinstance(given, int) else _bytes(given)


def _bytes(given: str | _Bytes) -> bytes:
    return given.encode() if isinstance(given, str) else base64.b64decode(given.base64, validate=True)
