"""The coordinating side of leader-based tables over peers that do as they are told, and how they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from merganser.core.cluster_map import found, with_table
from merganser.core.token import token_of
from merganser.model.cluster import NodeRecord, Table
from merganser.model.errors import MerganserError, PeerLostError, RefusedError
from merganser.model.ids import ClusterId, NodeId
from merganser.model.leader_messages import NOT_LEADING, Change, Changed, Led, LedRows, ReadLed, ReadRangeLed
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.messages import Reply, Request
from merganser.model.register import Version
from merganser.net.transport import Traffic
from merganser.service.admission import Admission, UnderWay
from merganser.service.asking import Asker
from merganser.service.changes_here import ChangesHere
from merganser.service.hedging import Hedging
from merganser.service.in_flight import Proposal
from merganser.service.leader_based import LeaderBased
from merganser.service.local_indexes import LocalIndexes
from merganser.service.topology import Topology
from merganser.service.turns import Turns
from merganser.sim.loop import SimulatedLoop
from merganser.storage import keys
from merganser.storage.memory import MemoryEngine

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

    def vouches(self, _group: Group, _epoch: Epoch) -> bool:
        return False

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


class _LeadsNothing:
    def begin(self, table: Table, key: bytes, kind: int, payload: bytes) -> None:
        """Decline."""

    def written(self, proposal: Proposal) -> Changed:
        raise AssertionError("nothing was begun")


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
        changes_here=ChangesHere(_LeadsNothing(), Admission(), is_refusing=lambda: False),
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
