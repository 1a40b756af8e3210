"""What an update may replace, or take away, that is bound to what its client has seen."""

from __future__ import annotations

from merganser.core import causality, rows
from merganser.core.crdt import reading, updates
from merganser.model import crdt
from merganser.model.crdt import Operation
from merganser.model.row import Context, Row


class Key:
    """One replica of a key, at which clients make one update after another."""

    def __init__(self) -> None:
        self.row: Row | None = None
        self._actors = causality.Actors(1)
        self._now_us = 0

    def update(self, *operations: Operation, seen: Context | None = None) -> Context:
        """Make an update; returns the context of what it leaves behind."""
        self._now_us += 1
        spans = [
            self._actors.mint(b"k", self._now_us)
            for _ in range(updates.dots_needed(self.row, operations, has_id=False))
        ]
        delta = updates.delta(self.row, operations, spans, seen=seen)
        if self.row is None:
            self.row = delta
        elif delta is not None:
            self.row = rows.merge(self.row, delta)
        assert self.row is not None
        return self.row.context

    def value(self) -> object:
        """Return what is read."""
        (shown,) = reading.values(self.row)
        return shown.value


def assigned(value: bytes) -> Operation:
    return Operation(crdt.MULTI_REGISTER, "assign", value)


def test_a_value_that_the_client_has_not_seen_stays_beside_the_one_it_assigns() -> None:
    key = Key()
    seen = key.update(assigned(b"one"))
    key.update(assigned(b"two"))
    key.update(assigned(b"three"), seen=seen)
    assert key.value() == (b"three", b"two")
    key.update(assigned(b"four"))
    assert key.value() == (b"four",)


def test_who_has_seen_nothing_replaces_nothing_but_what_the_same_update_has_assigned() -> None:
    key = Key()
    key.update(assigned(b"one"))
    key.update(assigned(b"two"), assigned(b"three"), seen=())
    assert key.value() == (b"one", b"three")


def test_a_flag_that_was_enabled_unseen_stays_enabled_and_a_disable_flag_disabled() -> None:
    for kind, first, second, stays in (
        (crdt.FLAG, "disable", "enable", True),
        (crdt.DISABLE_FLAG, "enable", "disable", False),
    ):
        key = Key()
        seen = key.update(Operation(kind, first))
        key.update(Operation(kind, second))
        key.update(Operation(kind, first), seen=seen)
        assert key.value() is stays
        key.update(Operation(kind, first))
        assert key.value() is not stays


def test_an_element_that_is_added_and_removed_by_one_update_is_gone_whatever_was_seen() -> None:
    key = Key()
    seen = key.update(Operation(crdt.SET, "add", b"x"))
    key.update(Operation(crdt.SET, "add", b"y"), Operation(crdt.SET, "remove", b"y"), seen=seen)
    assert key.value() == (b"x",)
