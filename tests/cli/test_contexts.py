"""What ``--context`` takes, and what it does not take for a context."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from merganser.cli.contexts import context_of
from merganser.model.errors import ConfigurationError


@pytest.mark.parametrize(
    "content", [b"AYKB+/==", b"AYKB+/==\n", b'{"values": [], "context": "AYKB+/=="}', b'\n{"context":"AYKB+/=="}']
)
def test_a_context_is_read_from_a_file_and_from_standard_input(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seen").write_bytes(content)
    assert context_of(f"@{tmp_path / 'seen'}") == "AYKB+/=="
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert context_of("-", value="milk") == "AYKB+/=="


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b'{"error": "no such table"}', b"\xff"])
def test_what_holds_no_context_is_an_error_and_not_an_empty_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "seen").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"there is no context in .*seen: write there what get --json"):
        context_of(f"@{tmp_path / 'seen'}")


def test_a_context_is_itself_and_none_is_none() -> None:
    assert context_of("AYKB") == "AYKB"
    assert context_of("") == ""
    assert context_of(None) is None


def test_standard_input_is_one_thing_and_a_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be both"):
        context_of("-", value="-")
    with pytest.raises(ConfigurationError, match=r"the context cannot be read: .*No such file"):
        context_of(f"@{tmp_path / 'gone'}", value="-")
