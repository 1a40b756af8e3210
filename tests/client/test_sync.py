"""What programs without asyncio are given is what those with asyncio have."""

from __future__ import annotations

import gc
import inspect
import sys
import threading

import pytest

from merganser.client import Client, ClosedError, SyncClient, blocking, crdts, sync, tables
from merganser.client.blocking import Blocking, Runner

PAIRS: dict[type, type] = {
    Client: SyncClient,
    tables.ValueTable: sync.SyncValueTable,
    **{
        kind: getattr(sync, f"Sync{kind.__name__}", sync.SyncFlag)
        for kind in vars(crdts).values()
        if isinstance(kind, type) and issubclass(kind, crdts.Handle | crdts.Crdt) and kind is not crdts.Handle
    },
}
WITHOUT = {"absent", "type", "name", "epoch", "hedges", "repeats", "replicas"}
"""What is nothing to wait for, and tells of the client or for it."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - WITHOUT


@pytest.mark.parametrize("kind", PAIRS, ids=lambda kind: kind.__name__)
def test_each_method_is_there_with_the_same_arguments(kind: type) -> None:
    waiting = PAIRS[kind]
    assert public(waiting) == public(kind)
    for name in public(kind):
        theirs, ours = getattr(kind, name), getattr(waiting, name)
        assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys(), name
        assert not inspect.iscoroutinefunction(ours)
        assert (ours.__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".") in (theirs.__doc__ or "")
    assert inspect.signature(SyncClient).parameters.keys() == inspect.signature(Client).parameters.keys()


class Numbers:
    """Something asynchronous."""

    async def doubled(self, number: int) -> int:
        return 2 * number

    async def up_to(self, end: int):  # type: ignore[no-untyped-def]
        self.has_ended = False
        try:
            for number in range(end):
                self.last = number
                yield number
        finally:
            self.has_ended = True


class SyncNumbers(Blocking[Numbers]):
    doubled = blocking.waiting(Numbers.doubled)
    up_to = blocking.one_by_one(Numbers.up_to)


def test_one_waits_on_another_thread_which_ends() -> None:
    runner = Runner()
    numbers = SyncNumbers(runner, Numbers())
    with pytest.raises(ClosedError, match="the client is not open"):
        numbers.doubled(1)
    before = threading.active_count()
    runner.start()
    try:
        assert numbers.doubled(4) == 8
        assert list(numbers.up_to(200)) == list(range(200))
        some = numbers.up_to(10**9)
        assert [next(some), next(some)] == [0, 1]
        some.close()  # type: ignore[attr-defined]
        assert numbers._of.last < 1000, "nobody asks for more than is wanted, but for what comes with it"
        with pytest.raises(ClosedError, match="cannot use the client that calls them"):
            runner.run(_asking(numbers))
    finally:
        runner.stop()
    assert threading.active_count() == before


def test_an_iterator_that_was_left_early_says_nothing_when_its_client_is_closed_before_it() -> None:
    runner = Runner()
    numbers = SyncNumbers(runner, Numbers())
    complaints: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda raised: complaints.append(raised.exc_value)
    try:
        runner.start()
        some = numbers.up_to(10**9)
        assert next(some) == 0
        runner.stop()
        assert numbers._of.has_ended
        del some
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert complaints == []


def _asking(numbers: SyncNumbers):  # type: ignore[no-untyped-def]
    async def ask() -> int:
        return numbers.doubled(1)

    return ask
