"""`merganser table`, `put`, `get`, `update` and so on, on real processes: conflicts are kept, resolved, or merge."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merganser.cli.values import ask, get
from merganser.core import causality
from merganser.core.token import token_of
from merganser.model.errors import ConfigurationError
from merganser.model.ids import TableId
from merganser.model.row import Span
from merganser.node.local_cluster import LocalCluster
from merganser.storage import keys

pytestmark = pytest.mark.process

Command = Callable[..., Any]


def _advice(ask: Command) -> Any:
    """What is advised once there are enough questions; before, it is said what they are."""
    ends_at = time.monotonic() + 30
    while (told := ask()).returncode:
        assert "that is too little. Have nodes write to the table" in told.stderr
        assert time.monotonic() < ends_at
    return json.loads(told.stdout)


def test_siblings_stand_side_by_side_until_they_are_resolved_others_merge_and_all_come_back_from_a_snapshot(
    cluster: LocalCluster, command: Command, tmp_path: Path
) -> None:
    admins = [node.addresses["admin"] for node in cluster.nodes]

    def run(*arguments: str, through: int = 0, status: int = 0) -> str:
        done = command(*arguments, "--admin", admins[through])
        assert done.returncode == status, done.stderr
        return str(done.stdout)

    assert run("table", "create", "carts") == "table carts, 3 replicas of each key\n"
    context = run("put", "carts", "ann", "milk").strip()
    run("put", "carts", "ann", "bread", through=1)
    shown = run("get", "carts", "ann", through=2)
    assert "milk" in shown
    assert "bread" in shown
    assert "2 siblings: merganser resolve carts ann" in shown
    told = json.loads(run("get", "carts", "ann", "--json", through=2))
    assert [value["text"] for value in told["values"]] == ["milk", "bread"]
    seen = tmp_path / "seen.json"
    seen.write_text(json.dumps(told))
    assert shown.endswith(f'"what they come to" --context {told["context"]}\n')
    run("put", "carts", "ann", "milk and eggs", "--context", context)
    run("resolve", "carts", "ann", "milk and bread", "--context", f"@{seen}", through=2)  # has not seen the eggs
    now = ask(admins[0], "get", {"table": "carts", "key": "ann"})
    assert [value["text"] for value in now["values"]] == ["milk and eggs", "milk and bread"]
    with pytest.raises(ConfigurationError, match="ann has 2 siblings: get them with --json"):
        get(admins[0], "carts", "ann", consistency="QUORUM", as_json=False, is_raw=True)
    run("resolve", "carts", "ann", "milk, eggs and bread", through=1)
    assert run("get", "carts", "ann", through=2) == "milk, eggs and bread\n"
    assert run("get", "carts", "ann", "--raw", through=2) == "milk, eggs and bread"
    key = keys.row_key(TableId(1), token_of(b"long"), b"long")
    long = causality.encode(key, tuple(Span(9, at, at, at) for at in range(10, 30_000, 10))).decode()
    for value in (b"milk", b"bread"):
        ask(admins[0], "put", {"table": "carts", "key": "long", "context": long}, value)
    shown = run("get", "carts", "long")
    assert "--context @FILE\nits context is too long for a command: it is in FILE after get --json > FILE" in shown
    seen.write_text(json.dumps(ask(admins[0], "get", {"table": "carts", "key": "long"})))
    context = run("resolve", "carts", "long", "both", "--context", f"@{seen}").strip()
    ask(admins[0], "delete", {"table": "carts", "key": "long", "context": context})
    run("put", "carts", "bob", "tea")
    run("put", "carts", "bob", "coffee")
    assert sorted(run("keys", "carts").split()) == ["ann", "bob"]
    run("put", "carts", "cat", "food", "--tag-int", "age=5", "--client", "shop-7", "--meta", "by=ann")
    assert run("find", "carts", "age", "5", "--int", through=1) == "5\tcat\n"
    assert run("keys", "carts", "--prefix", "c", through=2) == "cat\n"
    run("put", "carts", "cat", "more", "--if", "none_match", status=2)
    assert run("table", "create", "pages", "--conflicts", "crdt", through=1).startswith("table pages")
    session = run("session", "pages").strip()
    count = ("update", "pages", "home", "counter", "increment", "5", "--field", "visits", "--id")
    assert run(*count, f"{session}:1") == "made\n"
    assert run(*count, f"{session}:1", through=2) == "made\n"  # and counts once
    run(*count, f"{session}:3", through=1, status=2)
    run("update", "pages", "home", "set", "add", "ann", "--field", "readers", through=1)
    assert run("get", "pages", "home", through=2) == '{"readers":["ann"],"visits":5}\n'
    before = tmp_path / "before.json"
    before.write_text(json.dumps(ask(admins[0], "get", {"table": "pages", "key": "home"})))
    again = b'[{"type": "set", "action": "add", "value": "ann", "path": ["readers"]}]'
    ask(admins[0], "update", {"table": "pages", "key": "home"}, again)
    run("update", "pages", "home", "set", "remove", "ann", "--field", "readers", "--context", f"@{before}", through=1)
    assert run("get", "pages", "home", through=2) == '{"readers":["ann"],"visits":5}\n'  # the second add was not seen
    for number in range(10):
        ask(admins[0], "put", {"table": "carts", "key": f"bob-{number}"}, b"water")
    advice = _advice(lambda: command("advise", "carts", "--json", "--r", "1", "--w", "1", "--admin", admins[0]))
    assert 0 < advice["choices"][0]["fresh_at_once"] <= 1
    assert advice["basis"]["nodes"] == 3
    assert advice["basis"]["writes"] >= 10
    assert not advice["basis"]["is_good"]
    run("snapshot", "create", str(tmp_path / "repository"), "--name", "one")
    run("snapshot", "restore", str(tmp_path / "repository"), "one", "--prefix", "old-", through=1)
    told = json.loads(run("get", "old-carts", "bob", "--json"))
    assert [value["text"] for value in told["values"]] == ["tea", "coffee"]
    run("resolve", "old-carts", "bob", "water")
    assert run("get", "old-carts", "bob", through=2) == "water\n"
    assert run("get", "old-pages", "home", through=2) == '{"readers":["ann"],"visits":5}\n'
    cluster.nodes[0].kill()
    run(*count[:5], "2", *count[6:], f"{session}:2", through=1)
    assert run("get", "pages", "home", through=2) == '{"readers":["ann"],"visits":7}\n'
    assert run("get", "carts", "ann", through=1) == "milk, eggs and bread\n"
    run("delete", "carts", "ann", through=2)
    assert run("get", "carts", "ann", through=1, status=1) == ""
