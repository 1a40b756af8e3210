"""Ask the admin port of a node, and print what it said for scripts."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console

from merganser.model.errors import ConfigurationError

TIMEOUT_S = 3.0


def fetch(address: str, path: str) -> dict[str, Any]:
    """Return what a node says on one of its pages.

    Raises:
        ConfigurationError: nobody answers there, or not with that.
    """
    status, body = _ask(address, "GET", path, TIMEOUT_S)
    if status != 200:
        raise ConfigurationError(f"the node at {address} is not ready: {body}")
    return body


def post(address: str, path: str, *, header: str, timeout_s: float) -> dict[str, Any]:
    """Have a node do something; return what came of it. ``header`` is what it wants to see.

    Raises:
        ConfigurationError: nobody answers there, or it does not do it.
    """
    status, body = _ask(address, "POST", path, timeout_s, {header: "1"})
    if status != 200:
        raise ConfigurationError(f"the node at {address} says: {body.get('error', body)}")
    return body


def print_json(content: object) -> None:
    """Print for scripts."""
    Console(soft_wrap=True, highlight=False).print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _ask(
    address: str, method: str, path: str, timeout_s: float, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"--admin must be HOST:PORT, not {address!r}")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        raise ConfigurationError(
            f"no Merganser node answers at {address} ({error}): give the admin port of a running node with --admin"
        ) from None
    finally:
        connection.close()
