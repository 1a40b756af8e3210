"""Where snapshots are kept: a directory, or a bucket of an S3-compatible object store.

Objects have names with slashes and are written whole or not at all. One that was put is durable and is there for
every later call, also from other machines (S3 has been strongly consistent since 2020).

A bucket is reached through obstore, which takes keys, region and endpoint from the environment as the AWS tools do
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, AWS_ALLOW_HTTP); it is an extra: ``merganser[s3]``.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from merganser.model.errors import ConfigurationError, CorruptionError

_PART_BYTES = 8 * 2**20


_DAMAGE = frozenset((errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)))
"""What disks and file systems say of what they cannot read, or find changed."""


class StoreError(ConfigurationError):
    """The store cannot be reached, or refuses; says what to do."""


class ObjectStore(Protocol):
    """Named objects; every method may raise a `StoreError`."""

    def put(self, name: str, content: bytes | Path) -> None:
        """Store an object, durably, in place of what was there; a path is that of a file with the content."""

    def read(self, name: str) -> Iterator[bytes] | None:
        """Return the object in parts; None if it is not there."""

    def size(self, name: str) -> int | None:
        """Return how many bytes it has; None if it is not there."""

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, sorted; ``prefix`` ends with a slash."""

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""

    def rename(self, name: str, to: str) -> None:
        """Call an object that is there otherwise, in place of what had that name."""

    def local(self, name: str) -> Path | None:
        """Return the file that holds the object, if it is one of this machine; it is only to be read."""


def opened(url: str, *, is_new_fine: bool) -> ObjectStore:
    """Return the store at a directory, or at a URL such as ``s3://bucket/prefix``.

    Args:
        url: where it is.
        is_new_fine: make the directory if there is none.

    Raises:
        ConfigurationError: there is no such directory, or no way to reach such a URL.
    """
    if "://" not in url:
        return DirectoryStore(Path(url), is_new_fine=is_new_fine)
    return RemoteStore(url)


class DirectoryStore:
    """Objects are files below a directory; what is being written lies in ``.new/`` until it is whole and synced."""

    def __init__(self, path: Path, *, is_new_fine: bool) -> None:
        """Keep objects in ``path``.

        Raises:
            ConfigurationError: it is not there, or no directory.
        """
        self._path = path
        if is_new_fine:
            with _telling(path):
                path.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            raise ConfigurationError(f"there is no directory {path}: name one that holds snapshots")

    def put(self, name: str, content: bytes | Path) -> None:
        """Store an object."""
        target, draft = self._path / name, self._path / ".new" / secrets.token_hex(8)
        with _telling(self._path):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.parent.mkdir(exist_ok=True)
            try:
                with draft.open("wb") as stream:
                    for part in _parts(content):
                        stream.write(part)
                    stream.flush()
                    os.fsync(stream.fileno())
                draft.rename(target)
            finally:
                with contextlib.suppress(OSError):
                    draft.unlink(missing_ok=True)
            self._sync_from(target.parent)

    def read(self, name: str) -> Iterator[bytes] | None:
        """Return the object in parts; None if it is not there."""
        file = self._path / name
        return _read(file) if file.is_file() else None

    def size(self, name: str) -> int | None:
        """Return how many bytes it has; None if it is not there."""
        try:
            return (self._path / name).stat().st_size
        except FileNotFoundError:
            return None

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, sorted."""
        with _telling(self._path):
            found = (self._path / prefix).rglob("*")
            return sorted(str(file.relative_to(self._path)) for file in found if file.is_file())

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        with _telling(self._path):
            (self._path / name).unlink(missing_ok=True)

    def rename(self, name: str, to: str) -> None:
        """Call an object that is there otherwise."""
        with _telling(self._path):
            (self._path / to).parent.mkdir(parents=True, exist_ok=True)
            (self._path / name).rename(self._path / to)
            self._sync_from((self._path / to).parent)
            self._sync_from((self._path / name).parent)

    def local(self, name: str) -> Path | None:
        """Return the file that holds the object."""
        return (self._path / name).resolve()

    def _sync_from(self, directory: Path) -> None:
        for each in (directory, *directory.parents):
            _sync(each)
            if each == self._path:
                break


class RemoteStore:
    """Objects of a bucket, below a prefix."""

    def __init__(self, url: str) -> None:
        """Reach the bucket that ``url`` names.

        Raises:
            ConfigurationError: obstore is not installed, or does not know such a URL.
        """
        try:
            self._obstore: Any = importlib.import_module("obstore")
            stores: Any = importlib.import_module("obstore.store")
        except ImportError:
            raise ConfigurationError(f"{url} needs an object store client: pip install 'merganser[s3]'") from None
        self._url = url
        try:
            self._store: Any = stores.from_url(url)
        except Exception as error:
            raise self._told(error) from error

    def put(self, name: str, content: bytes | Path) -> None:
        """Store an object, in parts if it is large."""
        try:
            self._obstore.put(self._store, name, content, chunk_size=_PART_BYTES)
        except Exception as error:
            raise self._told(error) from error

    def read(self, name: str) -> Iterator[bytes] | None:
        """Return the object in parts; None if it is not there."""
        try:
            found = self._obstore.get(self._store, name)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._told(error) from error
        return self._streamed(found)

    def size(self, name: str) -> int | None:
        """Return how many bytes it has; None if it is not there."""
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._told(error) from error

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, sorted."""
        try:
            pages = self._obstore.list(self._store, prefix=prefix)
            return sorted(str(found["path"]) for page in pages for found in page)
        except Exception as error:
            raise self._told(error) from error

    def delete(self, name: str) -> None:
        """Remove an object if it is there."""
        try:
            self._obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._told(error) from error

    def rename(self, name: str, to: str) -> None:
        """Call an object that is there otherwise."""
        try:
            self._obstore.rename(self._store, name, to)
        except Exception as error:
            raise self._told(error) from error

    def local(self, _name: str) -> Path | None:
        """Return None: it has to be fetched."""
        return None

    def _streamed(self, found: Any) -> Iterator[bytes]:
        try:
            for part in found.stream(min_chunk_size=_PART_BYTES):
                yield bytes(part)
        except Exception as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> StoreError:
        first = str(error).partition("\n")[0]
        return StoreError(f"{self._url}: {first}: check the URL, the keys and the endpoint (AWS_*)")


def _parts(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        while part := stream.read(_PART_BYTES):
            yield part


def _read(file: Path) -> Iterator[bytes]:
    """Yield the parts of a file.

    Raises:
        CorruptionError: the disk cannot read it.
        StoreError: it cannot be read now, or not by this user.
    """
    try:
        yield from _parts(file)
    except OSError as error:
        if error.errno in _DAMAGE:
            raise CorruptionError(f"{file} cannot be read: {error.strerror}") from error
        raise StoreError(f"{file} cannot be read: {error.strerror}: see to that, and run it again") from error


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}: make room, or choose a directory this user can write, and run it again; only "
            "files that are stored whole by now are not sent again"
        ) from error


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
