"""Anti-entropy: replicas compare what they hold and become equal, whether or not anybody reads.

Each two replicas of a partition compare it once per interval (`core.repair_schedule`), by an exchange (`core.exchange`,
`service.comparing`; the other side is `service.exchange_answers`). One at a time is begun here, at a bounded rate. What
ends one early leaves everything that was met met; it is tried again soon. Of leader-based tables that is for their
leaders (`service.led_repair`).

A comparison for its own sake leaves writes in flight alone; `synchronise` does not, and knows on return that both sides
hold, durably, what either held when it began. Only rows of keys that differ travel; what becomes of them decides
`core.horizon.met`, on each side for itself.

A row that is damaged on one side is met by nobody: `when_damaged` is told on the side that has it, and heals it.

Source: DeCandia 2007 §4.7; design §4; docs/internals/anti-entropy.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from merganser.core.exchange import Exchange
from merganser.core.repair_schedule import Pair, RepairSchedule, begins_with
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, UnavailableError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.timestamp import Timestamp
from merganser.service.asking import Asker
from merganser.service.compared_rows import ComparedRows
from merganser.service.comparing import Comparing, Settle, Surroundings
from merganser.service.exchange_answers import ExchangeAnswers
from merganser.service.hash_trees import HashTrees
from merganser.service.horizons import Horizons
from merganser.service.partition_gate import PartitionGate
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine

REPAIR_INTERVAL_S = 600.0
EXCHANGE_TIMEOUT_S = 600.0  # of a partition of which nothing is equal; what was met by then is met
BYTES_PER_S = 16 * 1024 * 1024  # a seventh of a gigabit, and half a core of checksums and merges
LOOK_S = 60.0  # between two looks at a cluster in which there is nothing to compare


class Comparison(msgspec.Struct, frozen=True):
    """What one exchange with one peer came to."""

    differing: int
    """Keys."""
    in_flight: int
    """Keys that differed at first and were on their way to be equal."""
    met_here: int
    """Rows changed on this node."""
    met_there: int
    """Rows changed on the peer."""
    listed: int
    """Keys that the peer named, equal ones among them."""
    damaged: tuple[bytes, ...]
    """Keys that are damaged on either side, some of them if they are very many."""
    sent_bytes: int
    received_bytes: int
    problem: str | None
    """Why it did not come to its end, or could not meet all; None if all is well."""


class Totals(msgspec.Struct):
    """What the exchanges that this node began came to since its start."""

    completed: int = 0
    given_up: int = 0
    differing: int = 0
    in_flight: int = 0
    met_here: int = 0
    met_there: int = 0
    damaged: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    last_completed_us: int | None = None
    last_problem: str | None = None


class AntiEntropy:
    """Compares this node's partitions with those of its peers; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        trees: HashTrees,
        horizons: Horizons,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        observe: Callable[[Timestamp], None],
        catch_up: Callable[[NodeId], Awaitable[None]],
        admit: Callable[[], Awaitable[None]],
        interval_s: float = REPAIR_INTERVAL_S,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        """Compare what ``engine`` and ``trees`` hold.

        Args:
            topology: who holds what.
            asker: sends.
            engine: holds the rows.
            trees: through which they are changed.
            horizons: this node's.
            wall_us: when something happened, for operators.
            rng: spreads the comparisons.
            observe: raises ClockSkewError for a row from too far ahead.
            catch_up: fetches a newer cluster map from a peer.
            admit: waits between slices while clients need this node more.
            interval_s: between two comparisons of the same.
            bytes_per_s: of each exchange begun here, both directions together.
        """
        self._topology = topology
        self._asker = asker
        self._wall_us = wall_us
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self.when_damaged: Callable[[TableId, bytes], None] = lambda _table, _key: None
        gate = PartitionGate(topology, catch_up=catch_up)
        rows = ComparedRows(
            topology,
            engine,
            trees,
            horizons,
            observe=observe,
            admit=admit,
            on_damaged=lambda table, key: self.when_damaged(table, key),
        )
        self.answers = ExchangeAnswers(topology, trees, rows, gate, admit=admit)
        self._around = Surroundings(
            asker=asker,
            trees=trees,
            horizons=horizons,
            rows=rows,
            gate=gate,
            partition_of=lambda key: topology.ring.partition_of(keys.token_in(key)),
            admit=admit,
            catch_up=catch_up,
            bytes_per_s=bytes_per_s,
        )
        self._schedule = RepairSchedule(interval_s)
        self._news = asyncio.Event()
        topology.when_changed(self._plan)
        topology.when_split(lambda _batch, _factor: self._forget)
        self.totals = Totals()

    async def compare(
        self,
        table: Table,
        partition: PartitionId,
        peer: NodeId,
        *,
        deadline: float,
        is_dry_run: bool = False,
        settle: Settle | None = None,
    ) -> Comparison:
        """Compare a partition that both hold, and let keys that differ meet.

        Args:
            table: known here.
            partition: held here.
            peer: another replica of it.
            deadline: loop time.
            is_dry_run: only count.
            settle: what is done about keys that differ instead: on leader-based tables, which nobody else merges.
        """
        walk = Exchange(confirms=True, meets=not is_dry_run)
        comparing = self.begun(table, partition, peer, walk, deadline, settle)
        problem = await _problem_of(comparing, deadline)
        if problem is None and comparing.unmet:
            problem = _unmet(comparing.unmet, peer)
        comparison = Comparison(
            differing=walk.differing,
            in_flight=walk.in_flight,
            met_here=comparing.met_here,
            met_there=comparing.met_there,
            listed=walk.listed_keys,
            damaged=tuple(walk.damaged),
            sent_bytes=comparing.sent_bytes,
            received_bytes=comparing.received_bytes,
            problem=problem,
        )
        self._note(comparison)
        return comparison

    async def synchronise(
        self, table: Table, partition: PartitionId, peer: NodeId, /, *, deadline: float, settle: Settle | None = None
    ) -> None:
        """Return once this node and ``peer`` hold durably all that either held when this began.

        What differs meets, or is settled by ``settle`` on leader-based tables.

        Raises:
            CorruptionError: a row is damaged on one side, or the peer answers nonsense.
            MerganserError: they are not known to be equal.
        """
        walk = Exchange(confirms=False, meets=True)
        comparing = self.begun(table, partition, peer, walk, deadline, settle)
        try:
            async with asyncio.timeout_at(deadline):
                await comparing.run()
        except TimeoutError:
            raise UnavailableError(f"it took too long to compare partition {partition} with {peer}") from None
        if walk.damaged:
            raise CorruptionError(f"{len(walk.damaged)} rows of partition {partition} are damaged here or on {peer}")
        if comparing.unmet:
            raise UnavailableError(_unmet(comparing.unmet, peer))

    def begun(
        self,
        table: Table,
        partition: PartitionId,
        peer: NodeId,
        walk: Exchange,
        deadline: float,
        settle: Settle | None = None,
    ) -> Comparing:
        """Return an exchange that is ready to go."""
        epoch = self._topology.map.epoch
        return Comparing(
            self._around, table, partition, peer, map_epoch=epoch, walk=walk, deadline=deadline, settle=settle
        )

    def every(self, interval_s: float) -> None:
        """Compare each once per ``interval_s`` from now on."""
        self._schedule.every(interval_s, now_s=self._loop.time())
        self._news.set()

    async def run(self) -> None:
        """Begin what is due, for as long as the node lives."""
        self._plan(self._topology.map)
        while True:
            next_s = self._schedule.next_s
            await self._sleep_until(self._loop.time() + LOOK_S if next_s is None else next_s)
            pair = self._schedule.due(self._loop.time())
            if pair is not None:
                await self._compare_now(pair)

    def oldest_comparison_us(self, table: Table) -> int | None:
        """Return when that was which is longest ago of those this node begins; None: one was never completed."""
        oldest_s = self._schedule.oldest_s(table.id)
        return None if oldest_s is None else self._wall_us() - int((self._loop.time() - oldest_s) * 1e6)

    async def _compare_now(self, pair: Pair) -> None:
        table_id, partition, peer = pair
        table, began_s, problem = self._topology.table(table_id), self._loop.time(), "out of reach"
        is_there = self._asker.is_reachable(peer) and peer not in self._asker.doubted  # one that hangs keeps its links
        if table is not None and is_there:
            comparison = await self.compare(table, partition, peer, deadline=began_s + EXCHANGE_TIMEOUT_S)
            problem = comparison.problem or ""
        now_s = self._loop.time()
        if problem:
            self._schedule.failed(pair, now_s=now_s)
        else:
            self._schedule.completed(pair, began_s=began_s, now_s=now_s, share=self._rng.random())

    def _note(self, comparison: Comparison) -> None:
        totals = self.totals
        totals.completed += comparison.problem is None
        totals.given_up += comparison.problem is not None
        totals.differing += comparison.differing
        totals.in_flight += comparison.in_flight
        totals.met_here += comparison.met_here
        totals.met_there += comparison.met_there
        totals.damaged += len(comparison.damaged)
        totals.sent_bytes += comparison.sent_bytes
        totals.received_bytes += comparison.received_bytes
        if comparison.problem is None:
            totals.last_completed_us = self._wall_us()
        else:
            totals.last_problem = comparison.problem

    def _forget(self) -> None:
        """Plan anew: what was planned, and compared, was of partitions that have other numbers now."""
        self._schedule.keep((), now_s=self._loop.time(), share=self._rng.random)

    def _plan(self, _current: ClusterMap) -> None:
        pairs = [
            (table.id, partition, peer)
            for table, partition in self._topology.held()
            if not table.has_leaders
            for peer in begins_with(self._topology.node, self._topology.ring.preference_list(partition, table.rule))
        ]
        self._schedule.keep(pairs, now_s=self._loop.time(), share=self._rng.random)
        self._news.set()

    async def _sleep_until(self, moment_s: float) -> None:
        """Return at ``moment_s``, or when the plan has changed."""
        self._news.clear()
        try:
            async with asyncio.timeout_at(moment_s):
                await self._news.wait()
        except TimeoutError:
            return


async def _problem_of(comparing: Comparing, deadline: float) -> str | None:
    try:
        async with asyncio.timeout_at(deadline):
            await comparing.run()
    except TimeoutError:
        return "it took too long"
    except InvariantError:
        raise
    except MerganserError as error:
        return str(error)
    return None


def _unmet(count: int, peer: NodeId) -> str:
    return f"{count} rows here or on {peer} are damaged, or too far ahead of a clock"
