"""All that a member does with tables of keys and values: put together, and what it answers to peers and clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

from merganser.model.ids import NodeId
from merganser.model.messages import Reply
from merganser.model.value_messages import FindTagged, ListRange, Mint, PutValue
from merganser.service.admission import Requests
from merganser.service.asking import Asker
from merganser.service.catalog import Catalog
from merganser.service.client_requests import ClientRequests, ValueServices
from merganser.service.coordinator import Coordinator
from merganser.service.crdt_values import CrdtValues
from merganser.service.key_lists import KeyLists
from merganser.service.key_values import KeyValues
from merganser.service.replica import Replica
from merganser.service.tag_index import TagIndex
from merganser.service.tag_queries import TagQueries
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology


class ValueTables:
    """The services of one member for such tables."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        catalog: Catalog,
        coordinator: Coordinator,
        replica: Replica,
        timestamps: Timestamps,
        tags: TagIndex,
        *,
        ahead_us_max: int,
        places: Requests,
        rng: random.Random,
    ) -> None:
        """Work through the services of this node.

        Args:
            topology: who holds what.
            asker: asks other nodes.
            catalog: of the tables.
            coordinator: reads and writes.
            replica: what this node holds.
            timestamps: where dots come from.
            tags: of what this node holds.
            ahead_us_max: how far a context may be ahead of this node's clock.
            places: that native clients take while they are served.
            rng: draws the names of requests.
        """
        self.key_values = KeyValues(
            topology, asker, coordinator, replica, timestamps, ahead_us_max=ahead_us_max, rng=rng
        )
        self.crdt_values = CrdtValues(topology, coordinator, self.key_values)
        self.tag_queries = TagQueries(topology, asker, coordinator, replica, tags, catch_up=catalog.news.catch_up)
        self.key_lists = KeyLists(topology, coordinator, replica)
        services = ValueServices(self.key_values, self.crdt_values, self.tag_queries, self.key_lists)

        def alive() -> list[NodeId]:
            there = [node.id for node in topology.map.nodes]
            return [node for node in there if asker.is_reachable(node) and node not in asker.doubted]

        self.client_requests = ClientRequests(topology, catalog, coordinator, services, places=places, alive=alive)
        self.handlers: dict[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]] = {
            Mint: self.key_values.mint,
            FindTagged: self.tag_queries.answer,
            PutValue: self.key_values.conditional_puts.answer,
            ListRange: self.key_lists.answer,
            **self.client_requests.handlers,
        }
