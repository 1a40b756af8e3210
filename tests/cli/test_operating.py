"""``merganser operation --wait`` when nothing is under way any more."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.cli import operating


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
