from __future__ import annotations

import pytest

from merganser.query.reserved_words import RESERVED_WORDS, is_reserved


@pytest.mark.parametrize("word", ["name", "NAME", "Status", "size", "convert", "abort", "zone", "count", "and"])
def test_reserved_word_is_known_in_any_case(word: str) -> None:
    assert is_reserved(word)


@pytest.mark.parametrize("word", ["id", "p", "contains", "begins_with", "names_", ""])
def test_other_word_is_free(word: str) -> None:
    assert not is_reserved(word)


def test_list_is_whole() -> None:
    assert len(RESERVED_WORDS) == 573
