"""What the parts of a client ask by: its session, its deadlines, and what it asks for where a request says nothing."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar, cast

from merganser.client.arguments import check_request, checked_seconds, checked_text
from merganser.client.errors import ClosedError
from merganser.client.session import Make, Session
from merganser.model.client_messages import ClientReply
from merganser.model.consistency import parse_value_levels
from merganser.model.errors import CorruptionError, RequestError
from merganser.model.shown import shown

TIMEOUT_S: Final = 5.0
TIMEOUT_S_MAX: Final = 60.0
CONSISTENCY: Final = "QUORUM"
PAGE_PATIENCE_S: Final = 1.0
"""A page of keys, or whatever else is asked of many nodes, may take that long on a busy node."""

Data = bytes | bytearray | str
T = TypeVar("T")


class Calls:
    """See the module's docstring; belongs to one client."""

    def __init__(self, *, timeout_s: float, consistency: str, name: str) -> None:
        """Ask for ``consistency``, within ``timeout_s``, as ``name``, once there is a session.

        Raises:
            RequestError: there is no such level, or a request cannot take that long.
        """
        self.session: Session | None = None
        self.consistency = checked_level(consistency)
        self.name = checked_text("name", name)
        self._timeout_s = _check_timeout(timeout_s)

    @property
    def opened(self) -> Session:
        """The session; raises a ClosedError if there is none."""
        if self.session is None:
            raise ClosedError("the client is not open: await open(), or use it in an async with statement")
        return self.session

    def deadline(self, timeout_s: float | None) -> float:
        """Return when a request that begins now is over, in loop time; raises a RequestError if it never can be."""
        patience_s = self._timeout_s if timeout_s is None else _check_timeout(timeout_s)
        return asyncio.get_running_loop().time() + patience_s

    async def read(
        self,
        table: str,
        key: bytes | None,
        make: Make,
        *,
        deadline: float,
        kind: type[T],
        patience_s: float | None = None,
    ) -> T:
        """Ask what changes nothing; see `Session.read`."""
        check_request(make(1))
        reply = await self.opened.read(table, key, make, deadline=deadline, patience_s=patience_s)
        return _checked_reply(reply, kind)

    async def write(
        self,
        table: str,
        key: bytes | None,
        make: Make,
        *,
        deadline: float,
        kind: type[T],
        is_repeatable: bool = False,
    ) -> T:
        """Ask what changes something; see `Session.write`."""
        check_request(make(1))
        reply = await self.opened.write(table, key, make, deadline=deadline, is_repeatable=is_repeatable)
        return _checked_reply(reply, kind)


def checked_level(consistency: str) -> str:
    """Return ``consistency``; raises a RequestError if there is no such level."""
    try:
        parse_value_levels(checked_text("consistency", consistency))
    except ValueError as error:
        raise RequestError(f"consistency {consistency!r:.80}: {error}") from None
    return consistency


def level_or(usual: str, consistency: str | None) -> str:
    """Return the level of a request, the ``usual`` one if it names none; raises a RequestError if it is no text."""
    return usual if consistency is None else checked_text("consistency", consistency)


def for_reads(consistency: str | None) -> str | None:
    """Return the level of the read before a write: ANY and numbers for writes alone say nothing of it."""
    if consistency is None:
        return None
    checked_text("consistency", consistency)
    levels = parse_value_levels(consistency).levels
    return consistency if levels.read is not None and consistency.strip().upper() != "ANY" else None


def _checked_reply(reply: ClientReply, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise CorruptionError(f"a node answered with a {type(reply).__name__} where a {kind.__name__} was due")
    return cast("T", reply)


def _check_timeout(timeout_s: float) -> float:
    if not 0 < checked_seconds("timeout_s", timeout_s) <= TIMEOUT_S_MAX:
        raise RequestError(f"timeout_s must be above 0, and {TIMEOUT_S_MAX:g} at most, not {shown(timeout_s)}")
    return timeout_s
