"""``merganser drain``: have a node leave what it does to others, and wait until it may be stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from merganser.cli.admin_port import fetch, post
from merganser.node.admin import HEADER

LOOK_S = 0.1
TIMEOUT_S = 10.0  # of one question


def drain(admin: str, *, timeout_s: float) -> bool:
    """Drain the node at ``admin``; tells whether it may be stopped without anybody noticing, within ``timeout_s``.

    Raises:
        ConfigurationError: nobody answers there, or it does not drain.
    """
    console = Console(highlight=False, soft_wrap=True)
    post(admin, "/drain", header=HEADER.decode(), timeout_s=TIMEOUT_S)
    give_up_at = time.monotonic() + timeout_s
    while True:
        status = fetch(admin, "/status")
        left = list(_left(status))
        if not left:
            console.print(f"node {status['number']} is drained: stop it, or have it serve again with merganser undrain")
            return True
        if time.monotonic() >= give_up_at:
            told = ", ".join(left)
            console.print(f"node {status['number']} still has {told} after {timeout_s:g} s; it goes on draining")
            return False
        time.sleep(LOOK_S)


def undrain(admin: str) -> None:
    """Have the node at ``admin`` serve as ever.

    Raises:
        ConfigurationError: nobody answers there.
    """
    post(admin, "/undrain", header=HEADER.decode(), timeout_s=TIMEOUT_S)
    Console(highlight=False, soft_wrap=True).print("it serves again")


def _left(status: dict[str, Any]) -> Iterator[str]:
    """Yield what the node still has in its hands, in words."""
    counts = {
        "partitions that it leads": status["leadership"]["groups_led"],
        "requests under way": status["load"]["requests_in_flight"] + status["load"]["requests_waiting"],
        "transactions under way": status["transactions"]["under_way"],
    }
    yield from (f"{count} {what}" for what, count in counts.items() if count)
