"""``merganser snapshot restore``: the tables of a snapshot into a running cluster, of whatever size.

::

    files compared --> every row compared --> hidden tables made --> rows put, partition by partition --> indexes
    delivered --> tables revealed, all at once

Nothing is written before all of it has been compared. Clients see nothing of a table before all tables are whole. A
command that was stopped goes on when it is run again: it finds the hidden tables, and with --scratch it also knows
which partitions were done.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from merganser.cli.admin_port import BusyError, NodeAwayError, fetch
from merganser.cli.snapshot_files import gone_through, laid_out
from merganser.cli.snapshot_nodes import PATIENCE_S, Node, Pace, members
from merganser.core import snapshots
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import ConfigurationError
from merganser.model.ids import PartitionId, TableId
from merganser.model.register import Register
from merganser.model.snapshot import Manifest, WantedIndex, WantedTable
from merganser.model.versions import POLICIES_SINCE
from merganser.service.copies import Copies, Counted
from merganser.service.ledger import WIRE as SYSTEM_WIRE
from merganser.storage.repository import Repository
from merganser.storage.values import seal, unseal

CHUNK_ROWS = 256
CHUNK_BYTES = 2**20
CHUNKS_AT_ONCE = 4
INDEXES_PATIENCE_S = 600.0
"""Without any progress of the indexes."""
_AGAIN_S = 0.5
_TABLE_BYTES = 4  # that a key begins with (`storage.keys`)

Progress = Callable[[str, int, int], None]
Row = tuple[bytes, bytes]


class Restored(msgspec.Struct, frozen=True):
    """What was done for one table."""

    table: str
    rows: int
    replication: str


def restore(
    admin: str,
    repository: Repository,
    manifest: Manifest,
    checksum: str,
    *,
    tables: Collection[str],
    prefix: str,
    scratch: Path,
    pace: Pace,
    progress: Progress,
    is_dry_run: bool = False,
) -> list[Restored]:
    """Restore; returns once clients see the tables, whole. Or, if ``is_dry_run``, compare all, and leave the
    cluster as it is.

    Raises:
        ConfigurationError: there are such tables, or the cluster cannot take them; what was put stays hidden.
        CorruptionError: the snapshot is damaged; nothing was written.
    """
    cluster, nodes = members(admin)
    chosen = _chosen(manifest.map, tables)
    wanted = [_wanted(manifest.map, table, prefix, checksum) for table in chosen]
    _refuse_taken(admin, wanted)
    with laid_out(manifest, repository, scratch, progress) as copies:
        counts = [gone.counted.rows for gone in gone_through(copies, chosen, progress)]
        if is_dry_run:
            return [Restored(one.name, rows, one.replication) for one, rows in zip(wanted, counts, strict=True)]
        total = sum(counts)
        speaker = _Speaker(nodes)
        ids = [TableId(number) for number in speaker.make(wanted)]
        done = _Done(scratch / "done.json", f"{checksum} {cluster} {ids}")
        restored = _put_all(copies, chosen, ids, speaker, done, pace, total, progress)
    _wait_for_indexes(nodes, progress)
    speaker.reveal(dict(zip(ids, [one.name for one in wanted], strict=True)))
    done.forget()
    return [Restored(one.name, rows, one.replication) for one, rows in zip(wanted, restored, strict=True)]


class _Speaker:
    """Says things to any node that answers."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = itertools.cycle(nodes)
        self._lock = threading.Lock()

    def make(self, wanted: Sequence[WantedTable]) -> list[int]:
        found: list[int] = self._do("tables", msgspec.msgpack.encode(wanted))["ids"]
        return found

    def put(self, table: TableId, rows: Sequence[Row]) -> None:
        content = msgspec.msgpack.encode(rows)
        self._do("rows", content, table=table, crc=zlib.crc32(content))

    def reveal(self, names: dict[TableId, str]) -> None:
        self._do("reveal", msgspec.msgpack.encode(names))

    def _do(self, action: str, content: bytes, **query: object) -> dict[str, Any]:
        """Do what does no harm when it is done twice, until a node has."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:
                node = next(self._nodes)
            try:
                return node.do(action, content=content, timeout_s=90.0, **query)
            except ConfigurationError as error:
                if time.monotonic() > give_up_at or not isinstance(error, NodeAwayError | BusyError):
                    raise
            time.sleep(_AGAIN_S)


class _Done:
    """Which partitions of which table are in the cluster, kept in the scratch directory."""

    def __init__(self, file: Path, run: str) -> None:
        """Know what an earlier try of the same ``run`` has done."""
        self._file = file
        self._run = run
        self._rows: dict[str, int] = {}
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=tuple[str, dict[str, int]])
            self._rows = kept[1] if kept[0] == run else {}
        except (FileNotFoundError, msgspec.MsgspecError):
            pass

    def rows(self, table: TableId, partition: int) -> int | None:
        return self._rows.get(f"{table}/{partition}")

    def note(self, table: TableId, partition: int, rows: int) -> None:
        self._rows[f"{table}/{partition}"] = rows
        draft = self._file.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode((self._run, self._rows)))
        os.replace(draft, self._file)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)


def _chosen(current: ClusterMap, names: Collection[str]) -> list[Table]:
    tables = snapshots.clients_tables(current, systems=(SYSTEM_WIRE,))
    unknown = set(names) - {table.name for table in tables}
    if unknown:
        there = ", ".join(sorted(table.name for table in tables)) or "none"
        raise ConfigurationError(f"the snapshot has no table {min(unknown)!r}; it has {there}")
    return [table for table in tables if not names or table.name in names]


def _wanted(current: ClusterMap, table: Table, prefix: str, checksum: str) -> WantedTable:
    policy = current.policy_of(table)
    return WantedTable(
        wire=table.wire,
        name=prefix + table.name,
        hidden_name=snapshots.hidden_name(checksum, prefix + table.name),
        n=table.n,
        replication=table.replication,
        definition=table.definition,
        indexes=tuple(
            WantedIndex(index.name, index.definition) for index in table.indexes if index.state != "deleting"
        ),
        conflicts=table.conflicts,
        policy=policy if policy.is_bound else None,
    )


def _refuse_taken(admin: str, wanted: Sequence[WantedTable]) -> None:
    status = fetch(admin, "/status")
    if any(one.policy for one in wanted) and status["cluster_version"] < POLICIES_SINCE:
        raise ConfigurationError(
            "the snapshot has tables that say where they may be, and not every node of the cluster knows of that: "
            "upgrade all, or restore others with --table"
        )
    there = {(table["wire"], table["name"]) for table in status["tables"]}
    taken = sorted(one.name for one in wanted if (one.wire, one.name) in there)
    if taken:
        raise ConfigurationError(
            f"the cluster has tables called {', '.join(taken[:5])}: drop them, restore others with --table, or "
            "restore under other names with --prefix"
        )


def _put_all(
    copies: Copies,
    tables: Sequence[Table],
    ids: Sequence[TableId],
    speaker: _Speaker,
    done: _Done,
    pace: Pace,
    total: int,
    progress: Progress,
) -> list[int]:
    """Put all rows; returns how many each table has."""
    counts, so_far = [], 0
    with ThreadPoolExecutor(max_workers=CHUNKS_AT_ONCE) as threads:
        try:
            for table, new_id in zip(tables, ids, strict=True):
                count = 0
                for partition in range(copies.map.partitions):
                    known = done.rows(new_id, partition)
                    if known is None:
                        known = _put_partition(copies, table, PartitionId(partition), new_id, speaker, pace, threads)
                        done.note(new_id, partition, known)
                    count += known
                    so_far += known
                    progress("restoring rows", so_far, total)
                counts.append(count)
        except BaseException:
            pace.stop()
            raise
    return counts


def _put_partition(
    copies: Copies,
    table: Table,
    partition: PartitionId,
    new_id: TableId,
    speaker: _Speaker,
    pace: Pace,
    threads: ThreadPoolExecutor,
) -> int:
    under_way: deque[Future[None]] = deque()
    count = 0
    for chunk in _chunks(_rows(copies, table, partition, new_id)):
        pace.take(sum(len(key) + len(row) for key, row in chunk))
        under_way.append(threads.submit(speaker.put, new_id, chunk))
        count += len(chunk)
        if len(under_way) >= CHUNKS_AT_ONCE:
            under_way.popleft().result()
    for future in under_way:
        future.result()
    return count


def _rows(copies: Copies, table: Table, partition: PartitionId, new_id: TableId) -> Iterator[Row]:
    """Yield the rows of a partition under the keys that they have in the new table."""
    head = new_id.to_bytes(_TABLE_BYTES, "big")
    for key, content in copies.of(table, partition, Counted()):
        new_key = head + key[_TABLE_BYTES:]
        if isinstance(content, Register):
            yield new_key, content.value or b""
        else:
            yield new_key, seal(new_key, unseal(key, content))


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row[0]) + len(row[1])
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _wait_for_indexes(nodes: Sequence[Node], progress: Progress) -> None:
    """Return when no item waits for its entries in global indexes.

    Raises:
        ConfigurationError: that makes no progress.
    """
    least, most, give_up_at = -1, 0, time.monotonic() + INDEXES_PATIENCE_S
    while True:
        waiting = 0
        for node in nodes:
            try:
                waiting += fetch(node.address, "/status")["indexes"]["items_waiting"]
            except NodeAwayError:
                continue  # what it led is led, and delivered, by others
        most = max(most, waiting)
        progress("filling indexes", most - waiting, most)
        if waiting == 0:
            return
        if least < 0 or waiting < least:
            least, give_up_at = waiting, time.monotonic() + INDEXES_PATIENCE_S
        elif time.monotonic() > give_up_at:
            raise ConfigurationError(
                f"{waiting} items wait for their entries in indexes, and none was delivered in "
                f"{INDEXES_PATIENCE_S:.0f} s: look at the state of the cluster (merganser status), then run it again"
            )
        time.sleep(_AGAIN_S)
