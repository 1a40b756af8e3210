"""The directory a node lives in: who it is, that it is alone there, and its engine.

::

    DIR/node.json   format, node id, and the cluster once the node is a member
    DIR/lock        held by the running process
    DIR/rocksdb/    the engine's own
    DIR/checkpoints/  of it, while a snapshot of the cluster is fetched (`node.checkpoints`)
    DIR/rocksdb.aside-N/  databases that --rebuild has set aside, for whoever wants to look; to be removed by hand
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from merganser.model.errors import ConfigurationError
from merganser.model.ids import NodeId
from merganser.storage.rocks import RocksEngine
from merganser.storage.rocks_directory import check_unused

FORMAT = 1
_REBUILT = "all of it: the database was set aside or was gone, and --rebuild began an empty one"
_DRAFT = "node.new"  # node.json until it is whole


class Identity(msgspec.Struct, frozen=True):
    """What node.json holds."""

    format: int
    node_id: NodeId
    cluster_id: str = ""
    """The cluster it is a member of; "" before it is one."""
    left_at: int = 0
    """Epoch of the cluster map that it is no member by any more; 0: none."""


class DataDirectory:
    """A locked data directory; see the module's docstring."""

    def __init__(self, path: Path, *, rng: random.Random) -> None:
        """Lock ``path`` for this process, and make it a node's directory if it is empty or absent.

        Raises:
            ConfigurationError: in use, not a Merganser directory, of a newer format, or not writable.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            self._take_lock()
            self.identity = self._identity(rng)
            if self.identity.left_at:
                raise ConfigurationError(
                    left_message(self.identity.node_id, self.identity.cluster_id, self.identity.left_at)
                )
        except OSError as error:
            self.close()
            raise _unusable(path, error) from None
        except ConfigurationError:
            self.close()
            raise

    def open_engine(
        self,
        *,
        on_failure: Callable[[str], None] | None = None,
        reserve_bytes: int = 0,
        rebuild: bool = False,
    ) -> RocksEngine:
        """Open the engine; ``on_failure`` is told when it takes no more writes, and why.

        Args:
            reserve_bytes: room on the disk that rows leave free.
            rebuild: set the database aside and start with an empty one, which says that it has `lost` everything.

        Raises:
            ConfigurationError: the directory cannot be opened as it is, or its database is gone: a member that
                has forgotten its rows and its promises must not come back as if it were whole.
            CorruptionError: its files are damaged.
        """
        database = self.path / "rocksdb"
        if rebuild:
            self._set_aside(database)
        elif self.identity.cluster_id and not database.is_dir():
            raise ConfigurationError(
                f"--data {self.path} belongs to a member of cluster {self.identity.cluster_id}, but its database "
                f"{database} is gone: start the node once with --rebuild, which takes everything from the other nodes, "
                "or bring the database back from a copy made while the node was stopped"
            )
        lost = _REBUILT if self.identity.cluster_id else None
        return RocksEngine.open(database, on_failure=on_failure, reserve_bytes=reserve_bytes, lost_if_new=lost)

    def _set_aside(self, database: Path) -> None:
        if not self.identity.cluster_id:
            raise ConfigurationError(
                f"--rebuild takes everything from the other nodes of a cluster, and --data {self.path} belongs to no "
                "cluster yet: start without it"
            )
        try:
            if database.is_dir():
                check_unused(database)
                database.rename(self.path / f"{database.name}.aside-{self._next_aside()}")
                _sync_directory(self.path)
        except OSError as error:
            raise _unusable(self.path, error) from None

    def _next_aside(self) -> int:
        numbers = [entry.suffix.removeprefix(".aside-") for entry in self.path.glob("rocksdb.aside-*")]
        return max((int(number) for number in numbers if number.isdigit()), default=0) + 1

    def joined(self, cluster_id: str) -> None:
        """Remember that the node is a member of ``cluster_id``, durably.

        Raises:
            ConfigurationError: it is a member of another, or cannot be written.
        """
        if self.identity.cluster_id == cluster_id:
            return
        if self.identity.cluster_id:
            raise ConfigurationError(
                f"--data {self.path} belongs to a member of cluster {self.identity.cluster_id}, its database to one "
                f"of {cluster_id}: put together what belongs together"
            )
        self._keep(msgspec.structs.replace(self.identity, cluster_id=cluster_id))

    def left(self, epoch: int) -> None:
        """Remember that the node is no member any more since ``epoch`` of the cluster map, durably.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self._keep(msgspec.structs.replace(self.identity, left_at=epoch))

    def _keep(self, identity: Identity) -> None:
        try:
            _write_durably(self.path / "node.json", msgspec.json.encode(identity) + b"\n")
        except OSError as error:
            raise _unusable(self.path, error) from None
        self.identity = identity

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints of the database are kept: on the same file system, as they share its files."""
        return self.path / "checkpoints"

    def close(self) -> None:
        """Let another process have the directory."""
        os.close(self._lock)

    def _refuse_foreign(self) -> None:
        names = {entry.name for entry in self.path.iterdir()} - {"lock", _DRAFT}
        if names and "node.json" not in names:
            raise ConfigurationError(
                f"--data {self.path} is not empty and not a Merganser data directory "
                f"(it holds {', '.join(sorted(names)[:3])}): choose an empty or a new one"
            )

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            raise ConfigurationError(
                f"--data {self.path} is in use by process {holder or 'unknown'}: stop it, or choose another directory"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _identity(self, rng: random.Random) -> Identity:
        file = self.path / "node.json"
        if not file.exists():
            identity = Identity(FORMAT, NodeId(f"{rng.getrandbits(64):016x}"))
            _write_durably(file, msgspec.json.encode(identity) + b"\n")
            return identity
        try:
            identity = msgspec.json.decode(file.read_bytes(), type=Identity)
        except msgspec.MsgspecError as error:
            raise ConfigurationError(
                f"{file} is damaged ({error}): restore it, or start with a new directory"
            ) from None
        if identity.format != FORMAT:
            raise ConfigurationError(
                f"--data {self.path} has format {identity.format}, this version reads format {FORMAT}: "
                "start it with the version that wrote it"
            )
        return identity


def known_identity(path: Path) -> Identity | None:
    """Return what a directory says of its node, without taking it; None if it says nothing that can be read."""
    try:
        return msgspec.json.decode((path / "node.json").read_bytes(), type=Identity)
    except (OSError, msgspec.MsgspecError):
        return None


def left_message(node: NodeId, cluster_id: str, epoch: int) -> str:
    """Return what to tell an operator who starts a node that is no member any more."""
    return (
        f"node {node} left cluster {cluster_id} at epoch {epoch} of its map: empty its data directory to use the "
        "machine again"
    )


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"--data {path}: {error.strerror}: choose a directory this user can write")


def _write_durably(file: Path, content: bytes) -> None:
    draft = file.with_name(_DRAFT)
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)
    _sync_directory(file.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
