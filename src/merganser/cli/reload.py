"""``merganser reload``: have nodes read their settings again."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from merganser.cli.admin_port import fetch, post, print_json
from merganser.model.errors import ConfigurationError
from merganser.node.admin import HEADER

TIMEOUT_S = 10.0

Changes = list[dict[str, str]]


def reload(admin: str, *, is_for_all: bool, is_dry_run: bool, as_json: bool) -> None:
    """Have the node at ``admin``, or all of its cluster, go by its settings as they are by now; print what has changed.

    Every node is asked first whether it can, so that all do, or none.

    Raises:
        ConfigurationError: one does not answer, or cannot, and why; no node has changed anything.
    """
    addresses = _addresses(admin) if is_for_all else [admin]
    changes = {address: _asked(address, is_dry_run=True) for address in addresses}
    if not is_dry_run:
        changes = {address: _asked(address, is_dry_run=False) for address in addresses}
    if as_json:
        print_json(changes)
        return
    console = Console(highlight=False, soft_wrap=True)
    for address, some in changes.items():
        if not some:
            console.print(f"{address}: nothing has changed", markup=False)
        for change in some:
            told = f"{address}: {change['name']} was {change['before']}, and is {change['after']}"
            if is_dry_run:
                told += " in the settings; the node goes on as before"
            console.print(told, markup=False)


def _addresses(admin: str) -> list[str]:
    return [_admin_of(node) for node in fetch(admin, "/ring")["nodes"]]


def _admin_of(node: dict[str, Any]) -> str:
    address = node["addresses"].get("admin")
    if not address:
        raise ConfigurationError(f"node {node['number']} has told no admin address: it has yet to start")
    return str(address)


def _asked(address: str, *, is_dry_run: bool) -> Changes:
    path = "/reload?dry_run=1" if is_dry_run else "/reload"
    changed: Changes = post(address, path, header=HEADER.decode(), timeout_s=TIMEOUT_S)["changed"]
    return changed
