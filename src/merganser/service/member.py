"""One member of a cluster: its services over an engine and a transport, whichever they are.

The same object runs in a real node (TCP, RocksDB) and in the simulator (virtual network and disk).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping

from merganser.core.admission import AdmissionLimits
from merganser.core.clock import HybridClock
from merganser.core.healing import IN_FLIGHT_S
from merganser.core.leadership import PULSE_S
from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId
from merganser.model.messages import (
    Apply,
    AskMoves,
    AskTime,
    Complete,
    CountItems,
    Gossip,
    Hint,
    Level,
    ListKeys,
    LookAgain,
    LookAtTree,
    LookAtTwigs,
    Meet,
    Read,
    ReadHint,
    ReadRange,
    Seal,
    Tally,
    TallyTogether,
)
from merganser.net.transport import Transport
from merganser.service.acceptor import Acceptor
from merganser.service.admission import Admission
from merganser.service.anti_entropy import REPAIR_INTERVAL_S, AntiEntropy
from merganser.service.asking import Asker
from merganser.service.catalog import Catalog
from merganser.service.clock_watch import ClockWatch
from merganser.service.coordinator import Coordinator
from merganser.service.copying import Copying
from merganser.service.counting import Counting
from merganser.service.counts import Measure
from merganser.service.damage import Damage
from merganser.service.durable_answers import DurableAnswers
from merganser.service.expirer import LOOK_S as EXPIRY_LOOK_S
from merganser.service.expiry_index import Expiry, ExpiryIndex
from merganser.service.failure_detector import FailureDetector
from merganser.service.hash_trees import LOOK_S, TWIGS_FROM_ROWS, HashTrees
from merganser.service.healing import Healing
from merganser.service.hint_store import HintStore
from merganser.service.hinted_handoff import HintedHandoff
from merganser.service.horizons import Horizons
from merganser.service.leader_repair import LeaderRepair
from merganser.service.leader_tables import LeaderTables
from merganser.service.leftovers import Leftovers
from merganser.service.local_indexes import LocalIndexer, LocalIndexes, LocalMeasurer
from merganser.service.map_requests import MapRequests
from merganser.service.moving import Moving
from merganser.service.purger import MARGIN_US, PURGE_INTERVAL_S, Purger
from merganser.service.rebalancer import Rebalancer
from merganser.service.repairing import Repairing
from merganser.service.replica import Replica
from merganser.service.restored_rows import RestoredRows
from merganser.service.scrubber import SCRUB_INTERVAL_S, Scrubber
from merganser.service.serving import Serving
from merganser.service.staleness import PROBE_S
from merganser.service.standstill import Standstill
from merganser.service.steps import Evaluator, Indexer
from merganser.service.table_ends import Ends, TableEnds
from merganser.service.tag_index import TagIndex
from merganser.service.timestamps import Timestamps, load_ceiling
from merganser.service.topology import Topology
from merganser.service.value_tables import ValueTables
from merganser.service.wholeness import Wholeness
from merganser.storage.engine import Engine

CLOCK_AHEAD_US_MAX = 60_000_000  # hosts without time service drift by seconds a day; a minute is a broken clock
CLOCK_SKEW_MAX_S = 10.0
"""Off by more, a node mints nothing. With as much the other way on its peers, and the window of its ceiling after a
restart, what it still mints is 30 s ahead of them at most, half of what they refuse."""


class Member(Serving):
    """Replica, coordinator and catalog of one node; see the module's docstring."""

    def __init__(
        self,
        node: NodeId,
        current: ClusterMap,
        *,
        engine: Engine,
        transport: Transport,
        wall_us: Callable[[], int],
        rng: random.Random,
        on_error: Callable[[BaseException], None],
        limits: AdmissionLimits | None = None,
        clock_skew_max_s: float = CLOCK_SKEW_MAX_S,
        on_clock: Callable[[str | None], None] = lambda _reason: None,
        purge_interval_s: float = PURGE_INTERVAL_S,
        purge_margin_us: int = MARGIN_US,
        scrub_interval_s: float = SCRUB_INTERVAL_S,
        in_flight_s: float = IN_FLIGHT_S,
        on_damage: Callable[[str], None] = lambda _what: None,
        repair_interval_s: float = REPAIR_INTERVAL_S,
        trees_look_s: float = LOOK_S,
        twigs_from_rows: int = TWIGS_FROM_ROWS,
        pulse_s: float = PULSE_S,
        probe_s: float = PROBE_S,
        evaluators: Mapping[str, Evaluator] | None = None,
        expiries: Mapping[str, Expiry] | None = None,
        expiry_look_s: float = EXPIRY_LOOK_S,
        measures: Mapping[str, Measure] | None = None,
        indexers: Mapping[str, Indexer] | None = None,
        local_indexers: Mapping[str, LocalIndexer] | None = None,
        local_measurers: Mapping[str, LocalMeasurer] | None = None,
        ends: Mapping[str, Ends] | None = None,
    ) -> None:
        """Assemble the services of ``node`` as ``current`` knows it; `start` sets them going.

        Args:
            on_clock: told why this node mints no more timestamps, and None when it does again.
            in_flight_s: longer than any coordinator of the cluster waits for an answer.
            on_damage: told of what is found damaged on the disk.
            evaluators: what the wires do to items of leader-based tables, by the names of the wires.
            indexers: what items are in their tables' global indexes, likewise.
            local_indexers: how the wires index the items of one partition key, likewise.
            local_measurers: how large what those show of items is, likewise.
            expiries: how items of leader-based tables expire, likewise.
            expiry_look_s: between two looks for what has expired.
            measures: what items are, and how large, likewise.
            ends: when tables are to go, likewise.
            pulse_s: between two signs of life to those who share a leader with this node.
            probe_s: between two questions to each peer that measure the way to it; 0: none are asked.
        """
        self._on_error = on_error
        self.engine = engine
        self.transport = transport
        self.admission = Admission(limits)
        self.topology = Topology(node, engine, current, newest=transport.versions.newest)
        clock = HybridClock(self.topology.me.number, floor=load_ceiling(engine), max_ahead_us=CLOCK_AHEAD_US_MAX)
        asker = Asker(node, transport, self.serve, begin=self.begin, serve_at_once=self.serve_at_once)
        self._durable_answers = DurableAnswers(engine)
        self.failure_detector = FailureDetector(self.topology, transport, rng=rng)
        asker.doubted, asker.when_answered = self.failure_detector.doubted, self.failure_detector.answered
        asker.far = self.topology.far
        self.clock_watch = ClockWatch(
            self.topology, asker, wall_us=wall_us, rng=rng, skew_max_s=clock_skew_max_s, on_change=on_clock
        )
        self.timestamps = Timestamps(
            clock, engine, wall_us=wall_us, watch=self.clock_watch, is_ceiling_lost=engine.lost is not None
        )
        self.catalog = Catalog(self.topology, asker, engine, rng=rng)
        self._table_ends = TableEnds(self.catalog, ends or {}, wall_us=wall_us, rng=rng)
        self.standstill = Standstill()
        self.horizons = Horizons(self.topology, engine, rng=rng)
        local = LocalIndexes(engine, local_indexers, local_measurers)
        self.expiries = ExpiryIndex(self.topology, engine, expiries)
        self.tags = TagIndex(self.topology, engine)
        self.trees = HashTrees(
            self.topology,
            engine,
            admit=self.admission.background,
            look_s=trees_look_s,
            twigs_from_rows=twigs_from_rows,
            local=local,
            expiries=self.expiries,
            measures=measures,
            tags=self.tags,
        )
        self.counting = Counting(self.topology, asker, self.trees)
        self.damage = Damage(
            in_flight_s=in_flight_s,
            on_damage=on_damage,
            is_ripe_at_once=lambda table: (known := self.topology.table(table)) is not None and known.has_leaders,
        )
        self.healing = Healing(
            self.topology,
            asker,
            self.horizons,
            engine,
            self.trees,
            self.damage,
            admit=self.admission.background,
        )
        self.scrubber = Scrubber(
            self.topology,
            engine,
            self.trees,
            self.damage,
            wall_us=wall_us,
            rng=rng,
            admit=self.admission.background,
            interval_s=scrub_interval_s,
        )
        self.replica = Replica(
            self.topology,
            engine,
            clock,
            self.horizons,
            self.trees,
            self.damage,
            local,
            durable_answers=self._durable_answers,
            wall_us=wall_us,
            catch_up=self.catalog.news.catch_up,
        )
        self.coordinator = Coordinator(
            self.topology,
            asker,
            self.timestamps,
            wall_us=wall_us,
            rng=rng,
            catch_up=self.catalog.news.catch_up,
            under_way=self.admission.operations,
            probe_s=probe_s,
        )
        self.values = ValueTables(
            self.topology,
            asker,
            self.catalog,
            self.coordinator,
            self.replica,
            self.timestamps,
            self.tags,
            ahead_us_max=CLOCK_AHEAD_US_MAX,
            places=self.admission.requests,
            rng=rng,
        )
        self.key_values, self.crdt_values = self.values.key_values, self.values.crdt_values
        self.tag_queries, self.key_lists = self.values.tag_queries, self.values.key_lists
        self.hints = HintStore(
            self.topology,
            engine,
            self.horizons,
            wall_us=wall_us,
            observe=self.timestamps.observe,
            catch_up=self.catalog.news.catch_up,
        )
        self.handoff = HintedHandoff(
            self.topology,
            asker,
            self.hints,
            wall_us=wall_us,
            rng=rng,
            catch_up=self.catalog.news.catch_up,
            admit=self.admission.background,
            standstill=self.standstill,
        )
        self.horizons.when_doubted(self.trees.forget)
        self.anti_entropy = AntiEntropy(
            self.topology,
            asker,
            engine,
            self.trees,
            self.horizons,
            wall_us=wall_us,
            rng=rng,
            observe=self.timestamps.observe,
            catch_up=self.catalog.news.catch_up,
            admit=self.admission.background,
            interval_s=repair_interval_s,
        )
        self.anti_entropy.when_damaged = self.damage.met_row
        answers = self.anti_entropy.answers
        self.purger = Purger(
            self.topology,
            asker,
            self.horizons,
            engine,
            wall_us=wall_us,
            rng=rng,
            catch_up=self.catalog.news.catch_up,
            synchronise=self.anti_entropy.synchronise,
            rewrite=self.trees.write,
            has_hints=self.hints.has_hints,
            damage=self.damage,
            admit=lambda: self.wholeness.background(),
            interval_s=purge_interval_s,
            margin_us=purge_margin_us,
        )
        self.coordinator.repairs.may_begin = lambda: not self.admission.is_busy
        self._acceptor = Acceptor(engine, current, newest=transport.versions.newest)
        self.wholeness = Wholeness(
            self.topology,
            engine,
            timestamps=self.timestamps,
            catalog=self.catalog,
            acceptor=self._acceptor,
            horizons=self.horizons,
            purger=self.purger,
            trees=self.trees,
            wall_us=wall_us,
            admit=self.admission.background,
        )
        self.leader_tables = LeaderTables(
            self.topology,
            asker,
            engine,
            self.trees,
            self.damage,
            self.catalog,
            evaluators=evaluators or {},
            indexers=indexers or {},
            hedging=self.coordinator.hedging,
            range_turns=self.coordinator.range_turns,
            admission=self.admission,
            is_refusing=lambda: self.wholeness.is_refusing,
            expiries=self.expiries,
            expiry_look_s=expiry_look_s,
            wall_us=wall_us,
            check_clock=self.clock_watch.check_compared,
            rng=rng,
            catch_up=self.catalog.news.catch_up,
            on_error=on_error,
            local=local,
            durable_answers=self._durable_answers,
            pulse_s=pulse_s,
            standstill=self.standstill,
        )
        self.leader_repair = LeaderRepair(
            self.topology,
            asker,
            engine,
            self.trees,
            self.damage,
            self.anti_entropy,
            self.leader_tables,
            rng=rng,
            catch_up=self.catalog.news.catch_up,
            admit=self.admission.background,
            has_lost=lambda: self.wholeness.has_lost,
            in_flight_s=in_flight_s,
            interval_s=repair_interval_s,
            standstill=self.standstill,
        )
        self.leader_tables.register_replica.check = self._check_disk
        self.healing.settle = self.leader_repair.settling.make_right
        self.wholeness.rejoining = self.leader_repair.rejoining
        self.repairing = Repairing(
            self.topology,
            self.damage,
            self.scrubber,
            self.healing,
            self.anti_entropy,
            compare_led=self.leader_repair.led_repair.compare_everywhere,
        )
        self.restored_rows = RestoredRows(
            self.topology,
            self.catalog,
            self.coordinator,
            self.leader_tables.leader_based,
            admit=self.admission.background,
        )
        self.moving = Moving(
            self.topology,
            asker,
            self.anti_entropy,
            self.leader_tables.leadership,
            self.leader_tables.leader,
            self.leader_repair.led_repair,
            Copying(self.topology, asker, engine, self.leader_tables.leadership, self.admission),
            Leftovers(self.topology, engine, self.trees, self.horizons, self.expiries, self.tags),
            hints=self.hints.total,
            has_misplaced_hints=self.hints.has_misplaced,
            is_well=lambda: engine.failure is None and self.wholeness.condition.lost is None,
        )
        self.rebalancer = Rebalancer(self.topology, asker, self.catalog)
        self._background: list[asyncio.Task[None]] = []
        self._wire_addresses: dict[str, str] = {}
        self._telling: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._probe_s = probe_s
        self._at_once = {
            Read: self.replica.read_at_once,
            ReadRange: self.replica.read_range_at_once,
            **self.leader_tables.at_once,
        }
        self._beginners = {
            Apply: self.replica.begin_apply,
            **self.leader_tables.beginners,
        }
        self._serve = {
            Apply: self.replica.apply,
            Read: self.replica.read,
            ReadRange: self.replica.read_range,
            Hint: self.hints.keep,
            ReadHint: self.hints.read,
            **MapRequests(self.topology, self.catalog, self._acceptor).handlers,
            AskTime: self.clock_watch.answer,
            CountItems: self.counting.answer,
            Gossip: self.failure_detector.answer,
            AskMoves: self.moving.answer,
            Seal: self.purger.seal,
            Complete: self.purger.complete,
            Level: self.purger.level,
            LookAtTree: answers.look_at_tree,
            LookAtTwigs: answers.look_at_twigs,
            Tally: answers.tally,
            TallyTogether: answers.tally_together,
            ListKeys: answers.list_keys,
            LookAgain: answers.look_again,
            Meet: answers.meet,
            **self.values.handlers,
            **self.leader_tables.handlers,
            **self.leader_repair.handlers,
        }

    def start(self, wire_addresses: dict[str, str]) -> None:
        """Know the peers, begin to gossip, and let the others know where clients find this node."""
        self.topology.when_changed(self._know_peers)
        self._know_peers(self.topology.map)
        self._wire_addresses = wire_addresses
        self.topology.when_changed(self._tell_again)
        self.failure_detector.start()
        self._background.append(self._begin(self.catalog.news.run()))
        self._telling = self._begin(self._tell())
        for work in (
            self._table_ends.run(),
            self.clock_watch.run(),
            self.handoff.run(),
            self.purger.run(),
            self.purger.work_off(),
            self.healing.run(),
            self.scrubber.run(),
            self.scrubber.look_where_suspected(),
            self.trees.run(),
            self.anti_entropy.run(),
            self.wholeness.watch(),
            self.wholeness.recover(),
            self.moving.run(),
            self.rebalancer.run(),
            self.rebalancer.former_ledgers.run(),
        ):
            self._background.append(self._begin(work))
        if self._probe_s:
            self._background.append(self._begin(self.coordinator.staleness.run()))
        self.leader_tables.start()
        self.tags.when_broken = self._mend_tags
        if self.tags.has_broken:
            self._mend_tags()

    def _mend_tags(self) -> None:
        if self._mending is None or self._mending.done():
            self._mending = self._begin(self.tags.mend(self.admission.background))

    async def close(self) -> None:
        """Stop what runs in the background; the engine and the transport belong to the caller."""
        await self.leader_tables.close()
        self.failure_detector.close()
        background = [*self._background, *(task for task in (self._telling, self._mending) if task is not None)]
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        await self.handoff.close()
        await self.coordinator.close()
        await self.timestamps.close()
        self._durable_answers.close()
        await self.trees.close()
        self.admission.close()

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)

    def _know_peers(self, current: ClusterMap) -> None:
        me = self.topology.node
        self.transport.require(current.version)
        self.transport.set_peers({node.id: node.peer_address for node in current.nodes if node.id != me})

    def _tell_again(self, current: ClusterMap) -> None:
        """Have the map say again what it says no more: a peer of an older version proposed it, and left that out."""
        is_idle = self._telling is None or self._telling.done()
        if is_idle and not self.catalog.tells_presence(self._wire_addresses, speaks=self._speaks):
            self._telling = self._begin(self._tell())

    def _tell(self) -> Coroutine[None, None, None]:
        return self.catalog.keep_presence(self._wire_addresses, speaks=self._speaks)

    @property
    def _speaks(self) -> int:
        return self.transport.versions.newest

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._background_ended)
        return task
