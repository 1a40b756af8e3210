"""Transactions that read: several items as they are at one instant."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import (
    TransactionCanceledError,
)
from merganser.model.transaction import (
    Reason,
    ReasonKind,
)
from service.transaction_histories import torn_reads
from service.transactions_by_hand import Node, Stage, now_s, staged

CONFLICT = Reason(ReasonKind.CONFLICT)


@staged()
async def test_reads_of_several_items_show_one_instant(stage: Stage) -> None:
    is_over = False

    async def write() -> None:
        node = Node(stage)
        number = 0
        while not is_over:
            number += 1
            try:
                await node.write((b"a", b"=%d" % number), (b"b", b"=%d" % number))
            except TransactionCanceledError:
                pass
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(write())
    values = []
    for _ in range(100):
        try:
            values.append(tuple(await stage.leader.get(b"a", b"b")))
        except TransactionCanceledError:
            continue
    is_over = True
    await writing
    assert all(a == b for a, b in values)
    assert len(set(values)) > 20


def test_a_commit_between_two_rounds_of_reads_is_noticed_though_no_version_changes() -> None:
    """Its coordinator dies before it applies anything, so that the items stay as they are."""
    assert torn_reads() == []


@staged()
async def test_items_that_never_rest_are_a_conflict_of_the_reading_transaction(stage: Stage) -> None:
    async def write() -> None:
        while True:
            await stage.change(stage.table, stage.key(b"a"), 0, b"+x", now_s() + 1)
            await asyncio.sleep(0.0001)

    writing = asyncio.create_task(write())
    with pytest.raises(TransactionCanceledError) as caught:
        await stage.leader.get(b"b", b"a")
    assert caught.value.reasons == (None, CONFLICT)
    writing.cancel()
