"""As many replicas hold an acknowledged write as acknowledged it, for as long as its table lives.

An ack is a promise about the disk, so this is judged on what the disks hold in the end, before any read repairs
it: a write that survived only by luck is told as well. A replica holds a write if its row is as new;
of what is deleted or expired nothing may be left. A write that hints alone may have acknowledged is held by one
replica at least, because by then all hints are delivered. What a single node acknowledged is gone if that node's disk
lost it.

Of a leader-based table a majority of the replicas holds each acknowledged version of an item, or a later one. One that
says that there is no item is removed once all replicas hold it, be it of a delete or of a lock on what was not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core import rows
from merganser.model.errors import CorruptionError
from merganser.model.register import NO_VERSION, Version
from merganser.model.timestamp import Timestamp
from merganser.sim.checkers.linearizable import CompareAndSet, Put
from merganser.sim.checkers.replicas import NodeState, replicas_of
from merganser.sim.history import History, Write
from merganser.sim.item_history import Heard
from merganser.storage.registers import decode_register
from merganser.storage.values import decode_row


def writes_too_few_hold(history: History, states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each acknowledged write that fewer replicas hold than its level counted."""
    for key, writes in history.writes_by_key().items():
        acked = [write for write in writes if write.timestamp is not None and not write.reads_as_nothing(float("inf"))]
        nodes = replicas_of(key, states)
        if not acked or not nodes or _may_be_gone(writes):
            continue
        held = [_newest(key, state) for state in states if state.node in nodes]
        for write in acked:
            if history.has_losses and write.nodes < 2:
                continue
            holders = sum(
                timestamp is not None and timestamp >= write.timestamp for timestamp in held if write.timestamp
            )
            if holders < min(max(1, write.replicas), len(nodes)):  # who owns nothing any more holds nothing
                yield f"{key!r} of {write.timestamp} was acknowledged by {write.replicas}, and {holders} hold it"

    yield from _versions_too_few_hold(history, states)


def _versions_too_few_hold(history: History, states: Sequence[NodeState]) -> Iterator[str]:
    newest: dict[bytes, Heard] = {}
    deleted = set(history.items.deleted)
    for heard in history.items.heard:
        if heard.key not in newest or heard.version > newest[heard.key].version:
            newest[heard.key] = heard
    for operation in history.items.operations:
        if isinstance(operation.action, Put | CompareAndSet) and operation.action.value is None:
            deleted.add(operation.key)
    for key, heard in newest.items():
        nodes = replicas_of(key, states)
        held = [_version(key, state) for state in states if state.node in nodes]
        holders = sum(version >= heard.version for version in held)
        may_be_gone = heard.value is None or key in deleted
        if nodes and 2 * holders <= len(nodes) and not (may_be_gone and NO_VERSION in held):
            yield f"{key!r} of {tuple(heard.version)} was acknowledged by a majority, and {holders} hold it"


def _version(key: bytes, state: NodeState) -> Version:
    try:
        return decode_register(key, state.rows.get(key)).version
    except CorruptionError:
        return NO_VERSION


def _may_be_gone(writes: list[Write]) -> bool:
    """Tell whether the newest state of the key may be nothing at all, its tombstone purged."""
    newest = max((write.timestamp for write in writes if write.timestamp is not None), default=None)
    return any(
        write.reads_as_nothing(float("inf"))
        and not write.is_certainly_unwritten
        and (write.timestamp is None or newest is None or write.timestamp >= newest)
        for write in writes
    )


def _newest(key: bytes, state: NodeState) -> Timestamp | None:
    stored = state.rows.get(key)
    try:
        return None if stored is None else rows.newest(decode_row(key, stored))
    except CorruptionError:
        return None
