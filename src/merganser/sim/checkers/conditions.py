"""Puts and deletes that depend on something: what is done may be done, what is refused is refused for a reason.

Whoever decides reads the key at QUORUM in between, so it meets what was acknowledged before the put began, and nothing
that began after it had ended.

- *Modified*: none that was to find the key not modified is done although a put was acknowledged before it began that
  its context cannot have seen.
- *Matched*: none that was to find nothing is done although a value was acknowledged before it began that nobody can
  have deleted.
- *Refused*: none is refused for a change or a value that nobody can have made.
- *Both*: of two that were under way at once, both are not done if neither may be after the other. That is promised as
  long as all nodes agree on who decides: until the first fault of a run.

Once a purge has taken away what a delete left behind, nobody can tell any more that there was anything. So where there
are purges, nothing is said of keys that were deleted; nor then of what is refused as modified, because one replica
may still know of changes, long overwritten, that the others have purged.

A context knows more than its client can tell, never less: it may have seen whatever began before its client was told
(``as_of_s``).

Source: `service.conditional_puts`; RFC 9110 §13 (If-Match, If-None-Match), which such puts are named after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.model.contents import Condition
from merganser.sim.checkers.last_writes import comes_after
from merganser.sim.history import History, ValuePut


def conditions_not_kept(history: History) -> Iterator[str]:
    """Yield a sentence for each put that was done, or refused, against a promise above."""
    for key in sorted({put.key for put in history.value_puts if put.only_if is not None}):
        puts = [put for put in history.value_puts if put.key == key]
        yield from _Judge(history, puts).sentences()


class _Judge:
    def __init__(self, history: History, puts: Sequence[ValuePut]) -> None:
        self._conditional = [put for put in puts if put.only_if is not None]
        self._puts = [put for put in puts if not put.is_certainly_unwritten]
        self._deletes = [put for put in self._puts if put.is_delete]
        self._has_purges = history.has_purges
        self._is_last_write = history.last_write_wins
        self._agree_until_s = min((trouble.began_s for trouble in history.troubles), default=_NEVER)

    def sentences(self) -> Iterator[str]:
        for put in self._conditional:
            if put.acked_s is not None:
                yield from self._done(put, put.acked_s)
            elif put.is_refused:
                yield from self._refused(put)
        yield from self._both()

    def _done(self, put: ValuePut, acked_s: float) -> Iterator[str]:
        for other in self._puts:
            if other is put or other.acked_s is None or other.acked_s >= put.began_s:
                continue
            if not self._may_follow(put, other, until_s=acked_s):
                name = "modified" if put.only_if is Condition.NOT_MODIFIED else "matched"
                yield f"{name}: {_told(put)} was done, though {_told(other)} was acknowledged before"

    def _refused(self, put: ValuePut) -> Iterator[str]:
        if put.only_if is Condition.NONE_MATCH:
            reasons = [one for one in self._puts if not one.is_delete and not self._is_surely_gone(one, put)]
        elif self._has_purges:
            return
        else:
            reasons = [one for one in self._puts if one.value not in put.seen]
        if not any(one.began_s < put.ended_s for one in reasons):
            yield f"refused: {_told(put)} was, and nobody can have made a reason for it"

    def _both(self) -> Iterator[str]:
        done = [put for put in self._conditional if put.acked_s is not None and put.acked_s < self._agree_until_s]
        for at, one in enumerate(done):
            for other in done[at + 1 :]:
                assert one.acked_s is not None
                assert other.acked_s is not None
                is_at_once = other.began_s <= one.acked_s and one.began_s <= other.acked_s
                until_s = max(one.acked_s, other.acked_s)
                if (
                    is_at_once
                    and not self._may_follow(one, other, until_s=until_s)
                    and not self._may_follow(other, one, until_s=until_s)
                ):
                    yield f"both: {_told(one)} was done, and {_told(other)} at the same time"

    def _may_follow(self, put: ValuePut, other: ValuePut, *, until_s: float) -> bool:
        """Tell whether ``put`` may be done after ``other``, which it meets."""
        deletes = [one for one in self._deletes if one is not other and one is not put and one.began_s < until_s]
        if put.only_if is Condition.NOT_MODIFIED:
            if other.value in put.seen or other.began_s <= put.as_of_s:
                return True
            return self._has_purges and bool(deletes or other.is_delete)
        return other.is_delete or any(self._may_have_deleted(one, other) for one in deletes)

    def _may_have_deleted(self, delete: ValuePut, put: ValuePut) -> bool:
        """Tell whether ``delete`` may have taken away ``put``, or what took its place."""
        if self._is_last_write:
            return not comes_after(put, delete)
        return put.value in delete.seen or delete.as_of_s >= put.began_s

    def _is_surely_gone(self, put: ValuePut, asked: ValuePut) -> bool:
        """Tell whether ``asked`` must have met what took the place of ``put``."""
        return any(
            one.acked_s is not None
            and one.acked_s < asked.began_s
            and (comes_after(one, put) if self._is_last_write else put.value in one.seen)
            for one in self._puts
        )


_NEVER = float("inf")


def _told(put: ValuePut) -> str:
    what = "a delete" if put.is_delete else "a put"
    if put.only_if is not None:
        what += f" if {put.only_if.value}"
    acked = "" if put.acked_s is None else f" to {put.acked_s:.4f}"
    return f"{what} of {put.key!r}, {put.value!r} of client {put.client} from {put.began_s:.4f}{acked} s"
