"""What the refusals of all replicas say about a write."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.core.quorum import Verdict
from merganser.model.errors import PeerLostError, PeerUnreachableError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply
from merganser.service.asking import Writing
from merganser.sim.loop import SimulatedLoop


def is_unwritten(*errors: Exception) -> bool:
    """Let each of as many replicas fail with one of ``errors``."""

    async def script() -> bool:
        loop = asyncio.get_running_loop()
        replicas = [NodeId(str(number)) for number in range(len(errors))]
        writing = Writing(replicas, required=1)
        for replica, error in zip(replicas, errors, strict=True):
            future: asyncio.Future[Reply] = loop.create_future()
            future.set_exception(error)
            writing.watch(replica, future)
        assert await writing.settled(loop.time() + 1) is Verdict.HOPELESS
        return writing.is_certainly_unwritten

    return SimulatedLoop(random.Random(1)).run(script())


@pytest.mark.parametrize(
    "code", ["no_such_table", "not_a_replica", "fresh_node", "clock_skew", "corruption", "unavailable", "overloaded"]
)
def test_refusals_that_come_before_a_write_leave_nothing_written(code: str) -> None:
    assert is_unwritten(RefusedError(code, ""), PeerUnreachableError(""))


@pytest.mark.parametrize("code", ["storage_failed", "internal", "reply_too_large", "a code of a later release"])
def test_any_other_refusal_leaves_the_outcome_unknown(code: str) -> None:
    assert not is_unwritten(RefusedError(code, ""), PeerUnreachableError(""))


def test_a_lost_peer_leaves_the_outcome_unknown() -> None:
    assert not is_unwritten(PeerLostError(""), PeerUnreachableError(""))


def test_the_last_refusal_is_waited_for_when_all_others_wrote_nothing() -> None:
    async def script() -> None:
        loop = asyncio.get_running_loop()
        replicas = [NodeId(str(number)) for number in range(3)]
        writing = Writing(replicas, required=2)
        futures: list[asyncio.Future[Reply]] = [loop.create_future() for _ in replicas]
        for replica, future in zip(replicas, futures, strict=True):
            writing.watch(replica, future)
        for future in futures[:2]:
            future.set_exception(RefusedError("overloaded", ""))
        assert await writing.settled(loop.time() + 1) is Verdict.HOPELESS
        assert not writing.is_certainly_unwritten
        loop.call_later(0.05, futures[2].set_exception, RefusedError("overloaded", ""))
        await writing.hear_the_rest(loop.time() + 1)
        assert writing.is_certainly_unwritten
        assert loop.time() < 0.06

    SimulatedLoop(random.Random(1)).run(script())


@pytest.mark.parametrize("deadline_s", [0.01, 10.0])
def test_a_silent_replica_is_waited_for_a_moment_only(deadline_s: float) -> None:
    async def script() -> None:
        loop = asyncio.get_running_loop()
        writing = Writing([NodeId("0"), NodeId("1")], required=2)
        refused: asyncio.Future[Reply] = loop.create_future()
        writing.watch(NodeId("0"), refused)
        refused.set_exception(RefusedError("overloaded", ""))
        assert await writing.settled(loop.time() + 1) is Verdict.HOPELESS
        await writing.hear_the_rest(loop.time() + deadline_s)
        assert loop.time() == pytest.approx(min(deadline_s, 0.1))
        assert not writing.is_certainly_unwritten

    SimulatedLoop(random.Random(1)).run(script())
