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
