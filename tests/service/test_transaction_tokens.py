"""Tokens of clients: a repeated request is done once, and any other under the token is refused."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.transaction import KEPT_S
from merganser.model.errors import (
    IdempotentParameterMismatchError,
    TransactionCanceledError,
    TransactionInProgressError,
)
from merganser.model.transaction import (
    Commit,
    Forget,
)
from merganser.service.ledger_sweep import SCAN_S
from merganser.service.transaction_recovery import PATIENCE_S
from merganser.service.transactions import TransactItem
from service.transactions_by_hand import LATE_S, TIMEOUT_S, Fault, Node, Stage, failing, now_s, play, staged


@staged()
async def test_a_token_makes_a_repeated_request_happen_once(stage: Stage) -> None:
    other = Node(stage)
    assert await stage.leader.write((b"a", b"+x"), token=b"t") == [b""]
    assert await other.write((b"a", b"+x"), token=b"t") == [b""]
    await stage.leader.transactions.idle()
    assert await other.write((b"a", b"+x"), token=b"t") == [b""]
    assert stage.value(b"a") == b"x"


@staged()
async def test_a_token_is_good_for_one_request(stage: Stage) -> None:
    await stage.leader.write((b"a", b"+x"), token=b"t")
    with pytest.raises(IdempotentParameterMismatchError):
        await stage.leader.write((b"a", b"+y"), token=b"t", digest=b"other")
    assert await stage.leader.write((b"a", b"+z"), token=b"u", digest=b"other") == [b"x"]


@staged()
async def test_a_token_is_forgotten_ten_minutes_after_the_transaction(stage: Stage) -> None:
    await stage.leader.write((b"a", b"+x"), token=b"t")
    await stage.leader.transactions.idle()
    sweeping = asyncio.create_task(stage.sweep.run())
    await asyncio.sleep(KEPT_S)
    assert await stage.leader.write((b"a", b"+x"), token=b"t") == [b""]
    await asyncio.sleep(3 * SCAN_S)
    sweeping.cancel()
    await stage.leader.write((b"a", b"+y"), token=b"t", digest=b"other")
    assert await stage.leader.look(b"a") == b"xy"


@staged()
async def test_a_token_whose_transaction_is_under_way_is_refused(stage: Stage) -> None:
    dead = Node(stage, failing(Commit, Fault.DIES_BEFORE))
    lost = asyncio.create_task(dead.write((b"a", b"+x"), token=b"t"))
    await asyncio.sleep(0.1)
    with pytest.raises(TransactionInProgressError):
        await stage.leader.write((b"a", b"+x"), token=b"t")
    await asyncio.sleep(PATIENCE_S)  # who tries again after that ends it
    await stage.leader.write((b"a", b"+x"), token=b"t")
    assert await stage.leader.look(b"a") == b"x"
    lost.cancel()


@staged()
async def test_a_cancelled_transaction_may_be_tried_again_under_its_token(stage: Stage) -> None:
    with pytest.raises(TransactionCanceledError):
        await stage.leader.write((b"a", b"?x"), (b"b", b"+y"), token=b"t")
    stage.plant(b"a", b"x")
    await stage.leader.write((b"a", b"?x"), (b"b", b"+y"), token=b"t")
    await stage.leader.transactions.idle()
    assert stage.value(b"b") == b"y"
    assert stage.locks() == []


@staged()
async def test_a_token_whose_tables_are_all_gone_is_good_for_another_request(stage: Stage) -> None:
    item = TransactItem(stage.dropped, stage.key(b"a", stage.dropped), b"+x")
    await stage.leader.transactions.write([item], token=b"t", digest=b"old", deadline=now_s() + TIMEOUT_S)
    await stage.leader.transactions.idle()
    with pytest.raises(IdempotentParameterMismatchError):
        await stage.leader.write((b"a", b"+y"), token=b"t")
    stage.drop(stage.dropped)
    await stage.leader.write((b"a", b"+y"), token=b"t")
    await stage.leader.write((b"a", b"+y"), token=b"t")
    assert await stage.leader.look(b"a") == b"y"


@staged()
async def test_a_token_one_of_whose_tables_is_left_is_that_of_its_transaction(stage: Stage) -> None:
    both = [TransactItem(table, stage.key(b"a", table), b"+x") for table in (stage.dropped, stage.table)]
    await stage.leader.transactions.write(both, token=b"t", digest=b"two", deadline=now_s() + TIMEOUT_S)
    await stage.leader.transactions.idle()
    stage.drop(stage.dropped)
    with pytest.raises(IdempotentParameterMismatchError):
        await stage.leader.write((b"a", b"+y"), token=b"t")
    assert await stage.leader.look(b"a") == b"x"


@staged()
async def test_what_a_dead_coordinator_began_on_a_table_that_is_gone_is_ended_before_its_token_is_used_again(
    stage: Stage,
) -> None:
    dead = Node(stage, failing(Commit, Fault.DIES_BEFORE))
    item = TransactItem(stage.dropped, stage.key(b"a", stage.dropped), b"+x")
    work = dead.transactions.write([item], token=b"t", digest=b"old", deadline=now_s() + TIMEOUT_S)
    lost = asyncio.create_task(work)
    await asyncio.sleep(0.1)
    stage.drop(stage.dropped)
    with pytest.raises(TransactionInProgressError):
        await stage.leader.write((b"a", b"+y"), token=b"t")
    await asyncio.sleep(PATIENCE_S)
    await stage.leader.write((b"a", b"+y"), token=b"t")
    assert await stage.leader.look(b"a") == b"y"
    lost.cancel()


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.NEVER_DONE, Fault.ANSWER_LOST, Fault.LATE])
def test_a_record_of_tables_that_are_gone_is_forgotten_whatever_becomes_of_the_request(fault: Fault) -> None:
    async def script(stage: Stage) -> None:
        item = TransactItem(stage.dropped, stage.key(b"a", stage.dropped), b"+x")
        await stage.leader.transactions.write([item], token=b"t", digest=b"old", deadline=now_s() + TIMEOUT_S)
        await stage.leader.transactions.idle()
        stage.drop(stage.dropped)
        node = Node(stage, failing(Forget, fault))
        await node.write((b"a", b"+y"), token=b"t")
        await node.write((b"a", b"+y"), token=b"t")
        await node.transactions.idle()
        await asyncio.sleep(LATE_S)
        assert await stage.leader.look(b"a") == b"y"
        assert stage.records() == 1

    play(script)
