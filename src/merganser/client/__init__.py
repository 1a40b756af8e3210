"""The native Python client: speaks with the nodes as they do with one another, and knows the ring.

`Client` is for asyncio, `SyncClient` for everybody else; `errors` has what they raise, beside `merganser.model.errors`.
"""

from __future__ import annotations

from merganser.client.client import Client
from merganser.client.crdts import Crdt
from merganser.client.errors import ClosedError, SiblingsError, WrongTypeError
from merganser.client.sync import SyncClient, SyncCrdt, SyncValueTable
from merganser.client.tables import ValueTable
from merganser.client.values import Values
from merganser.model.crdt import Operation

__all__ = [
    "Client",
    "ClosedError",
    "Crdt",
    "Operation",
    "SiblingsError",
    "SyncClient",
    "SyncCrdt",
    "SyncValueTable",
    "ValueTable",
    "Values",
    "WrongTypeError",
]
