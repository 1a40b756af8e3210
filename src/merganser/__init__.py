"""Merganser: a Dynamo-style distributed database that unmodified DynamoDB clients talk to.

It has a client of its own for key-value tables: `merganser.Client`, for asyncio, and `merganser.SyncClient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merganser.client import Client, SyncClient

__version__ = "0.1.0"
__all__ = ["Client", "SyncClient"]


def __getattr__(name: str) -> object:
    """Import the client when it is asked for: nodes and the command line do without."""
    if name in __all__:
        from merganser import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
