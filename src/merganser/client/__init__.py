"""The native Python client: speaks with the nodes as they do with one another, and knows the ring.

`Client` is for asyncio, `SyncClient` for everybody else; `errors` has what they raise, beside `merganser.model.errors`.
"""

from __future__ import annotations

from merganser.client.client import Client, ValueTable
from merganser.client.errors import ClosedError, SiblingsError
from merganser.client.sync import SyncClient, SyncValueTable
from merganser.client.values import Values

__all__ = ["Client", "ClosedError", "SiblingsError", "SyncClient", "SyncValueTable", "ValueTable", "Values"]
