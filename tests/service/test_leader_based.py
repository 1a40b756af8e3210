"""The coordinating side of leader-based tables, over peers that do as they are told."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

import pytest

from merganser.core.cluster_map import found, with_table
from merganser.core.token import token_of
from merganser.model.cluster import NodeRecord, Table
from merganser.model.errors import (
    MerganserError,
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
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.leader_messages import NOT_LEADING, Change, Changed, Led, LedRows, ReadLed, ReadRangeLed
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.messages import Found, Read, ReadRange, Reply, Request, Rows
from merganser.model.register import EMPTY, Content, Register, Version
from merganser.net.transport import Traffic
from merganser.service.admission import UnderWay
from merganser.service.asking import SILENT_S, Asker
from merganser.service.hedging import Hedging
from merganser.service.leader_asking import INSIST_S, LOOK_S, PATIENCE_S
from merganser.service.leader_based import LeaderBased
from merganser.service.local_indexes import LocalIndexes
from merganser.service.topology import Topology
from merganser.service.turns import Turns
from merganser.sim.loop import SimulatedLoop
from merganser.storage import keys
from merganser.storage.memory import MemoryEngine
from merganser.storage.registers import encode_register

Answer = Reply | MerganserError | None
"""None: silence."""
Behaviour = Callable[[Request], Answer]

ME = NodeId("0000000000000000")
OTHERS = tuple(NodeId(f"{number:016x}") for number in (1, 2, 3))
DELAY_S = 0.001
DONE = Changed(b"", False, Version(1, 2, 1))
TIMEOUT_S = 10.0


class FakeLeaders:
    """Remembers the latest epoch of each group that it was told of."""

    def __init__(self) -> None:
        self.epochs: dict[Group, Epoch] = {}
        self.silent: list[int] = []

    def known(self, group: Group) -> Epoch:
        return self.epochs.get(group, NO_EPOCH)

    def learned(self, group: Group, epoch: Epoch) -> None:
        self.epochs[group] = max(epoch, self.known(group))

    def is_silent(self, number: int) -> bool:
        return number in self.silent


class FakeTransport:
    """Peers that answer as they are told, after a millisecond."""

    def __init__(self) -> None:
        self.behaviours: dict[NodeId, Behaviour] = {}
        self.asked: list[tuple[NodeId, Any]] = []
        self.delays_s: dict[NodeId, float] = {}
        self._loop = asyncio.get_running_loop()

    def is_reachable(self, node: NodeId) -> bool:
        return True

    def request(
        self, node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        assert timeout_s > 0
        self.asked.append((node, request))
        future: asyncio.Future[Reply] = self._loop.create_future()
        answer = self.behaviours[node](request)
        if answer is None:
            self._loop.call_later(timeout_s, _end, future, PeerLostError("silence"))
        else:
            self._loop.call_later(self.delays_s.get(node, DELAY_S), _end, future, answer)
        return future


def _end(future: asyncio.Future[Reply], answer: Reply | MerganserError) -> None:
    if future.done():
        return
    if isinstance(answer, MerganserError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


class Stage(NamedTuple):
    """A coordinator of four nodes, of which three are replicas of ``key``, and it is none."""

    coordinator: LeaderBased
    transport: FakeTransport
    leaders: FakeLeaders
    table: Table
    key: bytes
    replicas: tuple[NodeId, ...]
    group: Group
    numbers: Mapping[NodeId, int]
    caught_up_with: list[NodeId]
    """Whose newer map was to be fetched."""

    def behave(self, *behaviours: Behaviour) -> None:
        """Have the replicas, in the order of the preference list, answer so."""
        self.transport.behaviours.update(zip(self.replicas, behaviours, strict=True))

    def epoch(self, number: int, place: int) -> Epoch:
        """Return the epoch that a replica leads."""
        return Epoch(number, self.numbers[self.replicas[place]])

    def leads(self, number: int, place: int) -> None:
        """Let the coordinator know who leads."""
        self.leaders.learned(self.group, self.epoch(number, place))

    @property
    def asked(self) -> list[int]:
        """Who was asked, by place in the preference list."""
        return [self.replicas.index(node) for node, _ in self.transport.asked]

    async def change(self, timeout_s: float = TIMEOUT_S) -> Changed:
        deadline = asyncio.get_running_loop().time() + timeout_s
        return await self.coordinator.change(self.table, self.key, 0, b"payload", deadline=deadline)

    async def read(self, *, is_consistent: bool = True) -> Led:
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        return await self.coordinator.read(self.table, self.key, is_consistent=is_consistent, deadline=deadline)

    async def page(self, *, is_consistent: bool = True, reverse: bool = False, rows_max: int = 100) -> LedRows:
        start, end = keys.table_range(self.table.id)
        return await self.coordinator.read_range(
            self.table,
            start,
            end,
            reverse=reverse,
            is_consistent=is_consistent,
            rows_max=rows_max,
            bytes_max=1_000_000,
            deadline=asyncio.get_running_loop().time() + TIMEOUT_S,
        )


async def _nobody(_sender: NodeId, _request: Request) -> Reply:
    raise AssertionError("the coordinator asks itself nothing")


def _stage() -> Stage:
    nodes = [NodeRecord(node, 0, f"node-{place}:1") for place, node in enumerate((ME, *OTHERS))]
    current = with_table(
        found(ClusterId("c" * 16), nodes, partitions=8),
        wire="sim",
        name="t",
        n=3,
        definition=b"",
        unique_id="u",
        replication="leader",
    )
    topology, transport, leaders = Topology(ME, MemoryEngine(), current), FakeTransport(), FakeLeaders()
    (table,) = current.tables
    names = (b"%d" % number for number in range(1000))
    keys_ = (keys.row_key(table.id, token_of(name), name) for name in names)
    key = next(key for key in keys_ if ME not in topology.replicas(table, key))
    caught_up_with: list[NodeId] = []

    async def catch_up(peer: NodeId) -> None:
        caught_up_with.append(peer)

    coordinator = LeaderBased(
        topology,
        Asker(ME, transport, _nobody),  # type: ignore[arg-type]
        leaders,
        hedging=Hedging(ME),
        range_turns=Turns("range reads", 4),
        rng=random.Random(3),
        catch_up=catch_up,
        under_way=UnderWay("operations", 100),
        local=LocalIndexes(MemoryEngine()),
    )
    partition = topology.ring.partition_of(keys.token_in(key))
    numbers = {node.id: node.number for node in current.nodes}
    replicas, group = topology.replicas(table, key), Group(3, partition)
    return Stage(coordinator, transport, leaders, table, key, replicas, group, numbers, caught_up_with)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


def staged(script: Script) -> Callable[[], None]:
    def test() -> None:
        async def run() -> None:
            await script(_stage())

        SimulatedLoop(random.Random(1)).run(run())

    test.__name__, test.__doc__ = script.__name__, script.__doc__
    return test


def now_s() -> float:
    return asyncio.get_running_loop().time()


def not_leading(epoch: Epoch) -> Behaviour:
    return lambda _request: RefusedError(NOT_LEADING, "not I", epoch=epoch)


def leading(epoch: Epoch, answer: Answer = DONE) -> Behaviour:
    """Answer what is asked in ``epoch``, and nothing else."""

    def behave(request: Request) -> Answer:
        assert isinstance(request, Change | ReadLed | ReadRangeLed)
        return answer if request.epoch == epoch else RefusedError(NOT_LEADING, "not then", epoch=epoch)

    return behave


def never(_request: Request) -> Answer:
    raise AssertionError("nobody was to ask this node")


def silent(_request: Request) -> Answer:
    return None


def in_turn(*answers: Answer) -> Behaviour:
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


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
