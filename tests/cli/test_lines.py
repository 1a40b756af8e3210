"""How keys are printed, as bash reads them back, and taken as they are typed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.cli import value_commands
from merganser.cli.lines import on_a_line
from merganser.model.errors import ConfigurationError

KEYS = [
    (b"ann", "ann"),
    ("Köln 5'".encode(), "Köln 5'"),
    (rb"a\nb", r"a\nb"),
    (b"a\nb", r"$'a\nb'"),
    (b"\xff\t'\\", r"$'\xff\t\'\\'"),
    (b"$'a'", r"$'$\'a\''"),
    ("\x1b[31m\u2028".encode(), r"$'\x1b[31m\xe2\x80\xa8'"),
]


@pytest.mark.parametrize(("key", "shown"), KEYS)
def test_a_key_that_cannot_be_printed_on_a_line_is_quoted(key: bytes, shown: str) -> None:
    assert on_a_line(key) == shown


def test_bash_reads_quoted_keys_back() -> None:
    quoted = [(key, shown) for key, shown in KEYS if shown.startswith("$'")]
    script = "printf '%s\\0' " + " ".join(shown for _, shown in quoted)
    read = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert read.split(b"\0") == [*(key for key, _ in quoted), b""]


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True, max_size=20))
def test_no_two_keys_look_alike_and_each_is_one_line(keys: list[bytes]) -> None:
    shown = set(map(on_a_line, keys))
    assert len(shown) == len(keys)
    assert all(len(one.splitlines()) == 1 for one in shown)


@pytest.fixture
def asked() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An admin port that agrees to everything, and what it was asked."""
    requests: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"context": "", "made": true}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def typed(argument: bytes) -> str:
    """Return an argument as Python has it in ``sys.argv``."""
    return argument.decode(errors="surrogateescape")


def test_keys_and_values_that_are_no_utf8_are_taken_as_they_are_typed(
    asked: tuple[str, list[tuple[str, bytes]]],
) -> None:
    admin, requests = asked
    value_commands.put("t", typed(b"\xff"), typed(b"\xfe"), consistency="ONE", admin=admin)
    value_commands.update(
        "t", typed(b"\xff"), "set", "add", typed(b"\xfe"), [typed(b"\xfd")], consistency="ONE", admin=admin
    )
    assert requests == [
        ("/values/put?table=t&key=%FF&consistency=ONE", b"\xfe"),
        (
            "/values/update?table=t&key=%FF&consistency=ONE",
            b'[{"type":"set","action":"add","value":{"base64":"/g=="},"path":[{"base64":"/Q=="}]}]',
        ),
    ]
    with pytest.raises(ConfigurationError, match="what is said about a value is UTF-8"):
        value_commands.put("t", "k", "v", tag=[typed(b"a=\xff")])
