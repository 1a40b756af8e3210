"""The coordinating side of leader-based tables, over peers that do as they are told."""

from __future__ import annotations

import asyncio
import gc

import pytest

from merganser.model.errors import (
    OverloadedError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    TableNotFoundError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.leader_messages import NOT_LEADING
from merganser.model.leadership import NO_EPOCH
from merganser.model.messages import Request
from merganser.service.leader_asking import INSIST_S, PATIENCE_S
from merganser.sim.loop import SimulatedLoop
from service.leaders_by_hand import (
    DELAY_S,
    DONE,
    Answer,
    Stage,
    in_turn,
    leading,
    never,
    not_leading,
    now_s,
    silent,
    staged,
)

# Finding the leader.


def _errors_left_over() -> list[BaseException]:
    """Return what failed so far without anybody looking."""
    gc.collect()  # which is when a future finds out that nobody did
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return loop.errors


@staged
async def test_how_a_question_ends_of_a_client_that_has_gone_troubles_nobody(stage: Stage) -> None:
    stage.leads(5, 1)
    stage.behave(never, not_leading(stage.epoch(6, 2)), never)
    client = asyncio.ensure_future(stage.read())
    await asyncio.sleep(DELAY_S / 2)
    client.cancel()
    await asyncio.wait({client})
    del client  # it knows where it was cancelled, and so the question
    await asyncio.sleep(DELAY_S)
    assert stage.asked == [1]
    assert _errors_left_over() == []


@staged
async def test_the_known_leader_is_asked_in_its_epoch(stage: Stage) -> None:
    stage.leads(5, 1)
    stage.behave(never, leading(stage.epoch(5, 1)), never)
    assert await stage.change() == DONE
    ((_, change),) = stage.transport.asked
    assert (change.key, change.kind, change.payload) == (stage.key, 0, b"payload")
    assert len(change.request) == 16


@staged
async def test_a_node_that_knows_nothing_learns_the_leader_from_a_refusal(stage: Stage) -> None:
    epoch = stage.epoch(2, 1)
    stage.behave(not_leading(epoch), leading(epoch), never)
    assert await stage.change() == DONE
    assert stage.asked == [0, 1]
    assert stage.leaders.known(stage.group) == epoch


@staged
async def test_the_leader_of_a_later_epoch_is_asked_at_once(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(not_leading(stage.epoch(2, 2)), never, leading(stage.epoch(2, 2)))
    assert await stage.change() == DONE
    assert now_s() < 0.01


@staged
async def test_when_the_leader_is_down_the_others_are_asked_until_one_takes_over(stage: Stage) -> None:
    stage.leads(1, 0)
    down, later = PeerUnreachableError("down"), stage.epoch(2, 1)

    def takes_over(request: Request) -> Answer:
        return leading(later)(request) if now_s() > 1.0 else RefusedError(NOT_LEADING, "", epoch=stage.epoch(1, 0))

    stage.behave(lambda _request: down, takes_over, takes_over)
    assert await stage.change() == DONE
    assert 1.0 < now_s() < 1.3
    assert len(stage.asked) < 40, "rounds come slower and slower"


@staged
async def test_without_a_leader_nothing_was_done_and_that_is_said_after_a_while(stage: Stage) -> None:
    stage.behave(*[lambda _request: PeerUnreachableError("down")] * 3)
    with pytest.raises(UnavailableError, match=r"no leader was found for partition \d: .*nothing was done"):
        await stage.change()
    assert now_s() == pytest.approx(PATIENCE_S, abs=0.01)


@staged
async def test_a_deadline_before_patience_is_over_ends_the_search(stage: Stage) -> None:
    stage.behave(silent, silent, silent)
    with pytest.raises(UnavailableError):
        await stage.change(timeout_s=0.6)
    assert now_s() == pytest.approx(0.6, abs=0.01)


@staged
async def test_who_does_not_lead_is_not_waited_for(stage: Stage) -> None:
    epoch = stage.epoch(1, 2)
    stage.behave(silent, not_leading(epoch), leading(epoch))
    assert await stage.change() == DONE
    assert now_s() < 0.3


@staged
async def test_a_replica_that_lacks_the_table_ends_the_search(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(lambda _request: RefusedError("no_such_table", "", map_epoch=2), never, never)
    with pytest.raises(TableNotFoundError):
        await stage.change()


@staged
async def test_a_replica_whose_map_is_behind_is_not_believed_that_the_table_is_gone(stage: Stage) -> None:
    stage.leads(1, 0)
    behind = RefusedError("no_such_table", "", map_epoch=1)
    stage.behave(in_turn(behind, DONE), lambda _request: behind, lambda _request: behind)
    assert await stage.change() == DONE


@staged
async def test_one_that_holds_no_replica_by_a_newer_map_is_asked_for_that_map(stage: Stage) -> None:
    epoch = stage.epoch(1, 2)
    moved = [RefusedError("not_a_replica", "", map_epoch=map_epoch) for map_epoch in (99, 0)]
    stage.behave(lambda _request: moved[0], lambda _request: moved[1], leading(epoch))
    asyncio.get_running_loop().call_later(0.01, stage.leads, 1, 2)
    assert await stage.change() == DONE
    assert set(stage.caught_up_with) == {stage.replicas[0]}


@staged
async def test_one_that_did_not_answer_is_asked_last_for_a_while(stage: Stage) -> None:
    nobody = not_leading(NO_EPOCH)
    stage.behave(lambda _request: PeerLostError("reset"), nobody, nobody)
    with pytest.raises(UnavailableError):
        await stage.change(timeout_s=0.1)
    assert (stage.asked[0], stage.asked[5]) == (0, 0)


@staged
async def test_waiting_for_an_election_says_nothing_about_how_busy_this_node_is(stage: Stage) -> None:
    stage.behave(*[not_leading(NO_EPOCH)] * 3)

    def elect() -> None:
        stage.leads(1, 0)
        stage.behave(leading(stage.epoch(1, 0)), never, never)

    asyncio.get_running_loop().call_later(1.0, elect)
    await stage.change()
    assert stage.coordinator.under_way.ended == 0
    await stage.change()
    assert stage.coordinator.under_way.ended == 1


# What a change came to.


@staged
async def test_a_change_that_was_lost_is_repeated_to_the_same_leader_with_the_same_id(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(in_turn(PeerLostError("reset"), PeerUnreachableError("reset"), DONE), never, never)
    assert await stage.change() == DONE
    first, *others = [request for _, request in stage.transport.asked]
    assert others == [first, first]


@staged
async def test_a_change_that_was_lost_is_never_done_by_another_leader(stage: Stage) -> None:
    stage.leads(1, 0)
    later = stage.epoch(2, 1)
    gone = RefusedError(NOT_LEADING, "deposed", epoch=later)
    stage.behave(in_turn(PeerLostError("reset"), gone), never, never)
    with pytest.raises(UnknownOutcomeError, match="deposed"):
        await stage.change()
    assert stage.leaders.known(stage.group) == later


@staged
async def test_a_leader_that_went_down_with_a_change_leaves_its_outcome_unknown(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(in_turn(PeerLostError("reset"), PeerUnreachableError("down")), never, never)
    with pytest.raises(UnknownOutcomeError, match="down"):
        await stage.change()
    assert now_s() == pytest.approx(INSIST_S, abs=0.06)


@staged
async def test_a_refusal_of_a_repeated_change_does_not_mean_that_it_was_not_done(stage: Stage) -> None:
    for refusal in (RefusedError("request", "no"), RefusedError("transaction_conflict", ""), UnavailableError("no")):
        stage.leads(1, 0)
        stage.behave(in_turn(PeerLostError("reset"), refusal), never, never)
        with pytest.raises(UnknownOutcomeError):
            await stage.change()


@staged
async def test_a_change_at_a_silent_leader_is_given_up_when_another_is_elected(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(silent, *[not_leading(stage.epoch(1, 0))] * 2)
    asyncio.get_running_loop().call_later(1.1, stage.leads, 2, 1)
    with pytest.raises(UnknownOutcomeError, match="leads no more"):
        await stage.change()
    assert now_s() < 1.8


@staged
async def test_a_change_that_only_those_lost_who_do_not_lead_is_done_by_the_leader(stage: Stage) -> None:
    stage.behave(lambda _request: PeerLostError("reset"), leading(NO_EPOCH), never)
    assert await stage.change() == DONE


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RefusedError("unknown_outcome", "too few acks"), UnknownOutcomeError),
        (RefusedError("storage_failed", "fsync"), UnknownOutcomeError),
        (RefusedError("a code of a later release", "strange"), UnknownOutcomeError),
        (RefusedError("transaction_conflict", "held"), TransactionConflictError),
        (RefusedError("request", "makes no sense"), RequestError),
        (RefusedError("overloaded", "full"), OverloadedError),
    ],
)
def test_what_the_leader_says_is_told(answer: RefusedError, expected: type[Exception]) -> None:
    @staged
    async def play(stage: Stage) -> None:
        stage.leads(1, 0)
        stage.behave(lambda _request: answer, never, never)
        with pytest.raises(expected, match=str(answer)):
            await stage.change()
        assert now_s() < 0.01

    play()


@staged
async def test_a_replica_with_too_much_to_do_keeps_nobody_from_the_leader(stage: Stage) -> None:
    epoch = stage.epoch(1, 2)
    full = RefusedError("overloaded", "full")
    stage.behave(lambda _request: full, not_leading(epoch), leading(epoch))
    assert await stage.change() == DONE


@staged
async def test_a_leader_that_cannot_now_is_asked_again(stage: Stage) -> None:
    stage.leads(1, 0)
    cannot = RefusedError("unavailable", "no majority")
    stage.behave(in_turn(cannot, cannot, DONE), *[not_leading(stage.epoch(1, 0))] * 2)
    assert await stage.change() == DONE
