"""What a member does with what it is asked: by peers, and by itself.

    asked --a place, and a disk that is well enough?--> at once | begun, without a task | served, in one

Each kind of message has one who answers it; those that can be answered without waiting have a quicker way besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId
from merganser.model.messages import Read, Reply, Request
from merganser.service.admission import Admission
from merganser.service.wholeness import Wholeness


class Serving:
    """A member as those see it who ask; see the module's docstring."""

    admission: Admission
    wholeness: Wholeness
    _at_once: dict[type, Callable[[NodeId, Any], Reply | None]]
    _beginners: dict[type, Callable[[NodeId, Any], asyncio.Future[Reply] | Reply | None]]
    _serve: dict[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]]

    def serve_at_once(self, sender: NodeId, request: Request) -> Reply | None:
        """Answer a peer, or this node itself, as `serve` does, if that takes no waiting; None if it does, or fails."""
        answer = self._at_once.get(type(request))
        if answer is None or self.wholeness.is_refusing or not self.admission.passes(request):
            return None
        try:
            return answer(sender, request)
        except MerganserError:
            return None

    def begin(self, sender: NodeId, request: Request) -> asyncio.Future[Reply] | Reply | None:
        """Answer a peer, or this node itself, without a task, as far as that goes: a `net.transport.Beginner`.

        Raises:
            as `serve`.
        """
        kind = type(request)
        if kind is Read:
            return self.serve_at_once(sender, request)
        begin = self._beginners.get(kind)
        if begin is None or self.wholeness.is_refusing:
            return None
        admission = self.admission
        began = admission.begin(request)
        try:
            begun = begin(sender, request)
        except BaseException:
            admission.end(request, began)
            raise
        if isinstance(begun, asyncio.Future):
            begun.add_done_callback(partial(self._ended, request, began))
        else:
            admission.end(request, began)
        return begun

    def _ended(self, request: Request, began: float, _answer: asyncio.Future[Reply]) -> None:
        self.admission.end(request, began)

    async def answer(self, sender: NodeId, request: Request) -> Reply:
        """Answer as whoever has asked `begin` and then, if that leaves it undone, `serve`."""
        begun = self.begin(sender, request)
        if begun is None:
            return await self.serve(sender, request)
        return await begun if isinstance(begun, asyncio.Future) else begun

    async def serve(self, sender: NodeId, request: Request) -> Reply:
        """Answer a peer, or this node itself.

        Raises:
            OverloadedError: there is no place for it; nothing was done.
            RefusedError: the disk is not well enough for it; nothing was done.
            MerganserError: as the service that is asked.
        """
        if self.wholeness.is_refusing:
            self.wholeness.check(request)
        began = self.admission.begin(request)
        try:
            return await self._serve[type(request)](sender, request)
        finally:
            self.admission.end(request, began)

    def _check_disk(self, request: Request) -> None:
        if self.wholeness.is_refusing:
            self.wholeness.check(request)
