"""Snapshots in an object store: files by their checksums, each once, and a manifest for each snapshot.

::

    files/ab/abcdef…      a file of some node's checkpoint, named by its SHA-256
    snapshots/NAME.json   a manifest: the SHA-256 of what follows, a line feed, the manifest as JSON
    damaged/ab/abcdef…    what was found in place of such a file, and is not its content
    writing/NAME          while NAME is being made
    deleting/ID           while files are being removed

A manifest is put last, when all of its files are there, so a snapshot is there whole or not at all. A file that is
there already is not sent again, whichever snapshot or node it came from: database files never change, so a second
snapshot sends what is new. One that is found damaged is set aside, so that it is not there any more.

Files of no manifest are removed when a snapshot is deleted, but not while one is being made, which may count on them:
each of the two says so first, and then looks for the other. Whoever sets a file aside does as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.model.snapshot import FORMAT, File, Manifest
from merganser.storage.object_store import ObjectStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch


class Repository:
    """The snapshots of one object store; see the module's docstring."""

    def __init__(self, store: ObjectStore) -> None:
        """Keep them in ``store``."""
        self.store = store

    def names(self) -> list[str]:
        """Return the names of all snapshots, sorted."""
        return [name[len("snapshots/") : -len(".json")] for name in self.store.names("snapshots/")]

    def manifest(self, name: str) -> tuple[Manifest, str]:
        """Return a manifest and its checksum, in hexadecimal.

        Raises:
            ConfigurationError: there is no such snapshot, or it is of a newer format.
            CorruptionError: it is not what was stored.
        """
        check_name(name)
        parts = self.store.read(f"snapshots/{name}.json")
        if parts is None:
            there = ", ".join(self.names()) or "none"
            raise ConfigurationError(f"there is no snapshot {name!r}; there are: {there}")
        checksum, _, content = b"".join(parts).partition(b"\n")
        if checksum != hashlib.sha256(content).hexdigest().encode():
            raise CorruptionError(f"the manifest of snapshot {name} is damaged: it does not match its checksum")
        try:
            version = msgspec.json.decode(content, type=_Formatted).format
            if version != FORMAT:
                raise ConfigurationError(
                    f"snapshot {name} has format {version}, and this version reads {FORMAT}: use the one that made it"
                )
            return msgspec.json.decode(content, type=Manifest), checksum.decode()
        except msgspec.MsgspecError as error:
            raise CorruptionError(f"the manifest of snapshot {name} makes no sense: {error}") from None

    def begin(self, name: str) -> None:
        """Say that a snapshot is being made; until `publish` or `give_up` no file is removed.

        Raises:
            ConfigurationError: there is one of that name, or files are being removed.
        """
        check_name(name)
        if self.store.size(f"snapshots/{name}.json") is not None:
            raise ConfigurationError(f"there is a snapshot {name!r} already: choose another name, or delete it")
        self.store.put(f"writing/{name}", b"")
        if self.store.names("deleting/"):
            self.give_up(name)
            raise ConfigurationError("a snapshot is being deleted: wait for that to end, or repeat it if it was killed")

    def give_up(self, name: str) -> None:
        """Say that it is not being made any more; files that were put stay until a snapshot is deleted."""
        self.store.delete(f"writing/{name}")

    def has(self, file: File) -> bool:
        """Tell whether the content of a file is there already; only its size is compared."""
        return self.store.size(object_name(file)) == file.size

    def put(self, file: File, content: bytes | Path) -> None:
        """Store the content of a file, whose checksum the caller has compared."""
        self.store.put(object_name(file), content)

    def publish(self, manifest: Manifest) -> None:
        """Store a manifest; all its files are there."""
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        self.store.put(
            f"snapshots/{manifest.name}.json", hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        )
        self.give_up(manifest.name)

    def checked(self, file: File) -> Iterator[bytes]:
        """Yield the content of a file in parts; raises after the last one if they are not what was stored.

        Raises:
            CorruptionError: it is gone, or damaged.
        """
        parts = self.store.read(object_name(file))
        if parts is None:
            raise CorruptionError(f"file {file.name} ({object_name(file)}) is gone")
        digest, size = hashlib.sha256(), 0
        for part in parts:
            digest.update(part)
            size += len(part)
            yield part
        if size != file.size or digest.hexdigest() != file.sha256:
            raise CorruptionError(f"file {file.name} ({object_name(file)}) is damaged: {size} bytes that do not match")

    def delete(
        self, name: str, *, is_forced: bool, progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> int:
        """Remove a snapshot, and the files that no other one needs; returns how many files. May be repeated.

        Args:
            name: of the snapshot; it may be gone already.
            is_forced: snapshots that are being made are taken for given up.
            progress: told how many files are gone, of how many.

        Raises:
            ConfigurationError: a snapshot is being made.
            CorruptionError: another manifest is damaged: what it needs is not known, so no file is removed.
        """
        check_name(name)
        with self._removing(is_forced=is_forced):
            self.store.delete(f"snapshots/{name}.json")
            needed = {
                object_name(file)
                for other in self.names()
                for copy in self.manifest(other)[0].copies
                for file in copy.files
            }
            doomed = [one for one in self.store.names("files/") if one not in needed]
            doomed += [one for one in self.store.names("damaged/") if "files/" + one[len("damaged/") :] not in needed]
            for done, one in enumerate(doomed, start=1):
                self.store.delete(one)
                progress(done, len(doomed))
            return len(doomed)

    def set_aside(self, file: File) -> str | None:
        """Move what is in the place of a file out of the way, if it is not its content, so that it is sent again.

        Returns:
            where it is now; None if the file is well, or was not there at all.

        Raises:
            ConfigurationError: a snapshot is being made, or the store cannot be written; it is where it was.
        """
        with self._removing(is_forced=False):  # so whoever has put it anew since it was read has ended
            if self.store.size(object_name(file)) is None:
                return None
            with contextlib.suppress(CorruptionError):
                for _ in self.checked(file):
                    pass
                return None
            aside = object_name(file).replace("files/", "damaged/", 1)
            self.store.rename(object_name(file), aside)
            return aside

    @contextlib.contextmanager
    def _removing(self, *, is_forced: bool) -> Iterator[None]:
        """Remove files meanwhile, and keep snapshots from being made."""
        mark = f"deleting/{secrets.token_hex(8)}"
        self.store.put(mark, b"")
        try:
            writing = [one[len("writing/") :] for one in self.store.names("writing/")]
            if writing and not is_forced:
                raise ConfigurationError(
                    f"a snapshot is being made ({', '.join(writing)}): wait for it; if its command was killed, run "
                    "that again, or delete with --force"
                )
            for one in writing:
                self.give_up(one)
            yield
        finally:
            for one in self.store.names("deleting/") if is_forced else [mark]:
                self.store.delete(one)


class _Formatted(msgspec.Struct):
    format: int


def object_name(file: File) -> str:
    """Return where a repository keeps the content of a file."""
    return f"files/{file.sha256[:2]}/{file.sha256}"


def check_name(name: str) -> None:
    """Raise unless a snapshot may be called so.

    Raises:
        ConfigurationError: it may not.
    """
    if not _NAME(name):
        raise ConfigurationError(
            f"a snapshot is called by letters, digits, '.', '_' and '-', 100 at most, no sign first; not {name[:99]!r}"
        )
