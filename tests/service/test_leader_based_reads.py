"""Reads of leader-based tables by the coordinating side: of the leader, of any replica, and of ranges."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import (
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import NOT_LEADING, Change, Led, LedRows, ReadRangeLed
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Found, Read, ReadRange, Request, Rows
from merganser.model.register import EMPTY, Content, Register, Version
from merganser.service.asking import SILENT_S
from merganser.service.leader_asking import LOOK_S
from merganser.storage import keys
from merganser.storage.registers import encode_register
from service.leaders_by_hand import (
    DELAY_S,
    ME,
    OTHERS,
    TIMEOUT_S,
    Answer,
    Behaviour,
    Stage,
    leading,
    never,
    not_leading,
    now_s,
    silent,
    staged,
)

# Reads.


@staged
async def test_a_consistent_read_is_answered_by_the_leader(stage: Stage) -> None:
    epoch = stage.epoch(1, 1)
    stage.leads(1, 1)
    stage.behave(never, leading(epoch, Led(b"v", Version(1, 2, 7))), never)
    assert await stage.read() == Led(b"v", Version(1, 2, 7))


@staged
async def test_a_read_that_was_lost_is_asked_of_the_next_leader(stage: Stage) -> None:
    stage.leads(1, 0)
    later = stage.epoch(2, 1)
    answer = Led(None, Version(2, 2, 1))
    stage.behave(lambda _request: PeerLostError("reset"), leading(later, answer), not_leading(later))
    assert await stage.read() == answer


@staged
async def test_a_read_at_a_silent_leader_goes_to_the_next_once_there_is_one(stage: Stage) -> None:
    stage.leads(1, 0)
    answer = Led(b"v", Version(2, 2, 1))
    stage.behave(silent, not_leading(stage.epoch(1, 0)), not_leading(stage.epoch(1, 0)))

    def elect() -> None:
        stage.leads(2, 1)
        stage.behave(silent, leading(stage.epoch(2, 1), answer), not_leading(stage.epoch(1, 0)))

    asyncio.get_running_loop().call_later(1.1, elect)
    assert await stage.read() == answer
    assert now_s() < 1.8


@staged
async def test_whoever_hears_nothing_from_the_leader_asks_the_others_who_leads(stage: Stage) -> None:
    stage.leads(1, 0)
    later, answer = stage.epoch(2, 1), Led(b"v", Version(2, 2, 1))
    stage.behave(silent, leading(later, answer), not_leading(later))
    assert await stage.read() == answer
    assert now_s() < 1.3
    assert stage.leaders.known(stage.group) == later


@staged
async def test_all_who_wait_for_a_silent_leader_share_what_one_of_them_asks_around(stage: Stage) -> None:
    stage.leads(1, 0)
    stage.behave(silent, *[not_leading(stage.epoch(1, 0))] * 2)
    await asyncio.gather(*(stage.change(timeout_s=2.0) for _ in range(20)), return_exceptions=True)
    assert 2 <= sum(place != 0 for place in stage.asked) <= 2 * 2.0 / LOOK_S


@staged
async def test_a_change_that_the_leader_keeps_silent_about_is_shown_to_others_but_not_for_them_to_do(
    stage: Stage,
) -> None:
    stage.leads(1, 0)
    stage.behave(silent, not_leading(stage.epoch(2, 1)), not_leading(stage.epoch(2, 1)))
    with pytest.raises(UnknownOutcomeError, match="leads no more"):
        await stage.change()
    assert now_s() < 1.3
    changes = [(node, request) for node, request in stage.transport.asked if isinstance(request, Change)]
    assert {request.payload for node, request in changes if node != stage.replicas[0]} == {b""}
    assert {request.epoch for _, request in changes} == {stage.epoch(1, 0)}


@staged
async def test_an_eventually_consistent_read_is_answered_by_any_replica(stage: Stage) -> None:
    register = Register(Version(3, 1, 4), Content(b"v"))
    stored = encode_register(stage.key, register)
    stage.behave(*[lambda _request: Found(stored)] * 3)
    assert await stage.read(is_consistent=False) == Led(b"v", Version(3, 1, 4))
    ((_, question),) = stage.transport.asked
    assert isinstance(question, Read)


@staged
async def test_an_eventually_consistent_read_goes_on_to_another_replica(stage: Stage) -> None:
    stage.behave(lambda _request: PeerUnreachableError("down"), silent, lambda _request: Found(None))
    assert (await stage.read(is_consistent=False)).value is None
    assert now_s() < 0.2


@staged
async def test_an_eventually_consistent_read_may_be_answered_twice_at_once(stage: Stage) -> None:
    stage.behave(*[lambda _request: Found(None)] * 3)
    stage.transport.delays_s = {stage.replicas[0]: SILENT_S + DELAY_S}
    assert (await stage.read(is_consistent=False)).value is None
    assert stage.asked == [0, 1]


# Ranges.

ITEMS_EACH = 3


def _keys_of(stage: Stage, partition: PartitionId) -> list[bytes]:
    topology = stage.coordinator._topology
    low, _ = topology.ring.token_range(partition)
    return [keys.row_key(stage.table.id, low, b"%d" % number) for number in range(ITEMS_EACH)]


def _all_keys(stage: Stage) -> list[bytes]:
    return [key for partition in range(8) for key in _keys_of(stage, PartitionId(partition))]


def _leader_of(stage: Stage, node: NodeId) -> Behaviour:
    """Lead as the epochs say, with a few items in each partition."""

    def behave(request: Request) -> Answer:
        assert isinstance(request, ReadRangeLed)
        if request.epoch.leader != stage.numbers[node]:
            return RefusedError(NOT_LEADING, "not I", epoch=request.epoch)
        partition = stage.coordinator._topology.ring.partition_of(keys.token_in(request.start))
        rows = [(key, b"v") for key in _keys_of(stage, partition) if request.start <= key < request.end]
        if request.reverse:
            rows.reverse()
        page = rows[: request.rows_max]
        if len(page) == len(rows):
            return LedRows(tuple(page), None)
        last = page[-1][0]
        return LedRows(tuple(page), last if request.reverse else keys.after(last))

    return behave


def _everybody_leads(stage: Stage) -> None:
    topology = stage.coordinator._topology
    for partition in range(8):
        leader = next(node for node in topology.ring.preference_list(PartitionId(partition), 3) if node != ME)
        stage.leaders.learned(Group(3, PartitionId(partition)), Epoch(1, stage.numbers[leader]))
    for node in OTHERS:
        stage.transport.behaviours[node] = _leader_of(stage, node)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows_max", [1, 2, 3, 5, 100])
def test_pages_of_a_range_are_all_its_items_in_order(reverse: bool, rows_max: int) -> None:
    @staged
    async def play(stage: Stage) -> None:
        _everybody_leads(stage)
        found_keys: list[bytes] = []
        start, end = keys.table_range(stage.table.id)
        while True:
            page = await stage.coordinator.read_range(
                stage.table,
                start,
                end,
                reverse=reverse,
                is_consistent=True,
                rows_max=rows_max,
                bytes_max=1_000_000,
                deadline=now_s() + TIMEOUT_S,
            )
            found_keys += [key for key, _ in page.rows]
            if page.resume is None:
                break
            start, end = (start, page.resume) if reverse else (page.resume, end)
        assert found_keys == sorted(_all_keys(stage), reverse=reverse)

    play()


@staged
async def test_partitions_with_little_in_them_are_read_several_at_once(stage: Stage) -> None:
    _everybody_leads(stage)
    page = await stage.page()
    assert (len(page.rows), page.resume) == (8 * ITEMS_EACH, None)
    assert now_s() < 6 * DELAY_S, "1, 2, 4 and 1 of eight partitions"


@staged
async def test_a_range_whose_leader_cannot_be_found_is_unavailable(stage: Stage) -> None:
    _everybody_leads(stage)
    stage.transport.behaviours[OTHERS[0]] = lambda _request: PeerUnreachableError("down")
    with pytest.raises(UnavailableError, match="no leader was found"):
        await stage.page()


@staged
async def test_an_eventually_consistent_page_shows_no_tombstones_and_says_where_to_resume(stage: Stage) -> None:
    topology = stage.coordinator._topology
    start, end = topology.partition_range(stage.table, stage.group.partition, stage.group.partition)
    first, second, third = _keys_of(stage, stage.group.partition)
    stored = [
        (first, encode_register(first, Register(Version(1, 1, 1), Content(b"a")))),
        (second, encode_register(second, Register(Version(1, 1, 2), EMPTY))),
    ]
    page = Rows(tuple(stored), is_last=False)

    def behave(request: Request) -> Answer:
        assert isinstance(request, ReadRange)
        return page

    stage.behave(behave, behave, behave)
    got = await stage.coordinator.read_range(
        stage.table, start, end, is_consistent=False, rows_max=2, bytes_max=1000, deadline=now_s() + 1
    )
    assert got == LedRows(((first, b"a"),), keys.after(second))
    assert third >= keys.after(second)
