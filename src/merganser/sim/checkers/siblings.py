"""No put is lost without being overwritten by one that saw it, and what a put has seen does not stand beside it.

Puts of one key make a graph: from each value to those that were put by clients who had seen it. Only what a context has
seen by its client's own account counts: the client knows of fewer values than the context, never of more.

- *Kept*: of each put that was acknowledged, or read, before a read began, the read returns the value, or one that
  was put by somebody who had seen it, and so on. A chain may end with a delete.
- *Replaced*: a read returns no value that an acknowledged put, or one that was read, had seen before it began.
- *Origin*: a read returns no value that nobody put, or that was refused.
- *Carts*: a cart is never without an item that an acknowledged put has added, as long as nobody takes any out.

All at QUORUM, so that reads meet puts, and one another.

Source: DeCandia 2007 §4.4, §6.3 (divergent versions); Almeida 2014 §2 (no lost updates, no false concurrency).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merganser.sim.history import History, ValuePut, ValuesRead


def lost_siblings(history: History) -> Iterator[str]:
    """Yield a sentence for each read that breaks a promise above."""
    if history.last_write_wins:
        return
    for key in sorted({read.key for read in history.value_reads}):
        puts = {put.value: put for put in history.value_puts if put.key == key}
        reads = [read for read in history.value_reads if read.key == key]
        yield from _Judge(puts, reads).sentences()


class _Judge:
    def __init__(self, puts: dict[bytes, ValuePut], reads: list[ValuesRead]) -> None:
        self._puts = puts
        self._reads = reads
        self._successors: dict[bytes, list[bytes]] = {}
        for put in puts.values():
            if not put.is_certainly_unwritten:
                for seen in put.seen:
                    self._successors.setdefault(seen, []).append(put.value)

    def sentences(self) -> Iterator[str]:
        first_read = self._first_reads()
        for read in self._reads:
            yield from self._from_nowhere(read)
            before = [
                put
                for put in self._puts.values()
                if min(_or_never(put.acked_s), first_read.get(put.value, _NEVER)) < read.began_s
            ]
            yield from self._lost(read, before)
            yield from self._not_replaced(read, before)
            yield from self._items_missing(read, before)

    def _first_reads(self) -> dict[bytes, float]:
        """Return when each value had been read for the first time."""
        found: dict[bytes, float] = {}
        for read in self._reads:
            for value in read.values:
                found[value] = min(read.ended_s, found.get(value, _NEVER))
        return found

    def _from_nowhere(self, read: ValuesRead) -> Iterator[str]:
        for value in sorted(read.values):
            put = self._puts.get(value)
            if put is None or put.is_delete or put.is_certainly_unwritten or put.began_s > read.ended_s:
                yield f"from nowhere: {_told(read)}, and {value!r} was not put"

    def _lost(self, read: ValuesRead, before: Iterable[ValuePut]) -> Iterator[str]:
        for put in before:
            if not self._lives_on(put, read):
                yield f"lost: {_told(read)}, and nobody who had seen {put.value!r} of client {put.client} replaced it"

    def _lives_on(self, put: ValuePut, read: ValuesRead) -> bool:
        """Tell whether ``read`` shows what has become of ``put``."""
        looked_at, left = {put.value}, [put.value]
        while left:
            value = left.pop()
            if value in read.values or self._puts[value].is_delete:
                return True
            new = [other for other in self._successors.get(value, ()) if other not in looked_at]
            looked_at.update(new)
            left += [other for other in new if self._puts[other].began_s < read.ended_s]
        return False

    def _not_replaced(self, read: ValuesRead, before: Iterable[ValuePut]) -> Iterator[str]:
        for put in before:
            for value in sorted(read.values & put.seen):
                yield f"not replaced: {_told(read)}, though {put.value!r} was put in the place of {value!r}"

    def _items_missing(self, read: ValuesRead, before: Iterable[ValuePut]) -> Iterator[str]:
        if any(put.is_delete for put in self._puts.values()):
            return
        shown = frozenset[str]().union(*(self._puts[value].items for value in read.values if value in self._puts))
        missing = sorted({item for put in before for item in put.items} - shown)
        if missing:
            yield f"items lost: {_told(read)}, a cart without {', '.join(missing)}"


_NEVER = float("inf")


def _or_never(moment_s: float | None) -> float:
    return _NEVER if moment_s is None else moment_s


def _told(read: ValuesRead) -> str:
    when = f"from {read.began_s:.4f} to {read.ended_s:.4f} s"
    return f"a read of {read.key!r} {when} returned {sorted(read.values)}"
