"""What answers about items of leader-based tables have to do with one another.

- Items: each key is one register on which operations happen one at a time (`linearizable`). A page of a consistent
  range read is a read of every key that it covers, also of those that it leaves out. So is a consistent page of a
  local index that tells of all items of a partition key; of others it is a read of those that it tells of.
- Lists: transactions over lists, and single operations on them, happen one at a time (`serializable`).
- Versions: an operation that begins after another has ended sees no earlier version of the item, and writes a later
  one; one version has one value.
- Glimpses: an eventually consistent read may be stale, but returns only what somebody wrote.
- Pages are in order, each key once, and within their range.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from merganser.model.register import Version
from merganser.sim.checkers.linearizable import Add, CompareAndSet, Operation, Put, Read, flaws, number_in
from merganser.sim.checkers.serializable import anomalies
from merganser.sim.history import History
from merganser.sim.item_history import Glimpse, Heard, Page, QueryPage
from merganser.storage import keys


def items_that_are_no_registers(history: History) -> Iterator[str]:
    """Yield a sentence for each item whose operations nothing explains."""
    operations = history.items.operations
    names = sorted({operation.key for operation in operations})
    read = [operation for page in history.items.pages if page.is_consistent for operation in _reads(page, names)]
    queried = [operation for page in history.items.queries if page.is_consistent for operation in _told_of(page, names)]
    yield from flaws([*operations, *read, *queried])


def _reads(page: Page, names: list[bytes]) -> Iterator[Operation]:
    found = dict(page.rows)
    for key in names:
        if page.low <= key < page.high:
            yield Operation(key, Read(found.get(key)), page.began_s, page.ended_s)


def _told_of(page: QueryPage, names: list[bytes]) -> Iterator[Operation]:
    found: dict[bytes, bytes | None] = {}
    if page.whole is not None:
        found = {key: None for key in names if key.startswith(page.whole)}
    found.update((keys.row_of(entry), value) for entry, value in page.rows)
    for key, value in found.items():
        yield Operation(key, Read(value), page.began_s, page.ended_s)


def lists_that_are_not_serial(history: History) -> Iterator[str]:
    """Yield a sentence for each anomaly of transactions over lists."""
    return anomalies(history.items.transactions)


def versions_that_fell(history: History) -> Iterator[str]:
    """Yield a sentence for each answer about a version that a later one of its item must not be about."""
    by_key: dict[bytes, list[Heard]] = {}
    for heard in history.items.heard:
        by_key.setdefault(heard.key, []).append(heard)
    for of_key in by_key.values():
        if not history.items.has_transactions:
            yield from _ambiguous(of_key)
        newest: Heard | None = None
        ended = sorted(of_key, key=lambda heard: heard.ended_s)
        for heard in sorted(of_key, key=lambda heard: heard.began_s):
            while ended and ended[0].ended_s < heard.began_s:
                first = ended.pop(0)
                newest = first if newest is None or first.version > newest.version else newest
            if newest is not None and _is_behind(heard, newest):
                yield f"{_told(heard)}, though before {_told(newest)}"


def _is_behind(heard: Heard, earlier: Heard) -> bool:
    """Tell whether ``heard``, which began after ``earlier`` had ended, is about too early a version."""
    if heard.has_written:
        return heard.version <= earlier.version
    is_forgotten = heard.value is None  # of an item that is deleted nothing is left in the end
    return heard.version < earlier.version and not is_forgotten


def _ambiguous(of_key: list[Heard]) -> Iterator[str]:
    values: dict[Version, Heard] = {}
    for heard in of_key:
        other = values.setdefault(heard.version, heard)
        if other.value != heard.value:
            yield f"one version, two values: {_told(heard)}, and {_told(other)}"


def _told(heard: Heard) -> str:
    what = "a write made" if heard.has_written else "a read found"
    when = f"from {heard.began_s:.4f} to {heard.ended_s:.4f} s"
    return f"{when} {what} {heard.key!r} {heard.value!r} of {tuple(heard.version)}"


def glimpses_of_nothing_written(history: History) -> Iterator[str]:
    """Yield a sentence for each eventually consistent read that returned what nobody wrote."""
    if history.items.has_transactions or history.items.has_others:
        return  # of what those wrote, only they know
    written: dict[bytes, list[Operation]] = {}
    for operation in history.items.operations:
        written.setdefault(operation.key, []).append(operation)
    for record in history.items.expirables:
        if record.is_write:
            operation = Operation(record.key, Put(record.value), record.began_s)
            written.setdefault(record.key, []).append(operation)
    looks = [
        *history.items.glimpses,
        *(
            Glimpse(key, value, page.began_s, page.ended_s)
            for page in history.items.pages
            if not page.is_consistent
            for key, value in page.rows
        ),
        *(
            Glimpse(keys.row_of(entry), value, page.began_s, page.ended_s)
            for page in history.items.queries
            if not page.is_consistent
            for entry, value in page.rows
        ),
    ]
    for look in looks:
        if look.value is not None and not _may_be_seen(look, written.get(look.key, [])):
            when = f"from {look.began_s:.4f} to {look.ended_s:.4f} s"
            yield f"from nowhere: an eventually consistent read {when} found {look.key!r} {look.value!r}"


def _may_be_seen(look: Glimpse, operations: list[Operation]) -> bool:
    has_adds = False
    for operation in operations:
        if operation.began_s > look.ended_s:
            continue
        match operation.action:
            case Put(value) | CompareAndSet(_, value) if value == look.value:
                return True
            case Add():
                has_adds = True
    return has_adds and number_in(look.value) is not None


def pages_out_of_order(history: History) -> Iterator[str]:
    """Yield a sentence for each page of a range that came out of order or left its range."""
    for page in history.items.pages:
        listed = [key for key, _ in page.rows]
        ascending = listed[::-1] if page.is_reverse else listed
        when = f"a page (reverse={page.is_reverse}) from {page.began_s:.4f} to {page.ended_s:.4f} s"
        if not all(one < other for one, other in pairwise(ascending)):
            yield f"{when} came out of order, or told one key twice"
        if any(not page.low <= key < page.high for key in listed):
            yield f"{when} left its range"
