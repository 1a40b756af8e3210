"""Other servers are installed apart, served, and gone afterwards; those that cannot be had are left out by name."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from merganser.bench import peers
from merganser.bench.peers import Peer, all_served, install, served
from merganser.bench.processes import usage
from merganser.model.errors import ConfigurationError

SERVER = """#!{python}
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(os.environ["WORD"], child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def peer(folder_command: list[str], name: str = "fake") -> Peer:
    return Peer(
        name, lambda _folder: [folder_command], "server", lambda port: (str(port),), lambda _port: {"WORD": "hi"}
    )


def installs(text: str) -> list[str]:
    write = "import pathlib, sys; p = pathlib.Path('server'); p.write_text(sys.argv[1]); p.chmod(0o755)"
    return [sys.executable, "-c", write, text]


GOOD = installs(SERVER.format(python=sys.executable))
REFUSED = [sys.executable, "-c", "import sys; sys.exit('no such package')"]
DEAD = installs(f"#!{sys.executable}\nraise SystemExit('cannot listen')\n")


def test_it_is_installed_once(tmp_path: Path) -> None:
    program = install(peer(GOOD), tmp_path / "fake")
    assert program.exists()
    assert install(peer(REFUSED), tmp_path / "fake") == program, "it is there already"


@pytest.mark.parametrize("command", [REFUSED, ["/nonexistent/npm"], [sys.executable, "-c", ""]])
def test_what_cannot_be_installed_leaves_nothing(tmp_path: Path, command: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"no such package|No such file|has no server"):
        install(peer(command), tmp_path / "fake")
    assert list(tmp_path.iterdir()) == []


def test_it_is_stopped_with_its_children(tmp_path: Path) -> None:
    program = install(peer(GOOD), tmp_path / "fake")
    log = tmp_path / "log"
    with served(peer(GOOD), program, log) as subject:
        assert usage(subject.pids).resident_bytes > 0
        word, child = log.read_text().split()[:2]
        assert word == "hi"
        watched = os.pidfd_open(int(child))
    assert not Path(f"/proc/{subject.pids[0]}").exists()
    assert select.select([watched], [], [], 30.0)[0], "the child has ended"
    os.close(watched)


def test_those_that_cannot_be_had_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", (peer(GOOD, "good"), peer(REFUSED, "refused"), peer(DEAD, "dead")))
    monkeypatch.setattr(peers, "cache", lambda: tmp_path / "cache")
    told: list[str] = []
    with all_served(tmp_path, tell=told.append) as subjects:
        assert [subject.name for subject in subjects] == ["good"]
    assert [line.split(":")[0] for line in told] == ["refused is left out", "dead is left out"]
    assert "no such package" in told[0]
    assert told[1].endswith("it does not serve: cannot listen")


def test_outside_of_a_virtual_environment_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(ConfigurationError, match="into a virtual environment only"):
        peers.cache()


def test_the_peers_have_names_and_folders_of_their_own() -> None:
    names = [one.name for one in peers.PEERS]
    assert len(set(names)) == len(names) == 3
    assert all(len(one.install(Path("/x"))) == 2 for one in peers.PEERS)
