"""What stands still on a node while the checkpoints of a snapshot are taken, for a fraction of a second.

Checkpoints of several nodes are not taken at one instant, and the merge of them must still hold all that was
acknowledged before the first. Writes only add to it. Three things take away, and so wait:

- *the removal of tombstones* of registers: one that is gone from a later checkpoint no longer buries what an earlier
  one, of a replica that learned of it in between, still holds (purged rows are told by the horizon, which is in the
  checkpoint as well);
- *the end of hints*: one that was delivered in between is in neither checkpoint;
- *the commit and the end of transactions* (Commit, Apply, Finish and Forget): the items of one must not be found in
  part as they were before, in part locked or applied; nor an item with an intent whose record, already forgotten, no
  longer says that it counts.

It ends by itself, so that a command that dies holds up nobody. It is kept in memory: a node that restarts has none,
and takes no checkpoint that belongs to it.

Source: docs/internals/snapshots.md.
"""

from __future__ import annotations

import asyncio
from typing import Final

from merganser.model.errors import RequestError, UnavailableError

_LOOK_S: Final = 0.02
LONGEST_S: Final = 30.0
"""Longer than any node takes for a checkpoint after a flush; transactions wait so long at worst."""


class Standstill:
    """Whether it is on, on this node; see the module's docstring."""

    def __init__(self) -> None:
        """Begin without one."""
        self._loop = asyncio.get_running_loop()
        self._until: dict[str, float] = {}

    def begin(self, token: str, seconds: float) -> None:
        """Let it be on for ``seconds``, or until `end` with the same ``token``; several may overlap.

        Raises:
            RequestError: that is too long.
        """
        if not 0 < seconds <= LONGEST_S:
            raise RequestError(f"a standstill lasts 0 to {LONGEST_S:.0f} s, not {seconds:.0f}")
        self._until[token] = self._loop.time() + seconds

    def end(self, token: str) -> None:
        """Go on, unless another one is on."""
        self._until.pop(token, None)

    @property
    def is_on(self) -> bool:
        """Tell whether nothing may be removed, and no transaction committed or ended."""
        if not self._until:
            return False
        now = self._loop.time()
        self._until = {token: until for token, until in self._until.items() if until > now}
        return bool(self._until)

    def is_of(self, token: str) -> bool:
        """Tell whether the one that was begun with ``token`` is still on."""
        return self._until.get(token, 0.0) > self._loop.time()

    def check(self) -> None:
        """Raise while it is on.

        Raises:
            UnavailableError: it is; nothing was done, and it may be tried again soon.
        """
        if self.is_on:
            raise UnavailableError("a snapshot is being taken just now, try again")

    async def over(self) -> None:
        """Return when none is on."""
        while self.is_on:  # noqa: ASYNC110 - it ends by the clock, and may be prolonged
            await asyncio.sleep(_LOOK_S)
