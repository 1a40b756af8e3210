"""What is damaged on this node's disk, as far as it was met: each wound once, and not without bound.

Whoever meets damage notes it here and goes on; `service.healing` works the list off, `service.scrubber` looks where
somebody could not read. What does not fit is counted, and met again by the next scrub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from merganser.core.healing import IN_FLIGHT_S
from merganser.model.ids import TableId
from merganser.storage import keys

WAITING_MAX = 10_000  # 2 MiB of keys; more at a time is no rot but a lost disk


class Wound(msgspec.Struct):
    """A damaged row, or a stretch of keys that the engine cannot read."""

    table: TableId
    start: bytes
    """The key of the row, or where the stretch begins."""
    end: bytes | None
    """Where the stretch ends; None: a row."""
    ripe_at: float
    """Loop time from which on it may be healed."""
    due_at: float
    """Loop time at which it is to be tried next."""
    tries: int = 0
    lost_since: float | None = None
    """Loop time since which another replica has refused, each time, to tell because it has lost rows."""
    problem: str = "found just now: what was under way with it may yet end"


class Damage:
    """The wounds of this node; see the module's docstring."""

    def __init__(
        self,
        *,
        in_flight_s: float = IN_FLIGHT_S,
        on_damage: Callable[[str], None] = lambda _what: None,
        is_ripe_at_once: Callable[[TableId], bool] = lambda _table: False,
    ) -> None:
        """Know of none.

        Args:
            in_flight_s: longer than any coordinator of the cluster waits for an answer.
            on_damage: told of each wound when it is met first.
            is_ripe_at_once: whether what is under way with a row does not matter (`service.settling`).
        """
        self._is_ripe_at_once = is_ripe_at_once
        self._in_flight_s = in_flight_s
        self._on_damage = on_damage
        self._loop = asyncio.get_running_loop()
        self._wounds: dict[bytes, Wound] = {}
        self._suspects: dict[TableId, tuple[bytes, bytes]] = {}
        self._suspected = asyncio.Event()
        self.news = asyncio.Event()
        """Set when a wound is met."""
        self.found = 0
        self.overlooked = 0
        """Wounds that were not taken in, because too many wait."""

    @property
    def wounds(self) -> Mapping[bytes, Wound]:
        """What is damaged, by where it starts, oldest first."""
        return self._wounds

    def met_row(self, table: TableId, key: bytes) -> None:
        """Take note that what is stored under ``key`` is damaged."""
        if key not in self._wounds:
            self._take(table, key, None)

    def met_stretch(self, table: TableId, start: bytes, end: bytes) -> None:
        """Take note that the engine cannot read from ``start`` up to ``end``, in one partition."""
        known = self._wounds.get(start)
        if known is None:
            self._take(table, start, end)
        elif known.end is not None and known.end < end:
            known.end = end

    def met_somewhere(self, table: TableId, start: bytes, end: bytes) -> None:
        """Take note that the engine could not read somewhere in a range, for the scrub to look there soon."""
        known_start, known_end = self._suspects.get(table, (start, end))
        self._suspects[table] = min(start, known_start), max(end, known_end)
        self._suspected.set()

    async def suspected(self) -> tuple[TableId, bytes, bytes]:
        """Wait for a range in which something cannot be read; it counts as looked at."""
        while not self._suspects:
            self._suspected.clear()
            await self._suspected.wait()
        table, (start, end) = self._suspects.popitem()
        return table, start, end

    def within(self, start: bytes, end: bytes) -> list[Wound]:
        """Return the wounds that begin in a range of keys."""
        return [wound for wound in self._wounds.values() if start <= wound.start < end]

    def forget(self, wound: Wound) -> None:
        """Take a wound from the list: it is healed."""
        self._wounds.pop(wound.start, None)

    def _take(self, table: TableId, start: bytes, end: bytes | None) -> None:
        if len(self._wounds) >= WAITING_MAX:
            self.overlooked += 1
            return
        ripe_at = self._loop.time() + (0.0 if self._is_ripe_at_once(table) else self._in_flight_s)
        self._wounds[start] = Wound(table, start, end, ripe_at, ripe_at)
        self.found += 1
        self.news.set()
        what = "row" if end is None else "stretch that cannot be read"
        self._on_damage(f"table {table}: damaged {what} at {start[: keys.TOKEN_END + 32].hex()}")
