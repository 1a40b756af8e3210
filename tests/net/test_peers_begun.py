"""Requests of peers that are begun without a task: at once, by a future, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import InvariantError, PeerLostError, RefusedError, TableNotFoundError
from merganser.model.ids import NodeId
from merganser.model.messages import Found, Read, Reply, Request
from merganser.net.limits import PeerLimits
from net.peers_by_hand import ANN, BEN, LONG_S, SOON_S, Run, ann_and_ben, never, read, until


class Promising:
    """Begins each request with a future, which the test ends."""

    def __init__(self) -> None:
        self.futures: dict[bytes, asyncio.Future[Reply]] = {}

    def begin(self, _sender: NodeId, request: Request) -> asyncio.Future[Reply]:
        assert isinstance(request, Read)
        future = self.futures[request.key] = asyncio.get_running_loop().create_future()
        return future


def test_what_is_answered_at_once_is_no_affair_of_the_handlers(run: Run) -> None:
    def at_once(sender: NodeId, request: Request) -> Reply | None:
        assert isinstance(request, Read)
        return Found(sender.encode()) if request.key == b"here" else None

    async def there(_sender: NodeId, request: Request) -> Reply:
        assert isinstance(request, Read)
        assert request.key != b"here"
        return Found(b"from the handler")

    async def scenario() -> None:
        async with ann_and_ben(there, begin=at_once) as (ann, ben):
            asked = [ann.request(BEN, read(key), timeout_s=LONG_S) for key in (b"here", b"there", b"here")]
            here, other, again = await asyncio.gather(*asked)
            assert here == again == Found(ANN.encode())
            assert other == Found(b"from the handler")
            assert not ben._server.serving

    run(scenario())


def test_a_future_is_answered_when_it_ends_whatever_ends_first(run: Run) -> None:
    async def scenario() -> None:
        promising = Promising()
        async with ann_and_ben(never, begin=promising.begin) as (ann, ben):
            first, second = (ann.request(BEN, read(key), timeout_s=LONG_S) for key in (b"1", b"2"))
            await until(lambda: len(promising.futures) == 2)
            promising.futures[b"2"].set_result(Found(b"two"))
            assert await second == Found(b"two")
            assert not first.done()
            promising.futures[b"1"].set_result(Found(b"one"))
            assert await first == Found(b"one")
            assert not ben._server.serving

    run(scenario())


def test_a_failure_is_told_whether_it_comes_at_once_or_later(run: Run) -> None:
    bugs: list[BaseException] = []

    def raises(_sender: NodeId, request: Request) -> Reply:
        assert isinstance(request, Read)
        raise InvariantError("a bug") if request.key == b"bug" else TableNotFoundError("no such table")

    async def scenario() -> None:
        async with ann_and_ben(never, begin=raises, on_error=bugs.append) as (ann, _):
            for key, code in (b"k", "table_not_found"), (b"bug", "internal"):
                with pytest.raises(RefusedError) as refused:
                    await ann.request(BEN, read(key), timeout_s=LONG_S)
                assert refused.value.code == code
        promising = Promising()
        async with ann_and_ben(never, begin=promising.begin, on_error=bugs.append) as (ann, _):
            for key, error, code in (
                (b"1", TableNotFoundError("no such table"), "table_not_found"),
                (b"2", ValueError("a bug"), "internal"),
            ):
                asked = ann.request(BEN, read(key), timeout_s=LONG_S)
                await until(lambda key=key: key in promising.futures)  # type: ignore[misc]
                promising.futures[key].set_exception(error)
                with pytest.raises(RefusedError) as refused:
                    await asked
                assert refused.value.code == code

    run(scenario())
    assert [str(bug) for bug in bugs] == ["a bug", "a bug"]


def test_a_future_whose_time_is_up_is_cancelled_and_makes_room(run: Run) -> None:
    async def scenario() -> None:
        promising = Promising()
        limits = PeerLimits(requests_served_max=1)
        async with ann_and_ben(never, begin=promising.begin, server_limits=limits) as (ann, ben):
            warm = ann.request(BEN, read(b"warm"), timeout_s=LONG_S)
            await until(lambda: b"warm" in promising.futures)
            promising.futures[b"warm"].set_result(Found(None))
            await warm
            late = ann.request(BEN, read(b"late"), timeout_s=SOON_S)
            next_one = ann.request(BEN, read(b"next"), timeout_s=LONG_S)
            with pytest.raises(PeerLostError):
                await late
            await until(lambda: b"next" in promising.futures)
            assert promising.futures[b"late"].cancelled()
            promising.futures[b"next"].set_result(Found(b"served"))
            assert await next_one == Found(b"served")
            assert not ben._server.serving

    run(scenario())


def test_a_server_that_closes_cancels_what_it_has_promised(run: Run) -> None:
    async def scenario() -> None:
        promising = Promising()
        async with ann_and_ben(never, begin=promising.begin) as (ann, ben):
            asked = ann.request(BEN, read(), timeout_s=LONG_S)
            await until(lambda: bool(promising.futures))
            await ben.close()
            assert promising.futures[b"k"].cancelled()
            with pytest.raises(PeerLostError):
                await asked

    run(scenario())
