"""Which build of Merganser this is: pure Python, or with the modules of the request path compiled (ADR 0014)."""

from __future__ import annotations

from typing import Final

IS_COMPILED: Final = not __file__.endswith(".py")
"""This module is among those that are."""
BUILD: Final = "compiled" if IS_COMPILED else "pure Python"
"""For people."""
