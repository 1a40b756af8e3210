"""The files of a snapshot, laid out on this machine so that they can be read, and what they hold gone through.

Every file is compared with its checksum first, and every row with its own. Files of a repository in a directory are
linked to, others are fetched into the scratch directory, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from merganser.core import snapshots
from merganser.model.cluster import Table
from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.snapshot import Copy, File, Manifest
from merganser.service.copies import Copies, Counted
from merganser.storage.checkpoint import CheckpointReader
from merganser.storage.repository import Repository, object_name

Progress = Callable[[str, int, int], None]

_PART_BYTES = 8 * 2**20


class Gone(msgspec.Struct):
    """What was found of one table."""

    table: Table
    counted: Counted


def without(manifest: Manifest, numbers: Collection[int]) -> Manifest:
    """Return the manifest without the checkpoints of some nodes, if the others are enough.

    Raises:
        ConfigurationError: they are not, or there is no such node.
    """
    unknown = set(numbers) - {copy.number for copy in manifest.copies}
    if unknown:
        there = ", ".join(str(copy.number) for copy in manifest.copies)
        raise ConfigurationError(f"the snapshot has no checkpoint of node {min(unknown)}; it has those of {there}")
    left = tuple(copy for copy in manifest.copies if copy.number not in numbers)
    short = snapshots.short_of_replicas(manifest.map, {copy.node for copy in left})
    if short:
        raise ConfigurationError(
            f"without those, {short[0][1]} partitions of table {short[0][0].name} have too few replicas"
        )
    return msgspec.structs.replace(manifest, copies=left)


def damaged_files(manifest: Manifest, repository: Repository, progress: Progress) -> list[str]:
    """Return what is wrong with the files, each read and compared with its checksum, in words.

    Those that are damaged are set aside, so that the next snapshot does not take them for well.
    """
    problems: list[str] = []
    files = {file.sha256: (copy, file) for copy in manifest.copies for file in copy.files}
    done, total = 0, sum(file.size for _, file in files.values())
    for copy, file in files.values():
        try:
            for _ in repository.checked(file):
                pass
        except CorruptionError as error:
            problems.append(f"node {copy.number}: {error}{_set_aside(file, repository)}")
        done += file.size
        progress("comparing files", done, total)
    return problems


@contextlib.contextmanager
def laid_out(manifest: Manifest, repository: Repository, scratch: Path, progress: Progress) -> Iterator[Copies]:
    """Lay the files out in ``scratch``, each compared with its checksum, and open them.

    Raises:
        CorruptionError: a file is damaged.
        ConfigurationError: the scratch directory is full, or cannot be written.
    """
    done, total = 0, sum(file.size for copy in manifest.copies for file in copy.files)
    with contextlib.ExitStack() as closing:
        readers: dict[NodeId, CheckpointReader] = {}
        for copy in manifest.copies:
            directory = scratch / str(copy.number)
            with _telling(scratch):
                directory.mkdir(parents=True, exist_ok=True)
                for file in copy.files:
                    _lay(directory / file.name, copy, file, repository)
                    done += file.size
                    progress("reading files", done, total)
            readers[copy.node] = CheckpointReader(directory)
            closing.callback(readers[copy.node].close)
        yield Copies(manifest.map, readers, now_s=int(time.time()))


def gone_through(copies: Copies, tables: Collection[Table], progress: Progress) -> list[Gone]:
    """Go through every row of ``tables``; returns what there is.

    Raises:
        CorruptionError: too much of it is damaged to know what was acknowledged.
    """
    found, total = [], len(tables) * copies.map.partitions
    for number, table in enumerate(tables):
        counted = Counted()
        for partition in range(copies.map.partitions):
            for _ in copies.of(table, PartitionId(partition), counted):
                pass
            progress("comparing rows", number * copies.map.partitions + partition + 1, total)
        found.append(Gone(table, counted))
    return found


def _set_aside(file: File, repository: Repository) -> str:
    try:
        aside = repository.set_aside(file)
    except ConfigurationError as error:
        return f"; it is still in its place, where the next snapshot would take it for well: {error}"
    return "" if aside is None else f"; it is now {aside}, and the next snapshot sends that file again"


def _lay(target: Path, copy: Copy, file: File, repository: Repository) -> None:
    try:
        local = repository.store.local(object_name(file))
        if local is not None and file.name.endswith(".sst"):  # read, and never written
            for _ in repository.checked(file):
                pass
            target.unlink(missing_ok=True)
            target.symlink_to(local)
        elif not _is_there(target, file):
            with target.open("wb") as stream:
                for part in repository.checked(file):
                    stream.write(part)
    except CorruptionError as error:
        target.unlink(missing_ok=True)
        raise CorruptionError(
            f"node {copy.number}: {error}; nothing was written: leave that node's checkpoint out with "
            f"--without {copy.number}, or run merganser snapshot verify and take another snapshot then"
        ) from None


def _is_there(target: Path, file: File) -> bool:
    """Tell whether an earlier run has fetched the file, whole."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != file.size:
        return False
    digest = hashlib.sha256()
    with target.open("rb") as stream:
        while part := stream.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest() == file.sha256


@contextlib.contextmanager
def _telling(scratch: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"--scratch {scratch}: {error.strerror}: make room, or name another directory"
        ) from error
