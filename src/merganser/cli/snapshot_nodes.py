"""The nodes of a cluster, as the commands about snapshots ask them: by their admin ports, with patience, at a bounded
speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from merganser.cli.admin_port import NodeAwayError, fetch, post, post_for_bytes
from merganser.core.token_bucket import TokenBucket
from merganser.model.errors import ConfigurationError
from merganser.node.admin import HEADER

T = TypeVar("T")

PATIENCE_S = 60.0
"""A node that restarts is back within that, and goes on."""
_PAUSE_S = 0.5
_MIB = 2**20


class StoppedError(ConfigurationError):
    """Another thread has failed, and what this one does is of no use any more."""


class Node(msgspec.Struct, frozen=True):
    """A member of the cluster."""

    id: str
    number: int
    address: str
    """Of its admin port."""

    def do(self, action: str, *, timeout_s: float = 60.0, content: bytes = b"", **query: object) -> dict[str, Any]:
        """Have the node do something for a snapshot.

        Raises:
            NodeAwayError: it does not answer.
            ConfigurationError: it does not do it; says why.
        """
        return post(self.address, _path(action, query), header=HEADER.decode(), timeout_s=timeout_s, content=content)

    def read(self, action: str, **query: object) -> bytes:
        """Return the bytes that the node answers with; raises as `do`."""
        return post_for_bytes(self.address, _path(action, query), header=HEADER.decode(), timeout_s=60.0)


class Pace:
    """Lets so many bytes a second pass, of all threads together."""

    def __init__(self, mib_per_s: float) -> None:
        """Let ``mib_per_s`` pass."""
        self.bytes_per_s = int(mib_per_s * _MIB)
        self._bucket = TokenBucket(self.bytes_per_s, time.monotonic())
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()

    def stop(self) -> None:
        """Let nothing pass any more."""
        self._is_stopped.set()

    def take(self, size: int) -> None:
        """Return once ``size`` bytes may pass.

        Raises:
            StoppedError: nothing may any more.
        """
        while not self._is_stopped.is_set():
            with self._lock:
                if self._bucket.is_open(time.monotonic()):
                    self._bucket.take(size, time.monotonic())
                    return
            time.sleep(0.01)
        raise StoppedError("it was stopped")


def members(admin: str) -> tuple[str, list[Node]]:
    """Return the id of the cluster, and its nodes.

    Raises:
        ConfigurationError: nobody answers at ``admin``.
    """
    page = fetch(admin, "/ring")
    nodes = [Node(node["id"], node["number"], node["addresses"].get("admin", "")) for node in page["nodes"]]
    return page["cluster"], nodes


def patiently(work: Callable[[], T]) -> T:
    """Return what ``work`` does; try again while its node is away.

    Raises:
        NodeAwayError: it stayed away.
        ConfigurationError: as ``work``.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except NodeAwayError:
            if time.monotonic() > give_up_at:
                raise
        time.sleep(_PAUSE_S)


def reason_of(error: ConfigurationError) -> str:
    """Return what one node has against it, without what is said to who gave a wrong address."""
    return (
        "it does not answer" if isinstance(error, NodeAwayError) else str(error).partition(" says: ")[2] or str(error)
    )


def _path(action: str, query: dict[str, object]) -> str:
    return f"/snapshot/{action}?{urlencode(query)}"
