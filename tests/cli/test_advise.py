"""`merganser advise`, asked of nodes some of which are away: HTTP by hand, in this process."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from merganser.cli.advise import advise
from merganser.model.errors import ConfigurationError

LINK = {"out": [0.001] * 100, "back": [0.001] * 100, "seconds": 50.0}


@pytest.fixture
def admin() -> Iterator[str]:
    """The admin port of the one node of three that answers; it knows table t."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, ThreadingHTTPServer)
            here = f"127.0.0.1:{self.server.server_port}"
            status, page = 200, dict[str, Any]()
            if self.path == "/ring":
                addresses = [{"admin": here}, {"admin": nobody}, {}]
                page = {"nodes": [{"id": f"n{i}", "number": i, "addresses": at} for i, at in enumerate(addresses, 1)]}
            elif self.path == "/staleness?table=t":
                links = {"n2": LINK, "n3": LINK}
                page = {"n": 3, "node": "n1", "links": links, "applies": [0.002] * 100, "writes": 100, "reads": 0}
            else:
                status, page = 400, {"error": "no tables are called 'u' on this node; there are t"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def asked(admin: str, table: str = "t", *, as_json: bool = False) -> None:
    advise(admin, table, n=None, r=1, w=1, is_plotted=False, as_json=as_json)


def test_nodes_that_do_not_answer_are_named_before_what_the_others_have_measured(
    admin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(admin)
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("no answer from node 2 (127.0.0.1:")
    assert "), node 3 (no admin port): this is by what 1 of 3 nodes have measured; while the others are down" in told
    assert "what takes more than 1 of the replicas cannot be done at all n r w fresh" in told
    asked(admin, as_json=True)
    assert json.loads(capsys.readouterr().out)["away"] == [2, 3]


def test_a_table_that_is_none_is_told_in_words(admin: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^the node at \S+ says: no tables are called 'u' on this node; there"
    ):
        asked(admin, "u")
