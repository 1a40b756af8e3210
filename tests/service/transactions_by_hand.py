"""Nodes that coordinate transactions over items kept in one place, by a leader that never fails but may not be heard.

The wire of the tables knows `+x` (append to a list), `=x` (put), `~` (delete), `?x` (check that the value is x), and
answers with what the item was.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, NoReturn, TypeVar

from merganser.core.cluster_map import found, with_table
from merganser.core.token import token_of
from merganser.core.transaction import step_in
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.errors import (
    RequestError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import ClusterId, NodeId
from merganser.model.leader_messages import Changed, Led
from merganser.model.leadership import Epoch, Group
from merganser.model.register import EMPTY, Content, Decided, Intent, Register, Version
from merganser.model.transaction import ItemStep, LedgerStep
from merganser.service.intents import Gone
from merganser.service.ledger import NAME, UNIQUE_ID, WIRE, Ledger
from merganser.service.ledger_sweep import LedgerSweep
from merganser.service.steps import TRANSACTIONS, WIRES, Maker, of_wires
from merganser.service.topology import Topology
from merganser.service.transaction_recovery import Recovery
from merganser.service.transaction_steps import maker
from merganser.service.transactions import Transactions, TransactItem
from merganser.sim.loop import SimulatedLoop
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.registers import decode_register, encode_register

T = TypeVar("T")

ME = NodeId("0000000000000001")
HOP_S = (0.0005, 0.003)
LATE_S = 1.0
SLOW_S = 3.0
TIMEOUT_S = 10.0
PARTITIONS = 4


def evaluate(_table: Table, payload: bytes, value: bytes | None) -> Decided:
    action, operand = payload[:1], payload[1:]
    was = value or b""
    match action:
        case b"+":
            return Decided(Content(was + operand), was)
        case b"=":
            return Decided(Content(operand), was)
        case b"~":
            return Decided(EMPTY, was)
        case b"?":
            return Decided(None, was, is_rejected=was != operand)
    raise RequestError(f"no such action: {payload!r}")


class Fault(enum.Enum):
    """What becomes of one request on its way to the leader and back."""

    NOT_SENT = "not sent"
    ANSWER_LOST = "answer lost"
    LATE = "late"
    """It is done after the sender has given up."""
    NEVER_DONE = "never done"
    """But the sender cannot know."""
    SLOW = "slow"
    """The sender's node is stopped for a while before it sends it."""
    DIES_BEFORE = "dies before"
    """The sender's node dies before it has sent it."""
    DIES_AFTER = "dies after"
    """The sender's node dies when it has been done."""


Faults = Callable[[bytes | None], Fault | None]
"""Of a request, from the payload of a change, None for a read."""


def _map() -> ClusterMap:
    members = [NodeRecord(id=ME, number=1, peer_address="a:1")]
    cluster = found(ClusterId("f" * 16), members, partitions=PARTITIONS)
    cluster = with_table(cluster, name="t", wire="w", n=1, definition=b"", unique_id="t", replication="leader")
    cluster = with_table(cluster, name="gone", wire="w", n=1, definition=b"", unique_id="g", replication="leader")
    return with_table(cluster, name=NAME, wire=WIRE, n=1, definition=b"", unique_id=UNIQUE_ID, replication="leader")


class Tables:
    """Of a cluster that has all the tables it needs."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    @property
    def current(self) -> ClusterMap:
        return self._topology.map

    async def table(self, wire: str, name: str, *, deadline: float) -> Table:
        raise AssertionError("it is known")

    async def look_for_news(self) -> None:
        return

    async def create_table(self, **_arguments: Any) -> Table:
        raise AssertionError("it is there")


class Term(NamedTuple):
    group: Group
    epoch: Epoch
    sequence: int


class Stage:
    """The place where all items are, and their leader."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.engine = MemoryEngine()
        self.topology = Topology(ME, MemoryEngine(), _map())
        self.tables = Tables(self.topology)
        self.table, self.dropped = self.topology.map.tables[0], self.topology.map.tables[1]
        self.errors: list[BaseException] = []
        self.steps: list[ItemStep | LedgerStep] = []
        """All that were evaluated, in order."""
        self.makers: dict[int, Maker] = {
            WIRES: of_wires({"w": evaluate}),
            TRANSACTIONS: maker({"w": evaluate}, when_begun=lambda begun: self.sweep.notice(begun)),
        }
        self._versions = 0
        self.leader = Node(self)
        """Which meets the intents, and sweeps."""
        self.sweep = LedgerSweep(
            self.topology,
            self.engine,
            self.leader.ledger,
            self.leader.recovery,
            leading=lambda: [
                Term(Group(1, partition), Epoch(1, 1), self._versions) for partition in self._partitions()
            ],
            rng=self.rng,
            admit=self._admit,
        )

    def _partitions(self) -> list[Any]:
        start, end = keys.table_range(self.table.id)
        return list(self.topology.partitions_between(self.table, start, end))

    async def _admit(self) -> None:
        await asyncio.sleep(0)

    def key(self, name: bytes, table: Table | None = None) -> bytes:
        return keys.row_key((table or self.table).id, token_of(name), name)

    def register(self, key: bytes) -> Register:
        return decode_register(key, self.engine.get(key))

    def plant(self, name: bytes, value: bytes | None, intent: Intent | None = None) -> None:
        self._put(self.key(name), Content(value, intent))

    def drop(self, table: Table) -> None:
        """Take a table, and its items, from the cluster."""
        self.topology._tables.pop(table.id)
        self.engine.commit(Batch().delete_range(*keys.table_range(table.id)))

    def value(self, name: bytes) -> bytes | None:
        return self.register(self.key(name)).content.value

    def locks(self) -> list[bytes]:
        """Return the keys that have an intent."""
        start, end = keys.table_range(self.table.id)
        return [key for key, stored in self.engine.scan(start, end) if decode_register(key, stored).content.intent]

    def records(self) -> int:
        """Return how many records the ledger has."""
        table = self.leader.ledger.known()
        assert table is not None
        start, end = keys.table_range(table.id)
        return sum(decode_register(key, row).value is not None for key, row in self.engine.scan(start, end))

    def _put(self, key: bytes, content: Content) -> Version:
        self._versions += 1
        version = Version(1, 1, self._versions)
        self.engine.commit(Batch().put(key, encode_register(key, Register(version, content))))
        return version

    async def change(self, table: Table, key: bytes, kind: int, payload: bytes, deadline: float) -> Changed:
        made = self.makers[kind]
        step = made.step_of(table, payload)
        while True:
            head = self.register(key)
            if head.content.intent is None or made.meets_intents:
                break
            await self.leader.recovery.for_change(table, key, head, deadline=deadline)
        decided = step(head.content)
        if kind == TRANSACTIONS:
            self.steps.append(step_in(payload))
        version = head.version if decided.content is None else self._put(key, decided.content)
        return Changed(decided.answer, decided.is_rejected, version)

    async def read(self, table: Table, key: bytes, deadline: float) -> Led:
        while True:
            head = self.register(key)
            await hop(self.rng)
            if head.content.intent is None:
                return Led(head.value, head.version)
            value = await self.leader.recovery.for_read(table, key, head, deadline=deadline)
            if not isinstance(value, Gone):
                return Led(value, head.version)


class Node:
    """One node: coordinates, and finds out for itself; its requests may fail."""

    def __init__(self, stage: Stage, faults: Faults = lambda _payload: None) -> None:
        self.stage = stage
        self.faults = faults
        self.requests = 0
        self.is_dead = False
        self.ledger = Ledger(stage.tables, self)
        self.recovery = Recovery(stage.topology, self.ledger, self)
        self.transactions = Transactions(self.ledger, self.recovery, self, rng=stage.rng, on_error=stage.errors.append)

    async def change(self, table: Table, key: bytes, kind: int, payload: bytes, *, deadline: float) -> Changed:
        return await self._request(payload, self.stage.change(table, key, kind, payload, deadline))

    async def read(self, table: Table, key: bytes, *, is_consistent: bool, deadline: float) -> Led:
        assert is_consistent
        return await self._request(None, self.stage.read(table, key, deadline))

    async def _request(self, payload: bytes | None, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` at the leader, in a task that outlives this node."""
        fault = self.faults(payload)
        self.requests += 1
        if fault is Fault.SLOW:
            try:
                await asyncio.sleep(SLOW_S)
            except asyncio.CancelledError:
                work.close()
                raise
        if self.is_dead or fault is Fault.DIES_BEFORE:
            work.close()
            await self._die()
        if fault is Fault.NOT_SENT:
            work.close()
            await hop(self.stage.rng)
            raise UnavailableError("not sent")
        if fault is Fault.NEVER_DONE:
            work.close()
            await hop(self.stage.rng)
            raise UnknownOutcomeError("never done")
        task = asyncio.create_task(self._travel(work, LATE_S if fault is Fault.LATE else 0.0))
        if fault is Fault.LATE:
            task.add_done_callback(lambda ended: ended.exception())
            await hop(self.stage.rng)
            raise UnknownOutcomeError("late")
        result = await asyncio.shield(task)
        await hop(self.stage.rng)
        if self.is_dead or fault is Fault.DIES_AFTER:
            await self._die()
        if fault is Fault.ANSWER_LOST:
            if payload is None:
                raise UnavailableError("answer lost")
            raise UnknownOutcomeError("answer lost")
        return result

    async def _travel(self, work: Coroutine[Any, Any, T], late_s: float) -> T:
        await asyncio.sleep(late_s)
        await hop(self.stage.rng)
        return await work

    async def _die(self) -> NoReturn:
        """Never go on."""
        self.is_dead = True
        await asyncio.Future()
        raise AssertionError("it is dead")

    def item(self, name: bytes, payload: bytes, *, is_check: bool = False) -> TransactItem:
        return TransactItem(self.stage.table, self.stage.key(name), payload, is_check)

    async def write(
        self,
        *steps: tuple[bytes, bytes],
        token: bytes | None = None,
        digest: bytes = b"digest",
        timeout_s: float = TIMEOUT_S,
    ) -> list[bytes]:
        """Do a transaction of (name, payload) steps."""
        items = [self.item(name, payload) for name, payload in steps]
        return await self.transactions.write(items, token=token, digest=digest, deadline=now_s() + timeout_s)

    async def get(self, *names: bytes, timeout_s: float = TIMEOUT_S) -> list[bytes | None]:
        """Read several items at one instant."""
        places = [(self.stage.table, self.stage.key(name)) for name in names]
        return await self.transactions.get(places, deadline=now_s() + timeout_s)

    async def put(self, name: bytes, payload: bytes) -> bytes:
        """Change one item outside of transactions."""
        changed: Changed = await self.change(
            self.stage.table, self.stage.key(name), WIRES, payload, deadline=now_s() + TIMEOUT_S
        )
        if changed.is_rejected:
            raise TransactionConflictError("rejected")
        return changed.answer

    async def look(self, name: bytes) -> bytes | None:
        """Read one item outside of transactions."""
        key = self.stage.key(name)
        led: Led = await self.read(self.stage.table, key, is_consistent=True, deadline=now_s() + TIMEOUT_S)
        return led.value


async def hop(rng: random.Random) -> None:
    await asyncio.sleep(rng.uniform(*HOP_S))


def now_s() -> float:
    return asyncio.get_running_loop().time()


Script = Callable[[Stage], Coroutine[Any, Any, None]]


def play(script: Script, *, seed: int = 1) -> None:
    """Run ``script`` on virtual time; nothing may fail behind its back."""
    loop = SimulatedLoop(random.Random(seed))
    stages = []

    async def main() -> None:
        stage = Stage(seed)
        stages.append(stage)
        await script(stage)
        await stage.leader.transactions.close()

    loop.run(main())
    assert [repr(error) for error in (*loop.errors, *stages[0].errors)] == []


def staged(*, seed: int = 1) -> Callable[[Script], Callable[[], None]]:
    """Make a test of a script that is given a stage."""

    def decorate(script: Script) -> Callable[[], None]:
        def test() -> None:
            play(script, seed=seed)

        test.__name__, test.__doc__ = script.__name__, script.__doc__
        return test

    return decorate


def failing(kind: type, fault: Fault, *, times: int = 1) -> Faults:
    """Have the first requests of one kind of step fail."""
    left = [times]

    def faults(payload: bytes | None) -> Fault | None:
        if left[0] and payload is not None and _is_a(payload, kind):
            left[0] -= 1
            return fault
        return None

    return faults


def _is_a(payload: bytes, kind: type) -> bool:
    try:
        return isinstance(step_in(payload), kind)
    except RequestError:
        return False
