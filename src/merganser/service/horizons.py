"""Seals and horizons of this node, kept on its disk: what `core.horizon` decides, per (table, partition).

A standing is loaded at the start, changed in memory at once, and durable when the call that changed it returns.
It comes into force before it is durable, which only ever refuses more. Batches reach the disk in order, so a disk that
forgets a horizon has also forgotten what was purged for it.

What is promised only for this life of the process is the vow, and the horizon that is about to be adopted.

Source: design notes in docs/internals/tombstones.md.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from merganser.core.horizon import NEWCOMER, Standing
from merganser.core.splitting import halves
from merganser.model.cluster import ClusterMap
from merganser.model.errors import RefusedError
from merganser.model.ids import PartitionId, TableId
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine, Readable
from merganser.storage.values import seal, unseal

NOT_WHOLE = "not_whole"
NOT_SEALED = "not_sealed"
BUSY = "busy"

Place = tuple[TableId, PartitionId]

_PREFIX = keys.metadata_key("horizon|")
_PLACE = struct.Struct(">IQ")


class Horizons:
    """The standings of this node; see the module's docstring."""

    def __init__(self, topology: Topology, engine: Engine, *, rng: random.Random) -> None:
        """Load what ``engine`` holds; forget, now and later, the tables that ``topology`` no longer knows."""
        self._engine = engine
        self._topology = topology
        self._rng = rng
        self._life = rng.getrandbits(62)
        self._doubts: dict[Place, int] = {}
        self._adopting: dict[Place, int] = {}
        self._standings = load_standings(engine)
        self._listeners: list[Callable[[], None]] = []
        self._doubters: list[Callable[[TableId, PartitionId], None]] = []
        self._forget_dropped(topology.map)
        topology.when_changed(self._forget_dropped)
        topology.when_split(self._split)

    def of(self, table: TableId, partition: PartitionId) -> Standing:
        """Return this node's standing."""
        return self._standings.get((table, partition), NEWCOMER)

    def known(self, table: TableId, partition: PartitionId) -> Standing | None:
        """Return this node's standing; None for that of a newcomer, as nearly all are at first."""
        return self._standings.get((table, partition))

    def of_range(self, table: TableId, partitions: Sequence[PartitionId]) -> tuple[int, ...]:
        """Return the horizon for each of ``partitions``; none if all are 0.

        Raises:
            RefusedError: rows of one of them may have vanished.
        """
        if not self._standings:
            return ()
        for partition in partitions:
            self.check_whole(table, partition)
        horizons = tuple(self.of(table, partition).horizon_us for partition in partitions)
        return horizons if any(horizons) else ()

    def horizon_us(self, table: TableId, partition: PartitionId) -> int:
        """Return this node's horizon, 0 for none."""
        return self.of(table, partition).horizon_us

    def floor_us(self, table: TableId, partition: PartitionId) -> int:
        """Return the time from before which this node takes nothing but from those who vouch for as much."""
        return max(self.horizon_us(table, partition), self._adopting.get((table, partition), 0))

    def vow(self, table: TableId, partition: PartitionId) -> int:
        """Return what a round has to give back when it completes."""
        return self._life + self._doubts.get((table, partition), 0)

    def check_whole(self, table: TableId, partition: PartitionId) -> None:
        """Raise unless a row that is not here was deleted or never came here.

        Raises:
            RefusedError: rows may have vanished.
        """
        if not self.of(table, partition).is_whole:
            raise RefusedError(
                NOT_WHOLE,
                f"rows of partition {partition} may have vanished here, until it has been compared with all replicas",
                map_epoch=self._topology.map.epoch,
            )

    async def seal(self, table: TableId, partition: PartitionId, until_us: int) -> Standing:
        """Take no client write at or before ``until_us`` any more."""
        return await self._keep(table, partition, self.of(table, partition).sealed(until_us))

    async def complete(self, table: TableId, partition: PartitionId, horizon_us: int, *, vow: int) -> None:
        """Take over the horizon of a round that counted on this replica.

        Raises:
            RefusedError: it cannot have.
        """
        standing = self.of(table, partition)
        if vow != self.vow(table, partition) or not standing.can_complete(horizon_us):
            raise RefusedError(NOT_SEALED, "this node has restarted, or lost rows, since it sealed the partition")
        await self._keep(table, partition, standing.completed(horizon_us))
        self._tell()

    @contextlib.contextmanager
    def adopting(self, table: TableId, partition: PartitionId, horizon_us: int) -> Iterator[None]:
        """Take nothing from before ``horizon_us`` but from those who vouch for as much, until the block ends.

        Raises:
            RefusedError: another adoption is under way.
        """
        place = (table, partition)
        if place in self._adopting:
            raise RefusedError(BUSY, f"partition {partition} is being levelled already")
        self._adopting[place] = horizon_us
        try:
            yield
        finally:
            del self._adopting[place]

    async def adopt(self, table: TableId, partition: PartitionId, horizon_us: int, *, vow: int) -> None:
        """Take over the horizon of those this replica has been synchronised with since ``vow``.

        Raises:
            RefusedError: rows may have vanished meanwhile.
        """
        if vow != self.vow(table, partition):
            raise RefusedError(NOT_WHOLE, "rows vanished while the partition was being levelled")
        await self._keep(table, partition, self.of(table, partition).sealed(horizon_us).adopted(horizon_us))
        self._tell()

    async def doubt(self, table: TableId, partition: PartitionId) -> None:
        """Vouch for nothing any more: rows may have vanished (not: are damaged, and refused when they are read)."""
        self._doubts[table, partition] = self._doubts.get((table, partition), 0) + 1
        for doubter in self._doubters:
            doubter(table, partition)
        await self._keep(table, partition, self.of(table, partition).doubted())
        self._tell()

    async def distrust(self, table: TableId, partition: PartitionId) -> None:
        """Vouch for nothing any more, and answer no reads: tombstones may be missing (`core.healing`)."""
        self._doubts[table, partition] = self._doubts.get((table, partition), 0) + 1
        await self._keep(table, partition, self.of(table, partition).distrusted())
        self._tell()

    async def doubt_everything(self) -> None:
        """Vouch for nothing any more, in any partition: the disk has lost what was synced."""
        for table, partition in list(self._standings):
            await self.doubt(table, partition)

    async def lose_everything(self, held: Iterable[Place], others: Iterable[Place], *, sealed_us: int) -> None:
        """Vouch for nothing in ``held``, and seal it and ``others`` anew: the disk has lost what was synced.

        A seal that was lost lies before ``sealed_us``, if that is the present.
        """
        batch = Batch()
        for place in others:
            self._put(batch, place, self.of(*place).sealed(sealed_us))
        for place in held:
            self._lost_rows(place)
            self._put(batch, place, self.of(*place).sealed(sealed_us).distrusted())
        self._engine.commit(batch)
        await self._engine.durable()
        self._tell()

    async def accept_loss(self, held: Iterable[Place]) -> None:
        """Take what is in ``held`` for all there is, though rows may have vanished; vouch for none of it.

        A horizon that stayed would bury on the other replicas what is missing here.
        """
        batch = Batch()
        for place in {*held, *self.doubted()}:
            self._lost_rows(place)
            self._put(batch, place, msgspec.structs.replace(self.of(*place).distrusted(), is_whole=True))
        self._engine.commit(batch)
        await self._engine.durable()

    def _lost_rows(self, place: Place) -> None:
        """Break the vow of a partition, and have its tree counted anew: its image may tell of rows that are gone."""
        self._doubts[place] = self._doubts.get(place, 0) + 1
        for doubter in self._doubters:
            doubter(*place)

    async def note_purged(self, table: TableId, partition: PartitionId, until_us: int) -> None:
        """Remember that a purge has come to its end, if the horizon it was for still stands."""
        standing = self.of(table, partition)
        if until_us <= standing.horizon_us:
            await self._keep(table, partition, standing.purged(until_us))

    def forget(self, place: Place, batch: Batch) -> None:
        """Know nothing of a partition that this node holds no more, from the commit of ``batch`` on."""
        self._adopting.pop(place, None)
        self._doubts[place] = self._doubts.get(place, 0) + 1
        if self._standings.pop(place, None) is not None:
            batch.delete(_PREFIX + _PLACE.pack(*place))

    def unpurged(self) -> list[Place]:
        """Return where there may be something to purge."""
        return [place for place, standing in self._standings.items() if standing.purged_us < standing.horizon_us]

    def doubted(self) -> list[Place]:
        """Return where rows may have vanished."""
        return [place for place, standing in self._standings.items() if not standing.is_whole]

    def when_changed(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change that leaves something to do."""
        self._listeners.append(listener)

    def when_doubted(self, listener: Callable[[TableId, PartitionId], None]) -> None:
        """Call ``listener`` with each partition some of whose rows may have vanished, before anyone is told."""
        self._doubters.append(listener)

    async def _keep(self, table: TableId, partition: PartitionId, standing: Standing) -> Standing:
        if standing != self.of(table, partition):
            batch = Batch()
            self._put(batch, (table, partition), standing)
            self._engine.commit(batch)
        await self._engine.durable()
        return standing

    def _put(self, batch: Batch, place: Place, standing: Standing) -> None:
        """Have ``standing`` in force at once, before it is kept: it only refuses more."""
        key = _PREFIX + _PLACE.pack(*place)
        batch.put(key, seal(key, msgspec.msgpack.encode(standing)))
        self._standings[place] = standing

    def _split(self, batch: Batch, factor: int) -> Callable[[], None]:
        """Have each part of a partition inherit its standing, and break all vows: rounds of before do not complete."""
        parts = {(table, p): s for (table, whole), s in self._standings.items() for p in halves(whole, factor)}
        for place in self._standings:
            batch.delete(_PREFIX + _PLACE.pack(*place))
        for place, standing in parts.items():
            key = _PREFIX + _PLACE.pack(*place)
            batch.put(key, seal(key, msgspec.msgpack.encode(standing)))

        def take() -> None:
            self._standings, self._doubts, self._life = parts, {}, self._rng.getrandbits(62)
            self._tell()

        return take

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _forget_dropped(self, current: ClusterMap) -> None:
        """Forget dropped tables; should that not reach the disk, the next start does it again."""
        kept = {table.id for table in current.tables}
        gone = [place for place in self._standings if place[0] not in kept]
        if not gone:
            return
        batch = Batch()
        for place in gone:
            del self._standings[place]
            batch.delete(_PREFIX + _PLACE.pack(*place))
        self._engine.commit(batch)


def load_standings(engine: Readable) -> dict[Place, Standing]:
    """Return what the engine holds.

    Raises:
        CorruptionError: a record is damaged.
    """
    found: dict[Place, Standing] = {}
    for key, stored in engine.scan(_PREFIX, keys.prefix_end(_PREFIX)):
        table, partition = _PLACE.unpack(key[len(_PREFIX) :])
        found[TableId(table), PartitionId(partition)] = msgspec.msgpack.decode(unseal(key, stored), type=Standing)
    return found
