"""What simulated clients do to an item of a leader-based table, in the words of the wire "sim".

Whatever reveals most is answered, because every answer is evidence: a step tells what the item was before it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.register import EMPTY, Content, Decided
from merganser.service.expiry_index import Expiring
from merganser.sim.checkers.linearizable import number_in

WIRE: Final = "sim"


class Put(msgspec.Struct, frozen=True, tag="put"):
    """Make the item this, whatever it was; None: delete it."""

    value: bytes | None


class CompareAndSet(msgspec.Struct, frozen=True, tag="cas"):
    """Make the item ``value`` if it is ``expected``; rejected if it is not."""

    expected: bytes | None
    value: bytes | None


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Let the number in the item grow; rejected if the item holds none, or it would fall below ``least``."""

    amount: int
    start: int = 0
    """What an item that is not there counts as."""
    least: int | None = None


class Append(msgspec.Struct, frozen=True, tag="append"):
    """Append to the list in the item; if ``expected`` is given, rejected unless that is the list."""

    element: bytes
    expected: tuple[bytes, ...] | None = None


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Change nothing; rejected if the item is not ``expected``."""

    expected: bytes | None


Step = Put | CompareAndSet | Add | Append | Check

_ENCODER = msgspec.msgpack.Encoder()
_STEPS: msgspec.msgpack.Decoder[Step] = msgspec.msgpack.Decoder(Step)
_VALUES: msgspec.msgpack.Decoder[bytes | None] = msgspec.msgpack.Decoder(bytes | None)


def payload_of(step: Step) -> bytes:
    """Return what travels to the leader."""
    return _ENCODER.encode(step)


def value_in(answer: bytes) -> bytes | None:
    """Return what the item was before a step, be it done or rejected, from the answer."""
    return _VALUES.decode(answer)


EXPIRING: Final = b"expiring"
"""The definition of a table whose items expire."""
_ENDING: Final = b"ending@"
_TIME = b"@"


def ending(at_ms: int) -> bytes:
    """Return the definition of a table that is to go at a time, in milliseconds since 1970."""
    return b"%b%d" % (_ENDING, at_ms)


def ends_ms(table: Table) -> int | None:
    """Return when a table is to go; the `service.table_ends.Ends` of this wire."""
    return int(table.definition.removeprefix(_ENDING)) if table.definition.startswith(_ENDING) else None


def until(value: bytes, at_s: int) -> bytes:
    """Return a value that expires at a time, in seconds since 1970."""
    return b"%b%b%d" % (value, _TIME, at_s)


def expires_at(value: bytes) -> int | None:
    """Return when a value expires."""
    _, _, at_s = value.partition(_TIME)
    return int(at_s) if at_s.isdigit() else None


def expiring(table: Table) -> Expiring | None:
    """Return how items of a table expire; the `service.expiry_index.Expiry` of this wire."""
    return Expiring(EXPIRING, expires_at) if table.definition == EXPIRING else None


def measure(stored: bytes, at: int) -> int | None:
    """Return the size of an item; the `service.counts.Measure` of this wire."""
    return len(stored) - at


def evaluate(_table: Table, payload: bytes, value: bytes | None) -> Decided:
    """Return what the step makes of an item; it answers with what the item was.

    Raises:
        RequestError: these bytes are no step.
    """
    try:
        step = _STEPS.decode(payload)
    except msgspec.DecodeError as error:
        raise RequestError(f"not a step: {error}") from None
    was = _ENCODER.encode(value)
    match step:
        case Put(becomes):
            return _becomes(becomes, was, is_same=value is None and becomes is None)
        case CompareAndSet(expected, becomes) if value == expected:
            return _becomes(becomes, was, is_same=value == becomes)
        case Check(expected) if value == expected:
            return Decided(None, was)
        case Append(element, expected) if expected is None or elements_in(value) == expected:
            return _becomes(value_of((*elements_in(value), element)), was)
        case Add(amount, start, least):
            number = start if value is None else number_in(value)
            if number is not None and (least is None or number + amount >= least):
                return _becomes(b"%d" % (number + amount), was)
    return Decided(None, was, is_rejected=True)


def _becomes(value: bytes | None, was: bytes, *, is_same: bool = False) -> Decided:
    """Return that the item becomes ``value``; nothing is written if it ``is_same``."""
    if is_same:
        return Decided(None, was)
    return Decided(EMPTY if value is None else Content(value), was)


def elements_in(value: bytes | None) -> tuple[bytes, ...]:
    """Return the elements of a list as it is stored."""
    return tuple(value.split(b",")) if value else ()


def value_of(elements: tuple[bytes, ...]) -> bytes | None:
    """Return a list as it is stored; None if it has no elements."""
    return b",".join(elements) or None
