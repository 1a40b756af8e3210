"""Gather the evidence once all is well again, and have it judged.

After the last fault the cluster gets time to settle. Then what each replica holds is noted. If replicas compare what
they hold, they must become equal by that alone. Then every key is read through drawn nodes, which repairs, the table is
scanned both ways, and the checkers have their say.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator

from merganser.core.admission import AdmissionLimits
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency
from merganser.model.errors import MerganserError
from merganser.model.ids import PartitionId, TableId
from merganser.model.leadership import Group
from merganser.service.leadership import Led
from merganser.service.member import Member
from merganser.sim import checkers, steps
from merganser.sim.checkers import Violation
from merganser.sim.checkers.indexes import indexes_under_way, outboxes_that_stay
from merganser.sim.checkers.leaders import intents_that_stay, undecided_transactions
from merganser.sim.checkers.replicas import NodeState, replicas_that_differ
from merganser.sim.clients import Clients, member_of, name_of
from merganser.sim.crdt_clients import CrdtClients
from merganser.sim.history import History, TableLookup
from merganser.sim.item_clients import ItemClients
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.value_clients import ValueClients
from merganser.sim.workloads import Concluding, Workload
from merganser.storage import keys
from merganser.storage.registers import decode_register

SETTLE_S = 60.0
MOVED_S = 300.0
"""Some dozens of steps, each of which may have to wait for an election, or a comparison that failed."""
EQUAL_S = 300.0
"""Exchanges wait up to 40 s for an answer that was lost, and rounds 120 s; both begin anew after some seconds."""
LOOK_S = 1.0
INTERVAL_MAX_S = 60.0  # with a longer one, the runs would only wait
POLL_S = 0.1
JUDGE = -1
"""The client that asks when all is well."""


class Verdict:
    """What a healed cluster says about the run that is over."""

    def __init__(self, clients: Clients, history: History, workload: Workload) -> None:
        """Ask through ``clients``, who made ``history``, and have ``workload`` take its last look."""
        self._workload = workload
        self._clients = clients
        self._history = history
        self._world = clients.world
        self._violations: list[Violation] = []

    async def violations(self) -> list[Violation]:
        """Return every promise that was broken."""
        await self._settle()
        states = self._states()
        self._violations += checkers.judge_both(self._history, states)
        if all(machine.repair_interval_s <= INTERVAL_MAX_S for machine in self._world.machines):
            await self._become_equal()
        if self._clients.table.has_leaders:
            await self._read_items()
        elif self._clients.table.conflicts == "crdt":
            await self._read_crdts()
        elif self._clients.table.has_contents:
            await self._read_values()
        else:
            await self._read_everything()
            await self._scan_everything()
        await self._look_up_tables()
        self._violations += checkers.judge_history(self._history)
        await self._wait_until(
            lambda: not self._differing()
        )  # one of them may be about to purge what others have purged
        self._violations += checkers.judge_states(self._states())
        self._add("errors", [checkers.where(error) for error in self._world.errors()])
        return self._violations

    async def _settle(self) -> None:
        """Wait until all know one map and nothing is under way; what does not come to be is told by the checkers."""
        await self._wait_until(lambda: all(m.engine.lost is None for m in self._world.machines))
        await self._wait_until(lambda: not any(map(_has_tables_to_go, self._world.machines)))
        await self._wait_until(lambda: not any(map(_is_moving, self._world.machines)), most_s=MOVED_S)
        self._add("moves", [_moving(machine) for machine in self._world.machines if _is_moving(machine)])
        await self._wait_until(lambda: len({member_of(m).topology.map.epoch for m in self._world.machines}) == 1)
        await self._wait_until(lambda: not any(member_of(m).handoff.pending() for m in self._world.machines))
        await self._wait_until(lambda: not any(member_of(m).failure_detector.doubted for m in self._world.machines))
        await self._wait_until(self._is_led)
        await self._scrubbed()
        await self._repaired()
        await self._wait_until(lambda: all(_has_all_trees(member_of(machine)) for machine in self._world.machines))
        expiries = [write.expires_at_s for write in self._history.writes if write.expires_at_s is not None]
        left_s = max(expiries, default=0) - EPOCH_US / 1e6 - self._world.loop.time()
        await asyncio.sleep(max(0.0, left_s))

    def _is_led(self) -> bool:
        """Tell whether the first replica of each group leads it, and nobody else does."""
        members = [member_of(machine) for machine in self._world.machines]
        ring = members[0].topology.ring
        leading = [list(map(_group_of, member.leader_tables.leadership.leading())) for member in members]
        wanted = [
            (Group(n, PartitionId(partition)), ring.preference_list(PartitionId(partition), n)[0])
            for n in {table.rule for table in members[0].topology.map.tables if table.has_leaders}
            for partition in range(ring.partitions)
        ]
        return all(
            (group in groups) == (member.topology.node == first)
            for group, first in wanted
            for member, groups in zip(members, leading, strict=True)
        )

    async def _scrubbed(self) -> None:
        """Where something has rotted, wait until disks were looked through, and all that was found is healed.

        If nothing has rotted there is nothing to find, and half of the time a run takes to settle would go into it.
        """
        members = [member_of(machine) for machine in self._world.machines]
        if not any(machine.disk.has_rotted for machine in self._world.machines):
            return
        passes = [member.scrubber.passes for member in members]
        await self._wait_until(
            lambda: all(member.scrubber.passes > before + 1 for member, before in zip(members, passes, strict=True))
        )
        await self._wait_until(lambda: not any(member.damage.wounds for member in members))

    async def _become_equal(self) -> None:
        """Wait until replicas are equal without a read; if they do not become so, that is a violation."""
        differing = self._differing()
        give_up_at = self._world.loop.time() + EQUAL_S
        while differing and self._world.loop.time() < give_up_at:
            await asyncio.sleep(LOOK_S)
            differing = self._differing()
        self._add("convergence", [f"{sentence}, though they have compared" for sentence in differing])

    def _differing(self) -> list[str]:
        return list(replicas_that_differ(self._states(with_trees=False)))

    async def _repaired(self) -> None:
        for machine in self._world.machines:
            await machine.spawn(member_of(machine).coordinator.repairs.idle())

    async def _read_everything(self) -> None:
        """Read each key at QUORUM through a drawn node, then at ALL, which repairs."""
        tables = {table.id: table for table in member_of(self._world.machines[0]).topology.map.tables}
        for key in sorted({write.key for write in self._history.writes if keys.table_in(write.key) in tables}):
            for level in Consistency.QUORUM, Consistency.ALL:
                if not await self._is_readable(tables[keys.table_in(key)], key, level):
                    self._add("readable", [f"{name_of(key)} cannot be read at {level.value} though all is well"])
        await self._repaired()

    async def _is_readable(self, table: Table, key: bytes, level: Consistency) -> bool:
        give_up_at = self._world.loop.time() + SETTLE_S
        while await self._clients.read(self._any_machine(), key, client=JUDGE, level=level, table=table) is None:
            if self._world.loop.time() > give_up_at:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _scan_everything(self) -> None:
        """Scan the whole table both ways: the live keys, in order, and no others."""
        newest = {read.key: read.value for read in self._history.reads}
        low, high = keys.table_range(self._clients.table.id)
        live = [key for key in sorted(newest) if low <= key < high and newest[key] is not None]
        for is_reverse in False, True:
            scan = await self._clients.scan(client=JUDGE, is_reverse=is_reverse)
            if scan.keys != (live[::-1] if is_reverse else live):
                self._add("readable", [f"a scan (reverse={is_reverse}) of {len(live)} live keys gave {len(scan.keys)}"])

    async def _read_items(self) -> None:
        """Read each item of a leader-based table through a drawn node, then all of them both ways."""
        items = ItemClients(self._clients)
        for key in sorted({operation.key for operation in self._history.items.operations}):
            await self._through_any(functools.partial(items.read_item, key=key, client=JUDGE), name_of(key))
        await self._conclude()
        for is_reverse in False, True:
            for is_consistent in False, True:
                scan = functools.partial(items.scan, client=JUDGE, is_reverse=is_reverse, is_consistent=is_consistent)
                await self._until(functools.partial(scan, is_hasty=True), f"all items (reverse={is_reverse})")
        await self._wait_until(lambda: not any(self._unfinished()), every_s=LOOK_S)

    async def _read_crdts(self) -> None:
        """Read each key of values that merge themselves at QUORUM through a drawn node, then at ALL, which repairs."""
        clients = CrdtClients(self._clients)
        for key in sorted({write.key for write in self._history.crdt_writes}):
            for level in (Consistency.QUORUM, Consistency.ALL):
                get = functools.partial(clients.get, key=key, client=JUDGE, level=level)
                await self._through_any(get, f"{name_of(key)} at {level.value}")
        await self._repaired()

    async def _read_values(self) -> None:
        """Read each key of a key-value table at QUORUM through a drawn node, then at ALL, which repairs."""
        values = ValueClients(self._clients)
        for key in sorted({put.key for put in self._history.value_puts}):
            for level in Consistency.QUORUM, Consistency.ALL:
                get = functools.partial(values.get, key=key, client=JUDGE, level=level)
                await self._through_any(get, f"{name_of(key)} at {level.value}")
        await self._repaired()
        await self._conclude()

    async def _conclude(self) -> None:
        if isinstance(self._workload, Concluding):
            await self._through_any(functools.partial(self._workload.conclude, client=JUDGE), "what was asked last")

    async def _through_any(self, look: Callable[[Machine], Awaitable[object]], what: str) -> None:
        await self._until(lambda: look(self._any_machine()), what)

    async def _until(self, look: Callable[[], Awaitable[object]], what: str) -> None:
        """Look again and again until something is answered."""
        give_up_at = self._world.loop.time() + SETTLE_S
        while not await look():
            if self._world.loop.time() > give_up_at:
                self._add("readable", [f"{what} cannot be read though all is well"])
                return
            await asyncio.sleep(POLL_S)

    def _unfinished(self) -> Iterator[str]:
        """Yield what transactions have left behind so far, and which items are ahead of their indexes."""
        states = self._states(with_trees=False)
        yield from intents_that_stay(states)
        yield from undecided_transactions(states)
        yield from outboxes_that_stay(states)
        yield from indexes_under_way(states)

    async def _look_up_tables(self) -> None:
        for name in sorted({change.name for change in self._history.table_changes}):
            for machine in self._world.machines:
                began_s = self._world.loop.time()
                work = member_of(machine).catalog.table(self._clients.table.wire, name, deadline=began_s + SETTLE_S)
                task = await self._clients.ask(machine, work, f"look up {name}", JUDGE)
                error = task.exception() if task.done() else None
                if error is not None and not isinstance(error, MerganserError):
                    raise error
                found = task.result().unique_id if task.done() and error is None else None
                ended_s = self._world.loop.time()
                self._history.table_lookups.append(TableLookup(name, found, began_s, ended_s, is_settled=True))

    def _states(self, *, with_trees: bool = True) -> list[NodeState]:
        return [_state_of(machine, with_trees=with_trees) for machine in self._world.machines]

    def _any_machine(self) -> Machine:
        return self._world.rng.choice(self._world.machines)

    def _add(self, checker: str, sentences: Iterable[str]) -> None:
        self._violations += [Violation(checker, sentence) for sentence in sentences]

    async def _wait_until(
        self, is_so: Callable[[], bool], *, every_s: float = POLL_S, most_s: float = SETTLE_S
    ) -> None:
        give_up_at = self._world.loop.time() + most_s
        while not is_so() and self._world.loop.time() < give_up_at:  # noqa: ASYNC110  # any condition
            await asyncio.sleep(every_s)


def _state_of(machine: Machine, *, with_trees: bool) -> NodeState:
    member = member_of(machine)
    _, metadata_end = keys.table_range(TableId(0))
    rows = dict(machine.engine.scan(metadata_end, b"\xff" * keys.TOKEN_END))
    trees = {
        place: member.trees.packed(*place)
        for place in (_places(member) if with_trees else ())
        if member.trees.is_ready(*place)
    }
    return NodeState(
        member.topology.node,
        member.topology.map,
        rows,
        member.handoff.pending(),
        frozenset(map(keys.split_local_key, (key for key, _ in machine.engine.scan(*keys.all_local_range())))),
        trees,
        frozenset(member.failure_detector.doubted),
        load=member.admission.load(),
        leading=frozenset(map(_group_of, member.leader_tables.leadership.leading())),
        limits=machine.limits or AdmissionLimits(),
        tags=member.tags.everything(),
        times=_times(member, rows),
        indexed_times=_indexed_times(member),
    )


def _times(member: Member, rows: dict[bytes, bytes]) -> dict[bytes, int]:
    """Return when registers expire, as they say themselves, where the index claims to tell all."""
    ring, found = member.topology.ring, dict[bytes, int]()
    for key, stored in rows.items():
        table = member.topology.table(keys.table_in(key))
        expiring = None if table is None else member.expiries.of(table)
        if table is not None and expiring is not None:
            value = decode_register(key, stored).value
            at_s = None if value is None else expiring.expires_at(value)
            if at_s is not None and member.expiries.is_whole(
                (table.id, ring.partition_of(keys.token_in(key))), expiring
            ):
                found[key] = at_s
    return found


def _indexed_times(member: Member) -> dict[bytes, tuple[int, ...]]:
    found: dict[bytes, tuple[int, ...]] = {}
    for table, partition in member.topology.held():
        if member.expiries.of(table) is not None:
            for entry in member.expiries.entries((table.id, partition)):
                found[entry.key] = (*found.get(entry.key, ()), entry.at_s)
    return found


def _is_moving(machine: Machine) -> bool:
    """Tell whether partitions change hands, or this machine holds what is no longer its own."""
    member = member_of(machine)
    current = member.topology.map
    is_under_way = bool(current.operation or current.pending or current.settling)
    return is_under_way or member.moving.leftovers.count() != 0


def _moving(machine: Machine) -> str:
    member = member_of(machine)
    current, progress = member.topology.map, member.rebalancer.progress()
    return (
        f"{machine.address} at epoch {current.epoch}, placed at {current.placed}: operation {progress}, pending "
        f"{current.pending}, settling {current.settling}, leftovers {member.moving.leftovers.count()}"
    )


def _has_tables_to_go(machine: Machine) -> bool:
    return any(steps.ends_ms(table) is not None for table in member_of(machine).topology.map.tables)


def _group_of(led: Led) -> Group:
    return led.group


def _has_all_trees(member: Member) -> bool:
    return all(member.trees.is_ready(*place) for place in _places(member))


def _places(member: Member) -> list[tuple[TableId, PartitionId]]:
    """Return the partitions that a node holds."""
    return [(table.id, partition) for table, partition in member.topology.held()]
