"""What the checkpoints of several nodes hold together, key by key: the rows that a snapshot restores.

For each partition the replicas that the map names speak, and nobody else. Copies of one key become one as they do in
a read: of a leaderless table by their merge, as far as the horizons of those who hold them let each say
(`service.read_repair`), with the hints that any node keeps for it; of a leader-based table by the latest version. The
intent of a transaction comes to what the ledger, merged likewise, says of it. What is deleted is left out: where the
rows go there is nothing that it would have to bury.

A copy that is damaged says nothing. What is left of a key must come from a majority of its replicas: else the
snapshot cannot tell what was acknowledged, and says so.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from merganser.core import rows, snapshots, transaction
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.register import Register
from merganser.service import ledger
from merganser.service.hint_store import stored_hint
from merganser.service.horizons import load_standings
from merganser.service.read_repair import reconcile
from merganser.storage import keys
from merganser.storage.engine import Readable
from merganser.storage.registers import decode_register
from merganser.storage.values import check_row, encode_row

_HINTS = "hints"
"""Who says what is kept for others: no node has that id, as none of a snapshot's is empty of digits."""


class Counted(msgspec.Struct):
    """What came of going through some rows."""

    rows: int = 0
    """That are there."""
    deleted: int = 0
    """Keys that are remembered as deleted or expired."""
    copies: int = 0
    """Looked at, and their checksums with them."""
    damaged: int = 0
    """Copies that are not what was stored; the others make up for them."""


class Copies:
    """The checkpoints of a snapshot; see the module's docstring."""

    def __init__(self, current: ClusterMap, copies: Mapping[NodeId, Readable], *, now_s: int) -> None:
        """Read ``copies``, of the nodes of ``current``.

        Args:
            current: the map of the snapshot.
            copies: what each node held.
            now_s: seconds since 1970; what had expired by then is left out.

        Raises:
            CorruptionError: the horizons or hints of one of them cannot be read.
        """
        self.map = current
        self._ring = Ring(current)
        self._copies = copies
        self._now_s = now_s
        self._standings = {node: load_standings(copy) for node, copy in copies.items()}
        self._hints = sorted(self._read_hints())

    def of(self, table: Table, partition: PartitionId, counted: Counted) -> Iterator[tuple[bytes, Register | bytes]]:
        """Yield key and content of every row of a partition, in the order of the keys; ``counted`` tells how far it is.

        The content is a register of a leader-based table, of which only the value counts, or a stored row of a
        leaderless one.

        Raises:
            CorruptionError: a majority of the replicas is not there, or not intact, for some key.
        """
        replicas = self._replicas(table, partition)
        first, last = self._ring.token_range(partition)
        start, end = keys.token_range(table.id, first, last)
        horizons = {node: self._horizon_us(node, table, partition) for node in replicas}
        hints = [] if table.has_leaders else self._hints_between(start, end)
        scans = [self._told(node, start, end) for node in replicas]
        merged = heapq.merge(*scans, hints, key=lambda one: one[0])
        for key, group in itertools.groupby(merged, key=lambda one: one[0]):
            held: dict[NodeId, bytes | None] = dict.fromkeys(replicas)
            kept: list[bytes] = []
            for _, node, stored in group:
                if node == _HINTS:
                    kept.append(stored)
                else:
                    held[node] = stored
            content = self._merged(table, partition, key, held, kept, horizons, counted)
            if content is None:
                counted.deleted += 1
            else:
                counted.rows += 1
                yield key, content

    def _told(self, node: NodeId, start: bytes, end: bytes) -> Iterator[tuple[bytes, NodeId, bytes]]:
        for key, stored in self._copies[node].scan(start, end):
            yield key, node, stored

    def _merged(
        self,
        table: Table,
        partition: PartitionId,
        key: bytes,
        held: dict[NodeId, bytes | None],
        hints: Sequence[bytes],
        horizons: Mapping[NodeId, int],
        counted: Counted,
    ) -> Register | bytes | None:
        intact = self._intact(key, held, counted)
        self._check_majority(table, partition, len(intact), f"key {key[:64].hex()}")
        if table.has_leaders:
            newest = max((decode_register(key, stored) for stored in intact.values()), key=lambda one: one.version)
            return self._settled(newest)
        said: dict[NodeId, bytes | None] = dict(intact)
        said.update({NodeId(f"{_HINTS}{number}"): hint for number, hint in enumerate(hints)})
        row = reconcile(key, said, lambda node: horizons.get(node, 0)).row
        return None if row is None or rows.is_tombstone(row, self._now_s) else encode_row(key, row)

    def _intact(self, key: bytes, held: Mapping[NodeId, bytes | None], counted: Counted) -> dict[NodeId, bytes | None]:
        intact: dict[NodeId, bytes | None] = {}
        for node, stored in held.items():
            try:
                if stored is not None:
                    counted.copies += 1
                    check_row(key, stored)
                intact[node] = stored
            except CorruptionError:
                counted.damaged += 1
        return intact

    def _settled(self, register: Register) -> Register | None:
        """Return a register as the transaction that holds it, if one does, leaves it; None if there is no item."""
        intent, value = register.content.intent, register.value
        if intent is not None and self._fate(intent.transaction, intent.attempt) is transaction.Fate.COMMITTED:
            value = transaction.value_seen(register.content, transaction.Fate.COMMITTED)
        return (
            None
            if value is None
            else Register(register.version, msgspec.structs.replace(register.content, value=value))
        )

    def _fate(self, transaction_id: bytes, attempt: int) -> transaction.Fate:
        table = ledger.ledger_of(self.map, transaction_id)
        if table is None:
            return transaction.Fate.VOID
        key = ledger.key_of(table, transaction_id)
        partition = self._ring.partition_of(keys.token_in(key))
        held = {node: self._copies[node].get(key) for node in self._replicas(table, partition)}
        intact = self._intact(key, held, Counted())
        self._check_majority(table, partition, len(intact), f"the record of transaction {transaction_id.hex()}")
        newest = max((decode_register(key, stored) for stored in intact.values()), key=lambda one: one.version)
        return transaction.fate(transaction.record_in(newest.value), attempt)

    def _replicas(self, table: Table, partition: PartitionId) -> list[NodeId]:
        """Return the replicas that are there.

        Raises:
            CorruptionError: they are no majority.
        """
        there = [node for node in self._ring.holders(partition, table.rule).serving if node in self._copies]
        self._check_majority(table, partition, len(there), "the partition")
        return there

    def _check_majority(self, table: Table, partition: PartitionId, there: int, what: str) -> None:
        replicas = len(self._ring.holders(partition, table.rule).serving)
        if there < snapshots.majority(replicas):
            raise CorruptionError(
                f"{there} of {replicas} copies of {what} are there and intact in partition {partition} of table "
                f"{table.name}: it is not known what was acknowledged"
            )

    def _horizon_us(self, node: NodeId, table: Table, partition: PartitionId) -> int:
        standing = self._standings[node].get((table.id, partition))
        return 0 if standing is None else standing.horizon_us

    def _read_hints(self) -> Iterator[tuple[bytes, NodeId, bytes]]:
        for copy in self._copies.values():
            for hint_key, value in copy.scan(*keys.all_hints_range()):
                try:
                    hint = stored_hint(hint_key, value)
                except CorruptionError:  # as in delivery: nobody knows what it held
                    continue
                yield hint.key, NodeId(_HINTS), hint.row

    def _hints_between(self, start: bytes, end: bytes) -> list[tuple[bytes, NodeId, bytes]]:
        return [hint for hint in self._hints if start <= hint[0] < end]
