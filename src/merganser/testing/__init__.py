"""Tools for tests: a server to test against (`Server`, fixtures in `pytest_plugin`), and faults between processes.

`Server` is imported when it is asked for: pytest loads the plugin in every run, and most runs need no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merganser.testing.server import Server, ServerError

__all__ = ["Server", "ServerError"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from merganser.testing import server

    return getattr(server, name)
