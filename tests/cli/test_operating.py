"""What ``merganser operation``, and those that begin one, tell."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from merganser.cli import operating
from merganser.cli.admin_port import BusyError, NodeAwayError


@pytest.mark.parametrize(
    ("last", "is_done", "told"),
    [
        (None, True, ""),
        ({"told": "leave 5", "is_done": True}, True, "before: leave 5: done"),
        ({"told": "leave 5", "is_done": False}, False, "before: leave 5: cancelled"),
    ],
)
def test_it_tells_what_the_last_operation_came_to(
    last: dict[str, Any] | None,
    is_done: bool,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages = {"/ring": {"nodes": []}, "/operation": {"running": None, "last": last}}
    monkeypatch.setattr(operating, "fetch", lambda _address, path: pages[path])
    assert operating.watch_running("127.0.0.1:1") is is_done
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["no operation is under way", *([told] if told else [])]


PLAN: dict[str, Any] = {
    "told": "leave 1",
    "kind": "leave",
    "moves": 3,
    "partitions": 8,
    "nodes": [],
    "warnings": [],
    "objections": [],
}


def node(number: int, data_center: str) -> dict[str, Any]:
    return {
        "number": number,
        "peer_address": f"127.0.0.1:{number}",
        "is_alive": True,
        "is_gone": False,
        "weight": 1.0,
        "weight_after": 1.0,
        "data_center": data_center,
        "zone": "a",
        "zone_after": "b",
        "owned": 8,
        "owned_after": 5,
    }


@pytest.mark.parametrize(
    ("data_centers", "head", "first"),
    [
        (("eu", "us"), ["node", "peers", "data", "centre", "zone"], ["1", "127.0.0.1:1", "eu", "a", "->", "b"]),
        (("", ""), ["node", "peers", "zone", "weight"], ["1", "127.0.0.1:1", "a", "->", "b"]),
    ],
)
def test_a_plan_tells_the_data_center_of_each_node_where_there_are_any(
    data_centers: tuple[str, ...], head: list[str], first: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [node(number, name) for number, name in enumerate(data_centers, start=1)]
    operating.show_plan(Console(width=200), {**PLAN, "nodes": nodes})
    _, heads, row, _ = capsys.readouterr().out.splitlines()
    assert heads.split()[: len(head)] == head
    assert row.split()[: len(first)] == first


def test_what_a_minority_cannot_begin_is_not_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = 0

    def post(_address: str, path: str, **_: object) -> dict[str, Any]:
        nonlocal tries
        if path == "/operation/plan":
            return PLAN
        tries += 1
        if tries == operating.BEGIN_TRIES:  # another node, which is away
            raise NodeAwayError("no node answers there")
        raise BusyError("no majority of the voters answers")

    monkeypatch.setattr(operating, "fetch", lambda _address, _path: {"nodes": []})
    monkeypatch.setattr(operating, "post", post)
    monkeypatch.setattr(operating, "POLL_S", 0.0)
    assert operating.operate("127.0.0.1:1", {"kind": "leave", "forced": True}, asks=False) is False
    told = " ".join(capsys.readouterr().out.split())
    assert "no majority of the voters answers (so ended the last of 4 tries" in told
