"""``merganser snapshot create``: checkpoints of all nodes, fetched into a repository.

::

    flush --every node--> stand still --every node--> checkpoints --every node--> go on     (a fraction of a second)
      --> are they enough, and of one ring? --> files that the repository lacks --> manifest

Whatever fails, what was sent stays, and the same command sends the rest. A node that stays away for a minute is left
out, if the others are enough.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import merganser
from merganser.cli.snapshot_nodes import Node, Pace, members, patiently, reason_of
from merganser.core import snapshots
from merganser.model.cluster import ClusterMap
from merganser.model.errors import ConfigurationError
from merganser.model.ids import NodeId
from merganser.model.snapshot import FORMAT, Absence, Copy, File, Manifest
from merganser.storage.object_store import StoreError
from merganser.storage.repository import Repository

STANDSTILL_S = 20
TRIES = 3
"""A node may be slow, or the ring change, once or twice."""
_PART_BYTES = 2**20

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and how much there is."""


class Sent(msgspec.Struct):
    """What was done for a snapshot."""

    files: int = 0
    """Of all nodes."""
    files_sent: int = 0
    """That the repository lacked."""
    bytes_sent: int = 0


class _Taken(msgspec.Struct, frozen=True):
    """The checkpoint of one node, on that node."""

    node: Node
    checkpoint: str
    map: ClusterMap
    files: dict[str, int]


def create(admin: str, repository: Repository, name: str, *, pace: Pace, progress: Progress) -> tuple[Manifest, Sent]:
    """Make a snapshot; returns once it is in the repository, whole.

    Raises:
        ConfigurationError: too few nodes are there, or the repository takes no more; there is no such snapshot then.
        KeyboardInterrupt: likewise.
    """
    _, nodes = members(admin)
    repository.begin(name)
    taken: list[_Taken] = []
    try:
        began_us = time.time_ns() // 1000
        taken, absent = _taken(nodes, progress)
        taken_us = time.time_ns() // 1000
        sent = Sent()
        copies = _fetched(taken, absent, repository, sent, pace, progress)
        there = [one for one in taken if one.node.number in {copy.number for copy in copies}]
        manifest = Manifest(
            format=FORMAT,
            name=name,
            version=merganser.__version__,
            began_us=began_us,
            taken_us=taken_us,
            map=_checked(there, absent),
            copies=tuple(copies),
            absent=tuple(Absence(number, absent[number]) for number in sorted(absent)),
        )
        repository.publish(manifest)
        return manifest, sent
    except BaseException:
        repository.give_up(name)
        raise
    finally:
        _each([one.node for one in taken], lambda node: node.do("drop", id=taken[0].checkpoint), {})


def _taken(nodes: Sequence[Node], progress: Progress) -> tuple[list[_Taken], dict[int, str]]:
    """Have all nodes take their checkpoints within one standstill; returns those, and why others have none."""
    problem = ""
    for _ in range(TRIES):
        absent: dict[int, str] = {}
        progress("flushing", 0, len(nodes))
        flushed = [node for node, _ in _each(nodes, lambda node: node.do("flush"), absent)]
        progress("taking checkpoints", 0, len(nodes))
        taken = _within_standstill(flushed, absent)
        try:
            _checked(taken, absent)
            returned = _each([node for node in nodes if node.number in absent], lambda node: node.do("flush"), {})
            if not returned:  # else transactions may have been ended by who did not stand still
                return taken, absent
            problem = f"nodes came back meanwhile: {', '.join(str(node.number) for node, _ in returned)}"
        except ConfigurationError as error:
            problem = str(error)
        _each([one.node for one in taken], lambda node: node.do("drop", id=taken[0].checkpoint), {})  # noqa: B023
    raise ConfigurationError(f"no snapshot was made: {problem}")


def _within_standstill(nodes: Sequence[Node], absent: dict[int, str]) -> list[_Taken]:
    token, checkpoint = secrets.token_hex(8), secrets.token_hex(8)
    try:
        standing = _each(nodes, lambda node: node.do("stand-still", token=token, seconds=STANDSTILL_S), absent)
        answers = _each(
            [node for node, _ in standing], lambda node: node.do("take", token=token, id=checkpoint), absent
        )
        return [
            _Taken(node, checkpoint, msgspec.json.decode(told["map"], type=ClusterMap), told["files"])
            for node, told in answers
        ]
    finally:
        _each(nodes, lambda node: node.do("go-on", token=token, timeout_s=5.0), {})


def _checked(taken: Sequence[_Taken], absent: dict[int, str]) -> ClusterMap:
    """Return the newest map of the checkpoints, if they are enough.

    Raises:
        ConfigurationError: they are not; says what is missing.
    """
    away = "; ".join(f"node {number}: {why}" for number, why in sorted(absent.items())) or "all nodes are there"
    if not taken:
        raise ConfigurationError(f"no node can give its checkpoint: {away}")
    maps = [one.map for one in taken]
    if not snapshots.are_of_one_ring(maps):
        raise ConfigurationError("partitions were moving while the checkpoints were taken: try again when they rest")
    newest, there = snapshots.newest(maps), {NodeId(one.node.id) for one in taken}
    short = snapshots.short_of_replicas(newest, there)
    if short:
        told = ", ".join(f"{lacking} of table {table.name}" for table, lacking in short[:5])
        raise ConfigurationError(f"too few replicas of these partitions are there: {told} ({away})")
    if snapshots.lacks_voters(newest, there):
        raise ConfigurationError(f"fewer than a majority of the voters are there, so tables may be missing ({away})")
    return newest


def _fetched(
    taken: Sequence[_Taken],
    absent: dict[int, str],
    repository: Repository,
    sent: Sent,
    pace: Pace,
    progress: Progress,
) -> list[Copy]:
    """Fetch every node's files; who goes away for good is left out, and noted as absent."""
    total = sum(size for one in taken for size in one.files.values())
    done, lock = [0], threading.Lock()

    def note(size: int, sent_bytes: int | None) -> None:
        with lock:
            done[0] += size
            sent.files += 1
            sent.files_sent += sent_bytes is not None
            sent.bytes_sent += sent_bytes or 0
            progress("sending", done[0], total)

    by_number = {one.node.number: one for one in taken}
    fetched = _each(
        [one.node for one in taken],
        lambda node: _fetch(by_number[node.number], repository, pace, note),
        absent,
        stop=pace.stop,
    )
    _checked([by_number[node.number] for node, _ in fetched], absent)
    return [copy for _, copy in fetched]


def _fetch(one: _Taken, repository: Repository, pace: Pace, note: Callable[[int, int | None], None]) -> Copy:
    files: list[File] = []
    for name, size in one.files.items():
        told = patiently(partial(_checksum, one, name, pace))
        file = File(name, size, told["sha256"])
        is_there = repository.has(file)
        if not is_there:
            _send(one, file, repository, pace)
        files.append(file)
        note(size, None if is_there else size)
    return Copy(NodeId(one.node.id), one.node.number, tuple(files))


def _checksum(one: _Taken, name: str, pace: Pace) -> dict[str, Any]:
    return one.node.do("checksum", timeout_s=600.0, id=one.checkpoint, file=name, rate=pace.bytes_per_s)


def _send(one: _Taken, file: File, repository: Repository, pace: Pace) -> None:
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(prefix="merganser-snapshot-") as spool:
        for offset in range(0, file.size, _PART_BYTES):
            size = min(_PART_BYTES, file.size - offset)
            pace.take(size)
            part = patiently(
                partial(one.node.read, "read", id=one.checkpoint, file=file.name, offset=offset, size=size)
            )
            digest.update(part)
            spool.write(part)
        if digest.hexdigest() != file.sha256:
            raise ConfigurationError(
                f"file {file.name} of node {one.node.number} is not what the node says it is: its disk, or what lies "
                "between, flips bits; look at that disk (merganser repair), then run it again"
            )
        spool.flush()
        repository.put(file, Path(spool.name))


def _each(
    nodes: Sequence[Node],
    work: Callable[[Node], Any],
    absent: dict[int, str],
    *,
    stop: Callable[[], None] = lambda: None,
) -> list[tuple[Node, Any]]:
    """Do ``work`` with all nodes at once; those that fail are noted as absent, with the reason.

    Raises:
        StoreError: what failed is the repository; ``stop`` was called, to end the others.
        KeyboardInterrupt: likewise.
    """
    if not nodes:
        return []
    done: list[tuple[Node, Any]] = []
    with ThreadPoolExecutor(max_workers=len(nodes)) as threads:
        for node, future in [(node, threads.submit(work, node)) for node in nodes]:
            try:
                done.append((node, future.result()))
            except StoreError:
                stop()
                raise
            except ConfigurationError as error:
                absent[node.number] = reason_of(error)
            except BaseException:
                stop()
                raise
    return done
