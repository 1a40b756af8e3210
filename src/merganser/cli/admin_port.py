"""Ask the admin port of a node, and print what it said for scripts."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console

from merganser.model.errors import ConfigurationError

TIMEOUT_S = 3.0


class NodeAwayError(ConfigurationError):
    """Nobody answers there, or not like a node."""


class BusyError(ConfigurationError):
    """The node does not do it now, and may do it later."""


def fetch(address: str, path: str) -> dict[str, Any]:
    """Return what a node says on one of its pages.

    Raises:
        ConfigurationError: nobody answers there, or not with that.
    """
    status, body = _ask(address, "GET", path, TIMEOUT_S)
    if status != 200 and "error" in body:
        raise ConfigurationError(f"the node at {address} says: {body['error']}")
    if status != 200:
        raise ConfigurationError(f"the node at {address} is not ready: {body.get('state', body)}")
    return body


def post(address: str, path: str, *, header: str, timeout_s: float, content: bytes = b"") -> dict[str, Any]:
    """Have a node do something; return what came of it. ``header`` is what it wants to see.

    Raises:
        NodeAwayError: nobody answers there; it may be done all the same.
        ConfigurationError: it does not do it.
    """
    status, body = _ask(address, "POST", path, timeout_s, {header: "1"}, content)
    if status != 200:
        kind = BusyError if status == 503 else ConfigurationError
        raise kind(f"the node at {address} says: {body.get('error', body)}")
    return body


def post_for_bytes(address: str, path: str, *, header: str, timeout_s: float) -> bytes:
    """Return the bytes that a node answers with.

    Raises:
        as `post`.
    """
    status, body = _exchange(address, "POST", path, timeout_s, {header: "1"}, b"")
    if status != 200:
        raise ConfigurationError(f"the node at {address} says: {body.decode(errors='replace').strip()}")
    return body


def print_json(content: object) -> None:
    """Print for scripts."""
    Console(soft_wrap=True, highlight=False).print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _ask(
    address: str,
    method: str,
    path: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
) -> tuple[int, dict[str, Any]]:
    status, body = _exchange(address, method, path, timeout_s, headers or {}, content)
    try:
        return status, orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _away(address, error) from None


def _exchange(
    address: str, method: str, path: str, timeout_s: float, headers: Mapping[str, str], content: bytes
) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"--admin must be HOST:PORT, not {address!r}")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        connection.request(method, path, body=content or None, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _away(address, error) from None
    finally:
        connection.close()


def _away(address: str, error: Exception) -> NodeAwayError:
    return NodeAwayError(
        f"no Merganser node answers at {address} ({error}): give the admin port of a running node with --admin"
    )
