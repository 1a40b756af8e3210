"""Transactions: coordinated, recovered and swept, while requests fail and coordinators die between any two steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from merganser.core.transaction import ITEMS_MAX
from merganser.model.errors import (
    RequestError,
    TransactionCanceledError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.register import Intent
from merganser.model.transaction import (
    Abort,
    Apply,
    Begin,
    Clear,
    Commit,
    Finish,
    Forget,
    Prepare,
    Reason,
    ReasonKind,
    State,
)
from merganser.service.ledger_sweep import LEFT_BEHIND_S, SCAN_S
from merganser.service.transaction_recovery import PATIENCE_S
from service.transaction_histories import unexplained
from service.transactions_by_hand import Fault, Node, Stage, failing, now_s, play, staged

CONFLICT = Reason(ReasonKind.CONFLICT)
SEEDS = 40


@staged()
async def test_all_items_are_changed_and_the_steps_answer(stage: Stage) -> None:
    stage.plant(b"a", b"1")
    stage.plant(b"c", b"3")
    answers = await stage.leader.write((b"a", b"+0"), (b"b", b"=2"), (b"c", b"~"))
    assert answers == [b"1", b"", b"3"]
    assert await stage.leader.get(b"a", b"b", b"c") == [b"10", b"2", None]


@staged()
async def test_nothing_is_left_of_a_transaction_without_a_token(stage: Stage) -> None:
    await stage.leader.write((b"a", b"=1"), (b"b", b"=2"))
    await stage.leader.transactions.idle()
    assert stage.locks() == []
    assert stage.records() == 0


@staged()
async def test_a_transaction_of_n_items_takes_three_steps_on_the_ledger_and_two_on_each_item(stage: Stage) -> None:
    await stage.leader.write(*[(b"%d" % number, b"=x") for number in range(7)])
    answered = Counter(type(step) for step in stage.steps)
    assert answered[Begin] == answered[Commit] == 1
    assert answered[Prepare] == 7
    await stage.leader.transactions.idle()
    assert Counter(type(step) for step in stage.steps) == {Begin: 1, Prepare: 7, Commit: 1, Apply: 7, Forget: 1}
    assert stage.leader.requests == 17


@staged()
async def test_one_rejected_step_keeps_all_from_happening_and_each_item_says_why(stage: Stage) -> None:
    stage.plant(b"c", b"3")
    with pytest.raises(TransactionCanceledError) as caught:
        await stage.leader.write((b"a", b"=1"), (b"b", b"?x"), (b"c", b"?y"))
    assert caught.value.reasons == (
        None,
        Reason(ReasonKind.REJECTED, b""),
        Reason(ReasonKind.REJECTED, b"3"),
    )
    assert caught.value.answers == (b"", None, None)
    await stage.leader.transactions.idle()
    assert await stage.leader.get(b"a", b"b", b"c") == [None, None, b"3"]
    assert stage.locks() == []
    assert stage.records() == 0


@staged()
async def test_a_check_locks_its_item_and_leaves_it_as_it_is(stage: Stage) -> None:
    stage.plant(b"a", b"1")
    item = stage.leader.item(b"a", b"=2", is_check=True)
    other = stage.leader.item(b"b", b"?")
    await stage.leader.transactions.write([item, other], deadline=now_s() + 1)
    assert len(stage.locks()) == 2
    await stage.leader.transactions.idle()
    assert (stage.value(b"a"), stage.value(b"b")) == (b"1", None)


@staged()
async def test_a_step_that_makes_no_sense_is_an_error_of_the_request_and_nothing_happens(stage: Stage) -> None:
    with pytest.raises(RequestError, match="no such action"):
        await stage.leader.write((b"a", b"=1"), (b"b", b"!"))
    await stage.leader.transactions.idle()
    assert stage.value(b"a") is None
    assert stage.locks() == []


@staged()
async def test_a_hundred_items_at_once(stage: Stage) -> None:
    names = [b"%d" % number for number in range(ITEMS_MAX)]
    await stage.leader.write(*[(name, b"=x") for name in names])
    assert await stage.leader.get(*names) == [b"x"] * ITEMS_MAX


@staged()
async def test_an_item_that_an_undecided_transaction_holds_is_a_conflict(stage: Stage) -> None:
    dead = Node(stage, failing(Commit, Fault.DIES_BEFORE))
    lost = asyncio.create_task(dead.write((b"a", b"=1"), (b"b", b"=1")))
    await asyncio.sleep(0.1)
    with pytest.raises(TransactionCanceledError) as caught:
        await stage.leader.write((b"c", b"=2"), (b"b", b"=2"))
    assert caught.value.reasons == (None, CONFLICT)
    with pytest.raises(TransactionConflictError):
        await stage.leader.put(b"a", b"=3")
    assert await stage.leader.get(b"a", b"b", b"c") == [None, None, None]
    lost.cancel()


@staged()
async def test_transactions_that_collide_on_all_their_items_happen_one_after_the_other(stage: Stage) -> None:
    nodes = [Node(stage) for _ in range(6)]
    await asyncio.gather(*[node.write((b"a", b"+x"), (b"b", b"+y"), (b"c", b"+z")) for node in nodes])
    assert await stage.leader.get(b"a", b"b", b"c") == [b"x" * 6, b"y" * 6, b"z" * 6]
    assert any(isinstance(step, Abort) for step in stage.steps)
    for node in nodes:
        await node.transactions.close()


@staged()
async def test_no_lock_outlives_its_coordinator_for_those_who_need_the_item(stage: Stage) -> None:
    dead = Node(stage, failing(Commit, Fault.DIES_BEFORE))
    lost = asyncio.create_task(dead.write((b"a", b"=1"), (b"b", b"=1")))
    began = now_s()
    while True:
        await asyncio.sleep(0.1)
        try:
            await stage.leader.put(b"a", b"=2")
            break
        except TransactionConflictError:
            pass
    assert now_s() < began + PATIENCE_S + 0.5
    await stage.leader.write((b"a", b"+3"), (b"b", b"=3"))
    assert await stage.leader.get(b"a", b"b") == [b"23", b"3"]
    lost.cancel()


@staged()
async def test_a_committed_transaction_is_seen_at_once_on_all_its_items(stage: Stage) -> None:
    dead = Node(stage, failing(Apply, Fault.DIES_BEFORE))
    await dead.write((b"a", b"=1"), (b"b", b"=1"))
    await asyncio.sleep(0.1)
    assert (stage.value(b"a"), stage.value(b"b")) == (None, None)
    assert (await stage.leader.look(b"a"), await stage.leader.look(b"b")) == (b"1", b"1")
    assert await stage.leader.get(b"a", b"b") == [b"1", b"1"]
    assert await stage.leader.put(b"a", b"+2") == b"1"
    assert await stage.leader.write((b"b", b"+3"), (b"c", b"=3")) == [b"1", b""]
    await dead.transactions.close()


@staged()
async def test_a_coordinator_that_was_overtaken_finds_its_commit_refused(stage: Stage) -> None:
    hesitant = Node(stage)
    before = hesitant.ledger.change

    async def change(transaction_id: bytes, step: object, *, deadline: float) -> object:
        if isinstance(step, Commit):
            await asyncio.sleep(PATIENCE_S * 2)
        return await before(transaction_id, step, deadline=deadline)  # type: ignore[arg-type]

    hesitant.ledger.change = change  # type: ignore[method-assign, assignment]
    slow = asyncio.create_task(hesitant.write((b"a", b"=1"), (b"b", b"=1")))
    for _ in range(int(PATIENCE_S / 0.5) + 2):
        await asyncio.sleep(0.5)
        try:
            await stage.leader.put(b"b", b"=2")
        except TransactionConflictError:
            continue
    with pytest.raises(TransactionCanceledError) as caught:
        await slow
    assert caught.value.reasons == (CONFLICT, CONFLICT)
    assert caught.value.answers == (b"", b""), "both were locked for it"
    assert await stage.leader.get(b"a", b"b") == [None, b"2"]


@staged()
async def test_a_conflict_with_a_transaction_that_has_ended_is_none(stage: Stage) -> None:
    """An item that is still locked by a decided transaction is freed, and prepared."""
    dead = Node(stage, failing(Clear, Fault.DIES_BEFORE))
    with pytest.raises(TransactionCanceledError):
        await dead.write((b"a", b"=1"), (b"b", b"?no"))
    await asyncio.sleep(0.1)
    assert len(stage.locks()) == 1
    assert await stage.leader.write((b"a", b"=2"), (b"c", b"=2")) == [b"", b""]
    await dead.transactions.close()


@staged()
async def test_an_intent_that_the_ledger_knows_nothing_of_counts_for_nothing(stage: Stage) -> None:
    for name in (b"a", b"b", b"c"):
        stage.plant(name, b"old", Intent(b"?" * 16, 7, True, b"never"))
    assert await stage.leader.look(b"a") == b"old"
    assert await stage.leader.put(b"b", b"=1") == b"old"
    assert await stage.leader.write((b"c", b"=2"), (b"d", b"=2")) == [b"old", b""]
    await stage.leader.transactions.idle()
    assert stage.locks() == []


@staged()
async def test_a_preparation_that_comes_after_the_end_locks_nothing_for_long(stage: Stage) -> None:
    """Nor is it applied a second time, though its transaction is committed and its record is kept."""
    await stage.leader.write((b"a", b"=1"), token=b"t")
    await stage.leader.transactions.idle()
    late = next(step for step in stage.steps if isinstance(step, Prepare))
    await stage.leader.put(b"a", b"=2")
    stage.plant(b"a", b"2", Intent(late.transaction, late.attempt, True, b"1"))
    assert await stage.leader.look(b"a") == b"2"
    assert await stage.leader.put(b"a", b"+3") == b"2"


@staged()
async def test_a_commit_whose_answer_is_lost_is_found_out(stage: Stage) -> None:
    for fault in (Fault.ANSWER_LOST, Fault.NEVER_DONE, Fault.LATE, Fault.NOT_SENT):
        node = Node(stage, failing(Commit, fault, times=3))
        await node.write((b"a", b"+x"), (b"b", b"+x"))
        await node.transactions.idle()
    await asyncio.sleep(2)
    assert (stage.value(b"a"), stage.value(b"b")) == (b"xxxx", b"xxxx")
    assert stage.locks() == []


@staged()
async def test_a_commit_that_cannot_be_found_out_in_time_is_unknown(stage: Stage) -> None:
    lost = Node(stage, failing(Commit, Fault.ANSWER_LOST, times=1000))
    with pytest.raises(UnknownOutcomeError):
        await lost.write((b"a", b"=1"), (b"b", b"=1"), timeout_s=1.0)
    assert await stage.leader.get(b"a", b"b") == [b"1", b"1"]
    never = Node(stage, failing(Commit, Fault.NEVER_DONE, times=1000))
    with pytest.raises(UnknownOutcomeError):
        await never.write((b"c", b"=1"), (b"d", b"=1"), timeout_s=1.0)
    await never.transactions.idle()
    assert await stage.leader.get(b"c", b"d") == [None, None]
    assert stage.locks() == []


@staged()
async def test_a_commit_that_was_certainly_never_sent_is_unavailable_and_never_happens(stage: Stage) -> None:
    node = Node(stage, failing(Commit, Fault.NOT_SENT, times=1000))
    with pytest.raises(UnavailableError):
        await node.write((b"a", b"=1"), (b"b", b"=1"), timeout_s=1.0)
    await node.transactions.idle()
    assert await stage.leader.get(b"a", b"b") == [None, None]
    assert stage.locks() == []
    assert stage.records() == 0


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.NEVER_DONE, Fault.ANSWER_LOST, Fault.LATE])
def test_an_item_that_may_or_may_not_be_locked_is_given_up_and_freed(fault: Fault) -> None:
    async def script(stage: Stage) -> None:
        node = Node(stage, failing(Prepare, fault))
        with pytest.raises(UnavailableError):
            await node.write((b"a", b"=1"), (b"b", b"=1"))
        await node.transactions.idle()
        await asyncio.sleep(2)
        assert await stage.leader.get(b"a", b"b") == [None, None]
        assert await stage.leader.put(b"a", b"=2") == b""
        assert await stage.leader.put(b"b", b"=2") == b""

    play(script)


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.NEVER_DONE, Fault.ANSWER_LOST, Fault.LATE])
@pytest.mark.parametrize("kind", [Begin, Abort, Apply, Clear, Forget, Finish])
def test_every_other_step_may_fail_and_be_repeated(kind: type, fault: Fault) -> None:
    async def script(stage: Stage) -> None:
        node = Node(stage, failing(kind, fault, times=2))
        await node.write((b"a", b"+x"), (b"b", b"+x"))
        await node.write((b"a", b"+y"), (b"b", b"+y"), token=b"t")
        with pytest.raises(TransactionCanceledError):
            await node.write((b"a", b"+z"), (b"b", b"?no"))
        await node.transactions.idle()
        await asyncio.sleep(2)
        assert await stage.leader.get(b"a", b"b") == [b"xy", b"xy"]
        assert stage.locks() == []

    play(script)


@staged()
async def test_a_client_that_goes_away_leaves_no_locks_behind(stage: Stage) -> None:
    work = asyncio.create_task(stage.leader.write((b"a", b"=1"), (b"b", b"=1")))
    await asyncio.sleep(0.005)
    work.cancel()
    await asyncio.wait({work})
    await stage.leader.transactions.idle()
    assert await stage.leader.get(b"a", b"b") == [b"1", b"1"]
    assert stage.locks() == []


@staged()
async def test_the_sweep_ends_what_nobody_needs(stage: Stage) -> None:
    for kind in (Prepare, Commit, Apply, Forget):
        dead = Node(stage, failing(kind, Fault.DIES_BEFORE))
        lost = asyncio.create_task(dead.write((b"a" + kind.__name__.encode(), b"=1"), (b"b", b"+x")))
        await asyncio.sleep(0.1)
        lost.cancel()
        sweeping = asyncio.create_task(stage.sweep.run())
        await asyncio.sleep(LEFT_BEHIND_S + 3)
        sweeping.cancel()
        await dead.transactions.close()
        assert stage.locks() == []
    assert stage.value(b"b") == b"xx"  # the last two were committed
    assert stage.sweep.ended == 4
    sweeping = asyncio.create_task(stage.sweep.run())
    await asyncio.sleep(4 * SCAN_S)
    sweeping.cancel()
    assert stage.records() == 0


@staged()
async def test_the_sweep_finds_records_that_it_has_not_seen_being_opened(stage: Stage) -> None:
    dead = Node(stage, failing(Commit, Fault.DIES_AFTER))
    lost = asyncio.create_task(dead.write((b"a", b"=1"), (b"b", b"=1")))
    await asyncio.sleep(0.1)
    lost.cancel()
    stage.sweep._watched.clear()  # as of a node that leads only since then
    sweeping = asyncio.create_task(stage.sweep.run())
    await asyncio.sleep(LEFT_BEHIND_S + 4)
    sweeping.cancel()
    assert stage.locks() == []
    assert (stage.value(b"a"), stage.value(b"b")) == (b"1", b"1")


@staged()
async def test_the_items_of_a_table_that_is_gone_keep_nothing_from_ending(stage: Stage) -> None:
    await stage.leader.write((b"a", b"=1"), token=b"t")
    stage.drop(stage.table)
    await stage.leader.transactions.idle()
    table = stage.leader.ledger.known()
    assert table is not None
    record = await stage.leader.ledger.read(stage.steps[0].transaction, deadline=now_s() + 1)  # type: ignore[union-attr]
    assert record is not None
    assert record.state is State.COMMITTED
    assert record.is_finished


def died_at(request: int, fault: Fault) -> Callable[[Stage], Node]:
    def node_of(stage: Stage) -> Node:
        seen = [0]

        def faults(_payload: bytes | None) -> Fault | None:
            seen[0] += 1
            return fault if seen[0] == request + 1 else None

        return Node(stage, faults)

    return node_of


@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER])
@pytest.mark.parametrize("token", [None, b"token"])
def test_whenever_its_coordinator_dies_a_transaction_happens_as_a_whole_or_not_at_all(
    fault: Fault, token: bytes | None
) -> None:
    """All requests of the coordinator in turn: 1 begin, 3 prepares, 1 commit, 3 applies, 1 end."""
    happened = []
    for request in range(9):

        async def script(stage: Stage, request: int = request) -> None:
            for name in (b"a", b"b", b"c"):
                stage.plant(name, b"0")
            node = died_at(request, fault)(stage)
            work = asyncio.create_task(node.write((b"a", b"+1"), (b"b", b"+1"), (b"c", b"?0"), token=token))
            await asyncio.sleep(0.2)
            is_answered = work.done()
            work.cancel()
            before = await stage.leader.get(b"a", b"b", b"c")
            assert before in ([b"0", b"0", b"0"], [b"01", b"01", b"0"])
            assert before[0] == b"01" or not is_answered
            sweeping = asyncio.create_task(stage.sweep.run())
            await asyncio.sleep(LEFT_BEHIND_S + 4)
            sweeping.cancel()
            assert stage.locks() == []
            assert [stage.value(name) for name in (b"a", b"b", b"c")] == before
            await node.transactions.close()
            happened.append(before[0] == b"01")

        play(script)
    first_committed = happened.index(True)
    assert first_committed == (5 if fault is Fault.DIES_BEFORE else 4)
    assert all(happened[first_committed:])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_transactions_and_single_changes_are_strictly_serializable(seed: int) -> None:
    """While requests get lost and coordinators die; judged from outside, by what clients were answered."""
    assert unexplained(seed) == []
