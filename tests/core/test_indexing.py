"""What is stored of the entries of global indexes."""

from __future__ import annotations

import pytest

from merganser.core.indexing import Shown, decoded, encoded, shown_in
from merganser.model.errors import CorruptionError
from merganser.model.register import Version

NEWEST = Version(2**64 - 1, 2**32 - 1, 2**64 - 1)


@pytest.mark.parametrize("shown", [Shown(NEWEST, b"item"), Shown(Version(1, 2, 3), b""), Shown(NEWEST, None)])
def test_entry_is_read_as_it_was_stored(shown: Shown) -> None:
    assert decoded(encoded(shown)) == shown


def test_markers_are_not_shown() -> None:
    rows = ((b"a", encoded(Shown(NEWEST, b"item"))), (b"b", encoded(Shown(NEWEST, None))))
    assert shown_in(rows) == ((b"a", b"item"),)


def test_entry_that_ends_too_early_is_damaged() -> None:
    with pytest.raises(CorruptionError, match="not an entry"):
        decoded(b"short")
