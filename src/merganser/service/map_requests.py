"""What others ask of a member about the cluster map: for it, for a place in it, and for a vote on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from merganser.model.ids import NodeId
from merganser.model.messages import Accept, Adopt, FetchMap, Introduce, Introduced, Join, Prepare, Reply
from merganser.service.acceptor import Acceptor
from merganser.service.catalog import Catalog
from merganser.service.joining import admitted
from merganser.service.topology import Topology


class MapRequests:
    """Answers; see the module's docstring."""

    def __init__(self, topology: Topology, catalog: Catalog, acceptor: Acceptor) -> None:
        """Answer for the node of ``topology``."""
        self._topology = topology
        self._catalog = catalog
        self._acceptor = acceptor

    @property
    def handlers(self) -> Mapping[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]]:
        """Who answers what."""
        return {
            FetchMap: self._fetch_map,
            Introduce: self._introduce,
            Join: self._join,
            Adopt: self._adopt,
            Prepare: self._prepare,
            Accept: self._accept,
        }

    async def _fetch_map(self, _sender: NodeId, request: FetchMap) -> Reply:
        return self._catalog.news.answer(request)

    async def _introduce(self, _sender: NodeId, _request: Introduce) -> Reply:
        return Introduced(self._topology.me, self._topology.map)

    async def _join(self, _sender: NodeId, request: Join) -> Reply:
        return await admitted(self._topology, self._catalog, request)

    async def _adopt(self, _sender: NodeId, request: Adopt) -> Reply:
        return await self._catalog.news.adopt(request)

    async def _prepare(self, _sender: NodeId, request: Prepare) -> Reply:
        return await self._acceptor.prepare(request)

    async def _accept(self, _sender: NodeId, request: Accept) -> Reply:
        return await self._acceptor.accept(request)
