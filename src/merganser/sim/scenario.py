"""A whole cluster under clients and faults, and the verdict.

::

    found the cluster -> create the table -> clients work while the nemesis hurts -> heal -> settle -> verdict

One seed decides everything: who does what when, what fails, what is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import msgspec

from merganser.model.cluster import Table
from merganser.model.errors import ConfigurationError, TableExistsError
from merganser.model.policy import Policy
from merganser.sim.checkers import Violation, where
from merganser.sim.clients import Clients
from merganser.sim.history import CrdtWrite, History, TableChange, ValuePut, Write
from merganser.sim.loop import SimulationError
from merganser.sim.nemeses import EVERY_S, FAMILIES, Nemesis, families_of
from merganser.sim.nemeses.arena import LASTS_S, Arena
from merganser.sim.nemeses.clocks import DRIFT_MAX
from merganser.sim.residency import Watch, WatchedEngine
from merganser.sim.upgrade import Upgrade, behind_members
from merganser.sim.verdict import Verdict
from merganser.sim.workloads import (
    CONFLICTS,
    IN_DATA_CENTERS,
    INDEXED,
    LIMITED,
    NAMED,
    ON_LEADERS,
    WIRES,
    Workload,
)
from merganser.sim.world import World
from merganser.storage.memory import MemoryEngine

CLIENTS = 4
THINK_S = (0.03, 0.1, 0.1, 0.3)
"""Means of the pause between two requests, one drawn a run: what fails in a hurry and what fails with time."""
NODES = (3, 3, 4, 5)
"""With three every node holds every row; with more, some coordinate and keep hints for what they do not hold."""
DATA_CENTERS = 2
CHANGES_OF_POLICIES = {"policies", "zones-of-tables"}
"""Nemeses."""
CREATE_TIMEOUT_S = 60.0
UNNOTICED_SHARE = 0.5  # a process that dies is found out at once, a machine that does is not
NEVER_S = 1e9
REPAIR_INTERVALS_S = (NEVER_S, 2.0, 10.0)
"""One drawn a run, for anti-entropy and for purging: with none of both, hints and reads have to do it all."""
LEADERS_REPAIR_INTERVALS_S = (2.0, 10.0)  # only repair brings a replica up that a leader has given up on
PURGE_MARGINS_US = (1_000_000, 10_000_000)
"""As far behind the clock as a round seals: in an hour of real life a minute, in runs of seconds right behind it."""
SCRUB_INTERVAL_S = 4.0  # a run lasts some ten seconds


class Pace(msgspec.Struct, frozen=True):
    """How fast things happen in a run."""

    think_s: tuple[float, ...] = THINK_S
    lasts_s: tuple[float, float] = LASTS_S
    """Of a fault."""
    every_s: tuple[float, float] = EVERY_S
    """Between two faults."""


PACES = {"quick": Pace(), "slow": Pace(think_s=(0.6, 1.2), lasts_s=(0.5, 12.0), every_s=(0.5, 8.0))}
"""Of runs with leaders, one drawn a run: the slow one leaves time to elect others, to lead, and to hand over."""


class Scenario(msgspec.Struct, frozen=True):
    """How large, how long and how hard a run is."""

    workload: str = "registers"
    nemesis: str = "all"
    nodes: int = 0
    """0: drawn, 3 to 5."""
    zones: int = 3
    partitions: int = 16
    operations: int = 25
    """Of each client."""
    hot_keys: int = 3
    """Shared by all clients."""
    loss: float = 0.2
    """Share of messages that the worst storms lose."""
    clock_jump_s: float = 5.0
    """How far a wall clock may be off, either way."""
    repair_interval_s: float = 0.0
    """Of anti-entropy and of purging; 0: drawn, none among them."""
    pace: str = "drawn"
    """Of runs with leaders: one of `PACES`."""
    data_centers: int = 0
    """With as many machines in each as there are zones, and a table that has a policy; 0: none, unless the workload has
    some."""
    older: int = 0
    """Machines that begin on the oldest version and are upgraded one after another (`sim.upgrade`)."""

    def check(self) -> None:
        """Return if there are such a workload, such a nemesis and such a pace, and a partition for each node.

        Raises:
            ConfigurationError: there are not.
        """
        if self.workload not in NAMED:
            raise ConfigurationError(f"no workload is called {self.workload!r}: choose one of {', '.join(NAMED)}")
        families_of(self.nemesis)
        if self.older and self.workload in CONFLICTS:
            raise ConfigurationError(
                f"workload {self.workload} begins on tables that no older node can have: leave out --older"
            )
        if self.pace not in ("drawn", *PACES):
            raise ConfigurationError(f"no pace is called {self.pace!r}: choose drawn, {', '.join(PACES)}")
        if self.older and self.is_in_data_centers:
            raise ConfigurationError("no older node knows of data centres: leave out --older")
        nodes = self.nodes or self.machines or max(NODES)
        if self.partitions.bit_count() != 1 or self.partitions < nodes:
            raise ConfigurationError(
                f"{self.partitions} partitions for {nodes} nodes: choose a power of two, no less than the nodes"
            )

    @property
    def is_in_data_centers(self) -> bool:
        """Tell whether there are several, or the workload needs some."""
        return bool(self.data_centers) or self.workload in IN_DATA_CENTERS

    @property
    def is_watched(self) -> bool:
        """Tell whether tables are to be in some places only."""
        return self.is_in_data_centers or self.changes_policies

    @property
    def changes_policies(self) -> bool:
        """Tell whether the policies of tables change."""
        return bool(CHANGES_OF_POLICIES & set(self.nemesis.split("+")))

    @property
    def machines(self) -> int:
        """How many there are if they are in data centres and nobody says how many; 0: drawn."""
        return (self.data_centers or DATA_CENTERS) * self.zones if self.is_in_data_centers else 0


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to."""

    seed: int
    scenario: Scenario
    violations: list[Violation]
    trace: str
    acked: int
    unknown: int
    reads: int
    scans: int
    faults: dict[str, int]
    messages: int
    lost: int
    repairs: int
    exchanges: int
    """That came to their end, of the last life of each machine; background comparisons, not those of rounds."""
    met: int
    """Rows that they changed."""
    purged: int
    """Rows that purges changed."""
    versions: dict[int, int]
    """How many reads of key-value tables returned so many values, by that number."""
    virtual_s: float
    timeline: tuple[str, ...]
    """Faults, requests and their answers, as they happened."""

    @property
    def operations(self) -> int:
        """How many requests were answered, or left without one."""
        return self.acked + self.unknown + self.reads + self.scans


def run_scenario(seed: int, scenario: Scenario = Scenario()) -> Outcome:  # noqa: B008  # frozen
    """Run one seeded scenario to its verdict."""
    scenario.check()
    drawn = random.Random(seed)
    nodes = drawn.choice(NODES)
    world = World(
        seed,
        machines=scenario.nodes or scenario.machines or nodes,
        zones=scenario.zones,
        data_centers=(scenario.data_centers or DATA_CENTERS) if scenario.is_in_data_centers else 0,
        partitions=scenario.partitions,
        engine_type=WatchedEngine if scenario.is_watched else MemoryEngine,
    )
    repair_interval_s, margin_us = drawn.choice(REPAIR_INTERVALS_S), drawn.choice(PURGE_MARGINS_US)
    pace = Pace()
    if scenario.workload in ON_LEADERS:
        repair_interval_s = drawn.choice(LEADERS_REPAIR_INTERVALS_S)
        pace = PACES[drawn.choice(tuple(PACES)) if scenario.pace == "drawn" else scenario.pace]
    for machine in world.machines:
        machine.repair_interval_s = machine.purge_interval_s = scenario.repair_interval_s or repair_interval_s
        machine.purge_margin_us = margin_us
    return _Run(seed, scenario, world, pace).outcome()


def _policy(world: World) -> Policy:
    """Draw where the table is to be: everywhere, with room for hints or without, or in some places alone."""
    names = sorted({machine.data_center for machine in world.machines})
    zones = sorted({machine.zone for machine in world.machines})
    whole, some = len(zones), max(1, len(zones) - 1)
    counts, allowed = world.rng.choice(
        (
            (dict.fromkeys(names, whole), ()),
            (dict.fromkeys(names, some), ()),
            (dict.fromkeys(names[:1], whole), ()),
            (dict.fromkeys(names[:1], some), ()),
            (dict.fromkeys(names, some), tuple(zones[:some])),
        )
    )
    return Policy(sum(counts.values()), replicas=tuple(sorted(counts.items())), zones=allowed)


class _Run:
    def __init__(self, seed: int, scenario: Scenario, world: World, pace: Pace) -> None:
        self._seed = seed
        self._scenario = scenario
        self._world = world
        self._pace = pace
        world.network.unnoticed_share = UNNOTICED_SHARE
        self._policy = _policy(world) if scenario.is_in_data_centers else None
        n = min(3, len(world.machines)) if self._policy is None else self._policy.n
        self._history = History(n, {} if self._policy is None else dict(self._policy.replicas))
        self._watch = Watch(world, has_changes=scenario.changes_policies)
        self._arena = Arena(world, loss=scenario.loss, clock_jump_s=scenario.clock_jump_s, lasts_s=pace.lasts_s)
        self._history.troubles = self._arena.troubles
        self._history.has_purges = any(machine.purge_interval_s < NEVER_S for machine in world.machines)
        self._history.items.broken_promises = world.witness.sentences
        self._violations: list[Violation] = []

    def outcome(self) -> Outcome:
        try:
            self._world.run(lambda _world: self._play())
        except SimulationError as error:
            self._violations.append(Violation("errors", f"{error}"))
        except Exception as error:  # noqa: BLE001  # the root of the run: whatever it is, the seed is to be told
            self._violations.append(Violation("errors", where(error)))
        return self._outcome()

    async def _play(self) -> None:
        upgrade = Upgrade(self._arena, self._scenario.older, every_s=self._pace.every_s)
        for machine in self._world.machines:
            machine.limits = LIMITED.get(self._scenario.workload)
            if FAMILIES["rot"] in families_of(self._scenario.nemesis):  # else a scrub would only hide what is wrong
                machine.scrub_interval_s = SCRUB_INTERVAL_S
            machine.start()
        table = await self._create_table()
        clients = Clients(self._world, table, self._history, think_s=self._world.rng.choice(self._pace.think_s))
        workload = NAMED[self._scenario.workload](clients, self._scenario.hot_keys)
        if self._scenario.is_watched:
            self._watch.begin()
        await self._work(workload, upgrade)
        await self._world.start()
        await self._arena.finish()
        await asyncio.sleep(self._ahead_s())
        self._violations += await Verdict(clients, self._history, workload).violations()
        if self._scenario.is_watched:
            self._watch.look()
            self._violations += self._watch.violations
        self._violations += [Violation("versions", told) for told in behind_members(self._world.machines)]

    async def _work(self, workload: Workload, upgrade: Upgrade) -> None:
        nemesis = Nemesis(self._scenario.nemesis, self._arena, every_s=self._pace.every_s)
        nemesis.start()
        loop = self._world.loop
        work = [loop.create_task(workload.client(number, self._scenario.operations)) for number in range(CLIENTS)]
        if self._scenario.older:
            work.append(loop.create_task(upgrade.run()))
        for one in work:
            await one
        self._violations += upgrade.violations
        await nemesis.stop()
        self._history.has_losses = self._arena.losses > 0
        self._history.has_other_members = self._arena.has_other_members
        loop.tell("all is healed")

    def _ahead_s(self) -> float:
        """Return after how long what was written by a clock ahead is in the past."""
        return self._scenario.clock_jump_s + (DRIFT_MAX * self._world.loop.time()) * (
            "clock drift" in self._arena.faults
        )

    async def _create_table(self) -> Table:
        """Create one table through two nodes at once; one wins, both then know it."""
        deadline = self._world.loop.time() + CREATE_TIMEOUT_S
        attempts = []
        for number, machine in enumerate(self._world.machines[:2]):
            member = await self._world.up(machine)
            change = TableChange("t", f"first-{number}", False, self._world.loop.time())
            self._history.table_changes.append(change)
            work = member.catalog.create_table(
                wire=WIRES.get(self._scenario.workload, "sim"),
                name="t",
                n=min(3, len(self._world.machines)),
                policy=self._policy,
                definition=b"",
                unique_id=change.unique_id,
                deadline=deadline,
                replication="leader" if self._scenario.workload in ON_LEADERS else "leaderless",
                indexes=INDEXED.get(self._scenario.workload, ()),
                conflicts=CONFLICTS.get(self._scenario.workload, "lww"),
            )
            attempts.append((change, machine.spawn(work)))
        created = []
        for change, attempt in attempts:
            change.is_certainly_undone = True
            with contextlib.suppress(TableExistsError):
                created.append(await attempt)
                change.is_certainly_undone, change.acked_s = False, self._world.loop.time()
        return created[0]

    def _outcome(self) -> Outcome:
        writes: list[Write | ValuePut | CrdtWrite] = [
            *self._history.writes,
            *self._history.value_puts,
            *self._history.crdt_writes,
        ]
        items = self._history.items
        members = [machine.member for machine in self._world.machines if machine.member is not None]
        return Outcome(
            seed=self._seed,
            scenario=self._scenario,
            violations=self._violations,
            trace=self._world.loop.trace,
            acked=sum(write.acked_s is not None for write in writes) + items.acked(),
            unknown=sum(write.acked_s is None and not write.is_certainly_unwritten for write in writes)
            + items.unknown(),
            reads=len(self._history.reads)
            + len(self._history.value_reads)
            + len(self._history.crdt_reads)
            + items.reads(),
            scans=len(self._history.scans) + len(items.pages) + len(items.index_looks),
            faults=dict(sorted(self._arena.faults.items())),
            messages=self._world.network.sent,
            lost=self._world.network.lost,
            repairs=sum(member.coordinator.repairs.sent for member in members),
            exchanges=sum(member.anti_entropy.totals.completed for member in members),
            met=sum(member.anti_entropy.totals.met_here + member.anti_entropy.totals.met_there for member in members),
            purged=sum(member.purger.purged_rows for member in members),
            versions=dict(Counter(len(read.values) for read in self._history.value_reads)),
            virtual_s=self._world.loop.time(),
            timeline=tuple(self._world.loop.timeline),
        )
