"""The hash trees of this node: one for each partition of a table it holds, true at every turn of the loop.

The entries of `service.expiry_index` and `service.tag_index` change in the batches of what they tell of, here and
nowhere else.

Every change of a row goes through `put` or `write`, which change the tree in the same turn as the engine's commit.
A tree (`core.hash_tree`) is kept in memory, and on disk as an *image* under ``tree|``, table, partition::

                     image there
    unknown --------------------------------> imaged --a change (deletes the image)--> changing
       |                                         ^                                        ^ |
       | no image, or a damaged one              |        nothing changed between two     | |
       v                                         +------------- looks, or close ----------|-+
    counting --at the end of the partition------------------------------------------------+

Invariants:

- *An image is there only if it equals the rows.* The change that makes it wrong deletes it in its own batch, and
  batches reach the disk in order and whole: so it holds after a power cut as well.
- *A tree that is being counted tells what lies before ``counted_to``.* Rows are counted in the order of their keys, a
  slice in one turn; a write before that key changes the tree, a write after it is counted when its turn comes.
- *Large partitions have twigs* (`core.hash_tree`): all are counted with them, and those of few rows lose them at the
  end. One that has grown gets them leaf by leaf in the background. Only images at a close hold them.
- A damaged row adds nothing when it is counted: the leaf then differs from those of the other replicas, and the
  exchange finds it. One that rots after it was counted is found by `recount`. As a replica without the row has the same
  leaf, a tree with such a leaf is *flawed*: it has no `root` to be trusted, and no image.

The entries of local indexes (`service.local_indexes`) change in the batches of their rows, here and nowhere else.

A partition that the engine cannot read to its end gets no tree: `ready` raises, and the next look tries again from
there. Trees and images of a dropped table go with it; should that not reach the disk, the next start does it again.
When the ring is cut finer, all trees and images go, in the batch of the map, and all rows are counted again.

Source: design §4; docs/internals/hash-trees.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from merganser.core.hash_tree import LEAVES, fingerprint, leaf_of, seed_of, twig_at
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError, StorageFailedError, UnavailableError
from merganser.model.ids import PartitionId, TableId
from merganser.service.counts import Count, Measure
from merganser.service.expiry_index import ExpiryIndex
from merganser.service.kept_trees import SLICE_ROWS, KeptTree, KeptTrees, is_intact, named
from merganser.service.local_indexes import LocalIndexes
from merganser.service.tag_index import Operations, TagIndex
from merganser.service.topology import Topology
from merganser.service.tree_images import Place, TreeImages, image_key
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine

LOOK_S = 60.0
"""Between two looks for partitions that are quiet: an image costs 8 KiB, and the next change throws it away."""
CLOSE_S = 5.0  # a thousand images take 50 ms; what has none is counted at the next start
TWIGS_FROM_ROWS = 128 * LEAVES
"""A partition with more has twigs: two bytes a row at most, and of a leaf that differs four rows are read, not 128."""

Change = tuple[TableId, bytes, bytes | None, bytes | None]
"""Table, key, what is stored, and what is to be stored instead."""


class HashTrees:
    """The trees of this node's partitions; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        *,
        admit: Callable[[], Awaitable[None]],
        expiries: ExpiryIndex | None = None,
        look_s: float = LOOK_S,
        twigs_from_rows: int = TWIGS_FROM_ROWS,
        local: LocalIndexes | None = None,
        measures: Mapping[str, Measure] | None = None,
        tags: TagIndex | None = None,
    ) -> None:
        """Know the trees of what ``engine`` holds; forget, now and later, the tables that ``topology`` no longer knows.

        Args:
            topology: knows the tables and what this node holds.
            engine: holds rows and images.
            admit: waits between slices while clients need this node more.
            expiries: when items expire, which changes with them.
            look_s: between two looks for partitions that are quiet.
            twigs_from_rows: partitions with more rows have twigs.
            local: the local indexes of the rows.
            measures: what items of leader-based tables are, by wire.
            tags: which rows have which, which changes with them.
        """
        self._local = local or LocalIndexes(engine)
        self._topology = topology
        self._engine = engine
        self._expiries = expiries or ExpiryIndex(topology, engine)
        self._images = TreeImages(engine)
        self._admit = admit
        self._look_s = look_s
        self._twigs_from_rows = twigs_from_rows
        self._kept = KeptTrees(
            topology,
            engine,
            self._images,
            local=self._local,
            expiries=self._expiries,
            tags=tags or TagIndex(topology, engine),
            measures=measures or {},
            twigs_from_rows=twigs_from_rows,
        )
        self._news = asyncio.Event()
        self._kept.forget_dropped(topology.map)
        topology.when_changed(self._look_at)
        topology.when_split(self._split)

    # Changes

    def put(self, table: TableId, partition: PartitionId, key: bytes, before: bytes | None, after: bytes) -> None:
        """Store one row: `write` for the path that has to be fast.

        Args:
            table: of the row.
            partition: of the key.
            key: of the row.
            before: what is stored under it, intact, read in this turn of the loop.
            after: what to store.

        Raises:
            StorageFailedError: nothing was written, or it is unknown whether it was.
        """
        kept = self._kept.by_place.get((table, partition))
        if kept is None or not kept.is_plain:
            self.write(((table, key, before, after),))
            return
        batch = Batch().put(key, after)
        if kept.local_keys is not None or kept.expiring is not None or kept.tags is not None:
            batch.operations += self._derived((table, partition), kept, key, before, after)
        self._engine.commit(batch)
        kept.tree.replace(twig_at(keys.token_in(key), self._kept.shift), key, before, after, kept.seed)
        kept.counter.change(key, before, after)

    def write(self, changes: Iterable[Change], *, is_doubtful: bool = False) -> None:
        """Change rows, all together; what is stored has been read in this turn of the loop.

        Args:
            changes: one at most of a row.
            is_doubtful: the engine may hold something else than what was read.

        Raises:
            UnavailableError: one is of a table that was dropped; nothing was written.
            StorageFailedError: nothing was written, or it is unknown whether it was.
        """
        batch, wanted, touched = Batch(), [], dict[Place, KeptTree]()
        for table, key, before, after in changes:
            place = (table, self._topology.ring.partition_of(keys.token_in(key)))
            touched[place] = kept = self._kept.of(place)
            wanted.append((place, kept, key, before, after))
            batch.operations.append((key, after))
            batch.operations += self._derived(place, kept, key, before, after, is_doubtful=is_doubtful)
        for place, kept in touched.items():
            if kept.has_image:
                batch.delete(image_key(place))
        self._engine.commit(batch)
        for kept in touched.values():
            kept.has_image, kept.is_plain = False, kept.counted_to is None
        for place, kept, key, before, after in wanted:
            self._toggle(place, kept, key, before, after)

    def replace(self, table: TableId, partition: PartitionId, changes: Sequence[Change]) -> None:
        """Change rows of which some are damaged, and count their leaves: what was counted of those nobody knows.

        Raises:
            UnavailableError: the table was dropped; nothing was written.
            StorageFailedError: nothing was written, or it is unknown whether it was.
        """
        self.write(changes, is_doubtful=True)
        for leaf in dict.fromkeys(self.leaf_of(table, partition, key) for _, key, _, _ in changes):
            with contextlib.suppress(CorruptionError):  # a block of it cannot be read: it stays as it is
                self.recount(table, partition, leaf)

    def _derived(
        self,
        place: Place,
        kept: KeptTree,
        key: bytes,
        before: bytes | None,
        after: bytes | None,
        *,
        is_doubtful: bool = False,
    ) -> Operations:
        """Return what follows from the change of a row, for its batch."""
        derived: Operations = []
        if kept.local_keys is not None:
            derived += self._local.changes(kept.local_keys, key, before, after, is_doubtful=is_doubtful)
        if kept.expiring is not None:
            derived += self._expiries.changes(kept.expiring, place, key, before, after)
        if kept.tags is not None:
            derived += kept.tags.changes(place, key, before, after, is_doubtful=is_doubtful)
        return derived

    def _toggle(self, place: Place, kept: KeptTree, key: bytes, before: bytes | None, after: bytes | None) -> None:
        if kept.counted_to is not None and key >= kept.counted_to:
            return
        kept.counter.change(key, before, after)
        twig = twig_at(keys.token_in(key), self._kept.shift)
        if before is not None and not is_intact(key, before):  # it may have been counted before it rotted, or after
            self._recount_or_forget(place, leaf_of(twig))
            return
        change = 0 if before is None else fingerprint(key, before, kept.seed)
        if after is not None:
            change ^= fingerprint(key, after, kept.seed)
        kept.tree.toggle(twig, change, int(after is not None) - int(before is not None))

    def _recount_or_forget(self, place: Place, leaf: int) -> None:
        try:
            self.recount(*place, leaf)
        except CorruptionError:
            del self._kept.by_place[place]  # there is no image either: it is counted from the beginning

    # Answers

    @property
    def counted_rows(self) -> int:
        """How many rows were counted since the start, to build trees."""
        return self._kept.counted_rows

    async def ready(self, table: Table, partition: PartitionId, *, deadline: float) -> None:
        """Return once the tree of a partition tells what is stored; counts the rows if need be.

        Args:
            table: known here.
            partition: held here.
            deadline: loop time.

        Raises:
            UnavailableError: that takes longer, or the table was dropped.
            CorruptionError: the engine cannot read the partition to its end.
            StorageFailedError: the engine has failed, and trees may not tell what it holds.
        """
        try:
            async with asyncio.timeout_at(deadline):
                while not self.is_ready(table.id, partition):
                    self._kept.count_on((table.id, partition))
                    await self._admit()
        except TimeoutError:
            raise UnavailableError(f"{named((table.id, partition))} is still being counted: try again later") from None

    def is_ready(self, table: TableId, partition: PartitionId) -> bool:
        """Tell whether the tree of a partition tells what is stored.

        Raises:
            UnavailableError: the table was dropped.
            StorageFailedError: the engine has failed, and trees may not tell what it holds.
        """
        if self._engine.failure is not None:
            raise StorageFailedError(self._engine.failure)
        return self._kept.of((table, partition)).counted_to is None

    def nodes(self, table: TableId, partition: PartitionId, level: int, positions: Sequence[int]) -> tuple[int, ...]:
        """Return hashes of a tree that is `ready`.

        Args:
            table: known here.
            partition: held here.
            level: 0 the root, 1 the 32 branches, 2 the 1,024 leaves.
            positions: on that level, from 0.

        Raises:
            UnavailableError: it is not ready, or the table was dropped.
            StorageFailedError: the engine has failed, and trees may not tell what it holds.
            ValueError: there are no such nodes.
        """
        if not self.is_ready(table, partition):
            raise UnavailableError(f"{named((table, partition))} is still being counted: try again later")
        return self._kept.of((table, partition)).tree.nodes(level, positions)

    def has_twigs(self, table: TableId, partition: PartitionId) -> bool:
        """Tell whether a tree is ready, and has all its twigs."""
        kept = self._kept.of((table, partition))
        return kept.counted_to is None and kept.tree.has_twigs

    def twigs(self, table: TableId, partition: PartitionId, leaf: int) -> tuple[int, ...] | None:
        """Return the 32 twigs of a leaf of a tree that is `ready`, None if they are not kept.

        Raises:
            UnavailableError: it is not ready, or the table was dropped.
            StorageFailedError: the engine has failed, and trees may not tell what it holds.
        """
        if not self.is_ready(table, partition):
            raise UnavailableError(f"{named((table, partition))} is still being counted: try again later")
        return self._kept.of((table, partition)).tree.twigs_of(leaf)

    def packed(self, table: TableId, partition: PartitionId) -> bytes:
        """Return a tree as bytes, as far as it has been counted."""
        return self._kept.of((table, partition)).tree.pack()

    def root(self, table: TableId, partition: PartitionId) -> int | None:
        """Return the root of a tree that tells of every row there is; None if it does not, or not yet."""
        if self._engine.failure is not None:
            return None
        kept = self._kept.of((table, partition))
        return None if kept.counted_to is not None or kept.flawed else kept.tree.nodes(0, (0,))[0]

    def is_flawed(self, table: TableId, partition: PartitionId) -> bool:
        """Tell whether damaged rows were met when a partition was counted, and may still be there."""
        return bool(self._kept.of((table, partition)).flawed)

    def count(self, table: TableId, partition: PartitionId) -> Count | None:
        """Return what there is of a leader-based table's items; None as long as they are still counted."""
        kept = self._kept.of((table, partition))
        return None if kept.counted_to is not None else kept.counter.count

    def fingerprint_of(self, table: TableId, key: bytes, stored: bytes) -> int:
        """Return what a row that is intact adds to its leaf.

        Raises:
            UnavailableError: the table was dropped.
        """
        return fingerprint(key, stored, seed_of(self._kept.known(table).unique_id))

    def leaf_of(self, table: TableId, partition: PartitionId, key: bytes) -> int:
        """Return the leaf of a key of the partition."""
        return leaf_of(twig_at(keys.token_in(key), self._kept.shift))

    def stretch_range(self, table: TableId, partition: PartitionId, stretch: int) -> tuple[bytes, bytes]:
        """Return the range of keys of a leaf, or of a twig (`core.hash_tree.STRETCHES`)."""
        return self._kept.stretch_range((table, partition), stretch)

    def recount(self, table: TableId, partition: PartitionId, leaf: int) -> bool:
        """Count one leaf from the disk again, as far as it has been counted, in one turn of the loop.

        Returns:
            whether it had been right.

        Raises:
            CorruptionError: the engine cannot read it; the tree stays as it is.
            StorageFailedError: it was wrong, and that cannot be put right any more.
            UnavailableError: the table was dropped.
        """
        place, kept = (table, partition), self._kept.of((table, partition))
        sums = self._kept.counted(place, kept, leaf)
        if kept.tree.is_right(leaf, sums):
            return True
        if kept.has_image:
            self._images.delete(place)
        kept.has_image, kept.is_plain = False, kept.counted_to is None
        kept.tree.put_right(leaf, sums)
        return False

    def problems(self) -> dict[Place, str]:
        """Return which trees cannot be counted to their end, and why."""
        return {place: kept.problem for place, kept in self._kept.by_place.items() if kept.problem is not None}

    def forget(self, table: TableId, partition: PartitionId) -> None:
        """Count a partition anew when it is asked for: its rows may have changed behind this node's back.

        Raises:
            StorageFailedError: the engine has failed.
        """
        place = (table, partition)
        self._kept.by_place.pop(place, None)
        self._images.delete(place)

    # In the background

    async def run(self) -> None:
        """Have a tree for every partition held here, and an image for those that are quiet, while the node lives."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        try:
            while self._engine.failure is None:
                self._news.clear()
                await self._count_all()
                await self._grow_twigs()
                if loop.time() >= look_at:  # not at each news: between two of them nothing has had time to change
                    await self._keep_images()
                    look_at = loop.time() + self._look_s
                await self._pause(look_at - loop.time())
        except StorageFailedError:  # the engine has told whoever is to know
            return

    async def close(self) -> None:
        """Keep the images that are missing, as far as time allows; changes may still come."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._keep_images(is_quiet=True)
                await self._engine.durable()
        except (TimeoutError, StorageFailedError):  # what has no image is counted at the next start
            return

    async def _count_all(self) -> None:
        left = SLICE_ROWS
        for table, partition in self._topology.held():
            place = (table.id, partition)
            try:
                while not self.is_ready(*place):
                    left -= self._kept.count_on(place)
                    left -= SLICE_ROWS // 16  # to open a partition takes as long as 16 rows
                    if left <= 0:
                        await self._admit()
                        left = SLICE_ROWS
            except (CorruptionError, UnavailableError):  # kept as its problem; dropped
                continue

    async def _grow_twigs(self) -> None:
        """Give twigs to the trees of partitions that have grown, a leaf in a turn."""
        for place, kept in list(self._kept.by_place.items()):
            if kept.counted_to is not None or kept.tree.has_twigs or kept.tree.rows <= self._twigs_from_rows:
                continue
            kept.tree.begin_twigs()
            with contextlib.suppress(CorruptionError):  # the engine cannot read a leaf of it
                while self._kept.by_place.get(place) is kept and not kept.tree.has_twigs:
                    leaf = kept.tree.leaves_with_twigs
                    kept.tree.keep_twigs(leaf, self._kept.counted(place, kept, leaf))
                    await self._admit()

    async def _keep_images(self, *, is_quiet: bool = False) -> None:
        """Keep images where nothing has changed since the last look, or everywhere if ``is_quiet``."""
        for place, kept in list(self._kept.by_place.items()):
            if kept.counted_to is not None or kept.flawed or self._kept.by_place.get(place) is not kept:
                continue
            with_twigs = is_quiet and kept.tree.has_twigs
            if kept.has_image and (kept.image_has_twigs or not with_twigs):
                continue
            if kept.is_plain and not is_quiet:
                kept.is_plain = False
            elif not kept.tree.is_empty and self._engine.shortage is None:
                self._images.keep(place, kept.tree, kept.counter.count, with_twigs=with_twigs)
                kept.has_image, kept.image_has_twigs, kept.is_plain = True, with_twigs, False
                await (asyncio.sleep(0) if is_quiet else self._admit())

    async def _pause(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(longest_s):
                await self._news.wait()
        except TimeoutError:
            return

    # News of the map

    def _look_at(self, current: ClusterMap) -> None:
        self._kept.learn(current)
        self._news.set()

    def _split(self, batch: Batch, _factor: int) -> Callable[[], None]:
        self._images.forget_all(batch)
        return self._kept.forget_all
