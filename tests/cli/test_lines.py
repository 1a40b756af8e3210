"""How keys are printed: as bash reads them back."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.cli.lines import on_a_line

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
