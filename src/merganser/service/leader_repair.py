"""What keeps the replicas of leader-based tables equal, well and whole, put together in one place.

anti_entropy --> led_repair     followers that differ
healing -------> settling       damaged registers
wholeness -----> restoring      lost disks
                     tombstones     what nobody needs any more
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from merganser.model.ids import NodeId
from merganser.model.leader_messages import CompareLed, MadeWhole, Rejoin, Restore, Settle
from merganser.model.messages import Reply
from merganser.service.anti_entropy import REPAIR_INTERVAL_S, AntiEntropy
from merganser.service.asking import Asker
from merganser.service.damage import Damage
from merganser.service.hash_trees import HashTrees
from merganser.service.leader_tables import LeaderTables
from merganser.service.led_repair import LedRepair
from merganser.service.partition_gate import PartitionGate
from merganser.service.restoring import Rejoining, Restorer
from merganser.service.settling import Settling
from merganser.service.standstill import Standstill
from merganser.service.tombstones import Tombstones
from merganser.service.topology import Topology
from merganser.storage.engine import Engine


class LeaderRepair:
    """The repair of leader-based tables; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        trees: HashTrees,
        damage: Damage,
        anti_entropy: AntiEntropy,
        leader_tables: LeaderTables,
        *,
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
        admit: Callable[[], Awaitable[None]],
        has_lost: Callable[[], bool],
        in_flight_s: float,
        interval_s: float = REPAIR_INTERVAL_S,
        standstill: Standstill,
    ) -> None:
        """Assemble it.

        Args:
            topology: knows who holds what.
            asker: sends.
            engine: holds the registers.
            trees: of them.
            damage: what is damaged on this node.
            anti_entropy: compares replicas.
            leader_tables: elections, and leaders.
            rng: spreads the comparisons.
            catch_up: fetches a newer cluster map from a peer.
            admit: waits between slices of background work while clients need this node more.
            in_flight_s: longer than any request lasts.
            has_lost: whether this node's disk has lost something.
            interval_s: between two comparisons of the same.
            standstill: while it is on no tombstone is dropped.
        """
        gate = PartitionGate(topology, catch_up=catch_up)
        leadership, leader, promises = leader_tables.leadership, leader_tables.leader, leader_tables.promises
        leader_based, generations = leader_tables.leader_based, leader_tables.generations
        self.led_repair = LedRepair(
            topology, asker, anti_entropy, leadership, leader, leader_based, gate, rng=rng, interval_s=interval_s
        )
        self.settling = Settling(topology, engine, promises, trees, leadership, leader, leader_based, gate)
        self.restorer = Restorer(
            topology, asker, engine, promises, generations, trees, damage, anti_entropy, leadership, leader, gate
        )
        self.rejoining = Rejoining(
            topology, asker, engine, promises, generations, trees, leader_based, gate, rng=rng, has_lost=has_lost
        )
        leadership.may_vote = lambda group: engine.failure is None and self.rejoining.is_whole(group)
        self.tombstones = Tombstones(
            topology,
            asker,
            engine,
            generations,
            trees,
            leadership,
            leader,
            rng=rng,
            admit=admit,
            keep_s=in_flight_s,
            interval_s=interval_s,
            standstill=standstill,
        )
        leader_tables.works += [self.led_repair.run, self.tombstones.run]
        self.handlers: dict[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]] = {
            Settle: self.settling.settle,
            CompareLed: self.led_repair.compare_led,
            Rejoin: self.restorer.rejoin,
            Restore: self.rejoining.restore,
            MadeWhole: self.rejoining.made_whole,
        }
