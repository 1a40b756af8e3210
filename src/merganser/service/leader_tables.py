"""What a member has for tables with leaders, put together in one place; it runs once there is such a table.

promises <-- leadership <-- leader <-- leader_based <-- ledger <-- transaction_recovery <-- transactions
    ^------ register_replica   |        ^-- indexer                     |       ^-------- ledger_sweep
                               +--------------- meets an intent --------^
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from merganser.core.leadership import PULSE_S
from merganser.model.cluster import ClusterMap
from merganser.model.ids import NodeId
from merganser.model.leader_messages import (
    Backfill,
    Campaign,
    Change,
    Confirm,
    Copies,
    Drop,
    Pulse,
    ReadLed,
    ReadRangeLed,
    Replicate,
    TakeOver,
    Touch,
    TouchRange,
    TouchTree,
)
from merganser.model.messages import Reply
from merganser.service.admission import Admission
from merganser.service.asking import Asker
from merganser.service.backfill import Backfiller
from merganser.service.catalog import Catalog
from merganser.service.changes_here import ChangesHere
from merganser.service.damage import Damage
from merganser.service.durable_answers import DurableAnswers
from merganser.service.expirer import Expirer
from merganser.service.expiry_index import ExpiryIndex
from merganser.service.generations import Generations
from merganser.service.hash_trees import HashTrees
from merganser.service.hedging import Hedging
from merganser.service.index_epochs import IndexEpochs
from merganser.service.indexer import Indexer as IndexDelivery
from merganser.service.leader import Leader
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership
from merganser.service.ledger import Ledger
from merganser.service.ledger_sweep import LedgerSweep
from merganser.service.local_indexes import LocalIndexes
from merganser.service.markers import Markers
from merganser.service.outboxes import Outboxes
from merganser.service.promises import Promises
from merganser.service.register_replica import RegisterReplica
from merganser.service.standstill import Standstill
from merganser.service.steps import (
    EXPIRY,
    INDEXES,
    RESTORES,
    TRANSACTIONS,
    WIRES,
    Evaluator,
    Indexer,
    of_indexes,
    of_restores,
    of_wires,
)
from merganser.service.topology import Topology
from merganser.service.transaction_recovery import Recovery
from merganser.service.transaction_steps import maker
from merganser.service.transactions import Transactions
from merganser.service.turns import Turns
from merganser.storage.engine import Engine


class LeaderTables:
    """The services of leader-based tables; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        trees: HashTrees,
        damage: Damage,
        tables: Catalog,
        *,
        evaluators: Mapping[str, Evaluator],
        indexers: Mapping[str, Indexer],
        hedging: Hedging,
        range_turns: Turns,
        admission: Admission,
        is_refusing: Callable[[], bool],
        expiries: ExpiryIndex,
        expiry_look_s: float,
        wall_us: Callable[[], int],
        check_clock: Callable[[], None],
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        on_error: Callable[[BaseException], None],
        local: LocalIndexes,
        durable_answers: DurableAnswers,
        pulse_s: float = PULSE_S,
        standstill: Standstill,
    ) -> None:
        """Assemble them; `start` sets them going.

        Args:
            tables: the catalog, which makes the ledger when it is needed, and changes indexes.
            evaluators: of the wires, by their names, and
            indexers: likewise.
            hedging: shared with the coordinator of leaderless tables, as are
            range_turns: for reads of ranges, and
            admission: counts reads and writes through this node, and what it leads.
            is_refusing: tells whether the disk is not well enough for some requests.
            local: the local indexes of this node's registers.
            durable_answers: those of the node that wait for its engine.
            expiries: when items expire.
            expiry_look_s: between two looks for what has.
            wall_us: microseconds since 1970.
            check_clock: raises a ClockSkewError if nobody can rely on that.
            standstill: while it is on nothing is dropped, and no transaction committed or ended.
        """
        self._topology = topology
        admit = admission.background
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self.promises = Promises(engine)
        self.generations = Generations(engine)
        topology.when_split(self.promises.split)
        topology.when_split(self.generations.split)
        topology.when_forked(self.promises.fork)
        topology.when_forked(self.generations.fork)
        self.leadership = Leadership(
            topology,
            asker,
            self.promises,
            engine,
            trees,
            rng=rng,
            catch_up=catch_up,
            on_error=on_error,
            pulse_s=pulse_s,
        )
        self.register_replica = RegisterReplica(
            topology,
            engine,
            self.promises,
            self.generations,
            trees,
            damage,
            durable_answers=durable_answers,
            catch_up=catch_up,
        )
        self.outboxes = Outboxes(topology, indexers)
        self.leader = Leader(
            topology,
            asker,
            engine,
            self.leadership,
            trees,
            damage,
            outboxes=self.outboxes,
            admit=admit,
            catch_up=catch_up,
            local=local,
        )
        self.leader.makers[WIRES] = of_wires(evaluators)
        self.leader.makers[INDEXES] = of_indexes()
        self.changes_here = ChangesHere(self.leader, admission, is_refusing=is_refusing)
        self.leader_based = LeaderBased(
            topology,
            asker,
            self.leadership,
            hedging=hedging,
            range_turns=range_turns,
            rng=rng,
            catch_up=catch_up,
            under_way=admission.operations,
            local=local,
            changes_here=self.changes_here,
        )
        self.indexer = IndexDelivery(
            topology,
            asker,
            engine,
            self.leadership,
            self.leader,
            self.outboxes,
            IndexEpochs(topology, self.leadership, self.leader_based),
            rng=rng,
            admit=admit,
            on_error=on_error,
        )
        self.markers = Markers(topology, engine, self.leadership, self.leader, rng=rng, admit=admit)
        self.backfiller = Backfiller(
            topology,
            asker,
            engine,
            self.leadership,
            self.leader,
            self.leader_based,
            self.outboxes,
            self.indexer,
            tables,
            rng=rng,
            admit=admit,
            catch_up=catch_up,
            on_error=on_error,
        )
        self.ledger = Ledger(tables, self.leader_based)
        self.recovery = Recovery(topology, self.ledger, self.leader_based)
        self.sweep = LedgerSweep(
            topology, engine, self.ledger, self.recovery, leading=self.leadership.leading, rng=rng, admit=admit
        )
        self.transactions = Transactions(self.ledger, self.recovery, self.leader_based, rng=rng, on_error=on_error)
        self.leader.makers[TRANSACTIONS] = maker(
            evaluators, when_begun=self.sweep.notice, check_standstill=standstill.check
        )
        self.leader.makers[RESTORES] = of_restores()
        self.register_replica.check_standstill = standstill.check
        self.leader.items.resolver = self.recovery
        self.expirer = Expirer(
            topology,
            expiries,
            self.leadership,
            self.leader_based,
            wall_us=wall_us,
            check_clock=check_clock,
            rng=rng,
            admit=admit,
            look_s=expiry_look_s,
        )
        self.leader.makers[EXPIRY] = self.expirer.maker()
        self.handlers: dict[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]] = {
            Campaign: self.leadership.campaign,
            Pulse: self.leadership.pulse,
            Confirm: self.leadership.confirm_claims,
            TakeOver: self.leadership.take_over,
            Touch: self.register_replica.touch,
            TouchRange: self.register_replica.touch_range,
            TouchTree: self.register_replica.touch_tree,
            Replicate: self.register_replica.replicate,
            Copies: self.register_replica.replicate_together,
            Drop: self.register_replica.drop,
            Change: self.leader.change,
            ReadLed: self.leader.reads.read,
            ReadRangeLed: self.leader.reads.read_range,
            Backfill: self.backfiller.backfill,
        }
        self.at_once: dict[type, Callable[[NodeId, Any], Reply | None]] = {ReadLed: self.leader.reads.read_at_once}
        """Of handlers: those that answer if they need not wait."""
        self.beginners: dict[type, Callable[[NodeId, Any], asyncio.Future[Reply] | Reply | None]] = {
            Confirm: self.leadership.begin_to_confirm_claims,
            Replicate: self.register_replica.begin_replicate,
            Copies: self.register_replica.begin_replicate_together,
            Change: self.leader.begin_change,
            ReadLed: self.leader.reads.begin_read,
        }
        """Of handlers: those that may begin without a task."""
        self.works: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.leadership.run,
            self.leader.run,
            self.sweep.run,
            self.indexer.run,
            self.indexer.go_through,
            self.expirer.run,
            self.backfiller.run,
            self.markers.run,
        ]
        """What runs in the background; others may add theirs before `start`."""
        self._background: list[asyncio.Task[None]] = []

    @property
    def is_running(self) -> bool:
        """Tell whether there has been a table with leaders in this life of the node."""
        return bool(self._background)

    def start(self) -> None:
        """Run what runs in the background, from the first table with leaders on."""
        self._topology.when_changed(self._look)
        self._look(self._topology.map)

    async def close(self) -> None:
        """Leave what is led here to others, and stop."""
        await self.transactions.close()
        await self.leadership.close()
        self.leader.close()
        self.changes_here.close()
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await self.indexer.close()
        await self.backfiller.close()

    def _look(self, current: ClusterMap) -> None:
        if self._background or not any(table.has_leaders for table in current.tables):
            return
        for work in self.works:
            task = self._loop.create_task(work())
            task.add_done_callback(self._ended)
            self._background.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)
