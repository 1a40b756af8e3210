"""The command that makes snapshots: checkpoints that a change of the ring has torn are dropped, and taken anew."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from merganser.cli.snapshot_create import TRIES, create
from merganser.cli.snapshot_nodes import Pace
from merganser.core import cluster_map
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import ConfigurationError
from merganser.model.ids import ClusterId, NodeId
from merganser.storage.object_store import DirectoryStore
from merganser.storage.repository import Repository

NODES = 3


def whole() -> ClusterMap:
    members = [NodeRecord(NodeId(f"n{number}"), number, f"10.0.0.{number}:7700") for number in range(1, NODES + 1)]
    return cluster_map.found(ClusterId("c" * 16), members, 8)


def flipped() -> ClusterMap:
    current = whole()
    return msgspec.structs.replace(current, epoch=2, placed=2, owners=(*current.owners[1:], current.owners[0]))


class AdminPort:
    """What nodes that have no files answer to the command; their checkpoints are of the maps that they are given."""

    def __init__(self, maps: Sequence[Sequence[ClusterMap]]) -> None:
        """Have each of ``maps`` be those of one try, by node."""
        self._maps = [list(of_try) for of_try in maps]
        self._lock = threading.Lock()
        self.taken: list[str] = []
        self.dropped: list[str] = []

    def answer(self, path: str) -> object:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self._lock:
            match parts.path:
                case "/ring":
                    numbers = range(1, NODES + 1)
                    return {
                        "cluster": "c" * 16,
                        "nodes": [{"id": f"n{n}", "number": n, "addresses": {"admin": self.address}} for n in numbers],
                    }
                case "/snapshot/take":
                    number = self.taken.count(query["id"])
                    self.taken.append(query["id"])
                    tried = len(dict.fromkeys(self.taken)) - 1
                    current = self._maps[tried][number]
                    return {"map": msgspec.json.encode(current).decode(), "files": {}}
                case "/snapshot/drop":
                    self.dropped.append(query["id"])
        return {}

    address = ""


@pytest.fixture
def serve() -> Iterator[Callable[[AdminPort], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(port: AdminPort) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer()

            def _answer(self) -> None:
                body = json.dumps(port.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        port.address = f"127.0.0.1:{server.server_address[1]}"
        return port.address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def made(port: AdminPort, repository: Repository, serve: Callable[[AdminPort], str]) -> ClusterMap:
    manifest, _ = create(serve(port), repository, "s", pace=Pace(1.0), progress=lambda *_: None)
    return manifest.map


def test_checkpoints_that_a_flip_has_torn_are_dropped_and_taken_anew(
    tmp_path: Path, serve: Callable[[AdminPort], str]
) -> None:
    torn, good = [whole(), flipped(), flipped()], [flipped()] * NODES
    port, repository = AdminPort([*[torn] * (TRIES - 1), good]), Repository(DirectoryStore(tmp_path, is_new_fine=True))
    assert made(port, repository, serve).owners == flipped().owners
    assert repository.names() == ["s"]
    assert len(set(port.taken)) == TRIES
    assert sorted(port.dropped) == sorted(port.taken)


def test_a_ring_that_changes_at_every_try_is_told_and_leaves_nothing_behind(
    tmp_path: Path, serve: Callable[[AdminPort], str]
) -> None:
    torn = [whole(), flipped(), flipped()]
    port, repository = AdminPort([torn] * TRIES), Repository(DirectoryStore(tmp_path, is_new_fine=True))
    with pytest.raises(ConfigurationError, match="partitions were moving while the checkpoints were taken"):
        made(port, repository, serve)
    assert repository.names() == []
    assert len(port.taken) == TRIES * NODES
    assert sorted(port.dropped) == sorted(port.taken)
    repository.begin("s")  # nobody is making it any more
