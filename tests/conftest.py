"""What every test shares."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

from merganser.cli.simulate import OLDER_LOOKS, YOUNG_OBJECTS_MAX
from merganser.model.build import IS_COMPILED

settings.register_profile("untimed", deadline=None)
"""How long an example takes says how busy the machine is."""
settings.load_profile("untimed")

PLAIN = pytest.mark.skip(reason="it replaces code of Merganser's, which compiled code does not look up")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that put something in the place of ours, such as bugs, where ours is compiled."""
    if IS_COMPILED:
        for item in items:
            if item.get_closest_marker("plain") or "monkeypatch" in getattr(item, "fixturenames", ()):
                item.add_marker(PLAIN)


def pytest_configure() -> None:
    """Look for cycles less often."""
    gc.set_threshold(YOUNG_OBJECTS_MAX, *OLDER_LOOKS)


def pytest_collection_finish() -> None:
    """Look no more through what importing and collecting made, some hundred thousand objects."""
    gc.collect()
    gc.freeze()
