"""What this node does for native clients (`merganser.client`): `model.client_messages`, over the services of a member.

A client asks a replica of its key, which then coordinates as any node does for anybody: the way from the client over a
node that is no replica is saved, nothing else is different. So whatever a client knows of the ring, and however old it
is, it is answered.

Clients pass the same gate as those of the other front doors (`service.admission`).

Source: DeCandia 2007 §6.4 (client-driven coordination).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, NamedTuple

import msgspec

from merganser.core import levels, operation_checks, policies, snapshots
from merganser.core.reshaping import Plan
from merganser.model.client_messages import (
    AskKeys,
    AskSession,
    AskTagged,
    ChangePolicy,
    ClientGet,
    ClientGetCrdt,
    ClientPut,
    ClientUpdate,
    CrdtIs,
    DropTable,
    FetchRing,
    FindTable,
    KeysAre,
    MakeTable,
    PutIs,
    SessionIs,
    TableIs,
    TaggedKeysAre,
    UpdateIs,
    ValueIs,
    ValuesAre,
)
from merganser.model.cluster import KEY_VALUE_WIRE, ClusterMap, Table
from merganser.model.contents import Condition, Content
from merganser.model.errors import RequestError
from merganser.model.ids import NodeId
from merganser.model.messages import MapIs, Reply
from merganser.model.policy import Policy
from merganser.service.admission import Requests
from merganser.service.catalog import Catalog
from merganser.service.coordinator import Coordinator
from merganser.service.crdt_values import CrdtValues
from merganser.service.key_lists import KeyLists
from merganser.service.key_values import KeyValues
from merganser.service.tag_queries import TagQueries
from merganser.service.topology import Topology
from merganser.service.value_rules import (
    REPLICAS_MAX,
    TABLE_CHARACTERS_MAX,
    TTL_S_MAX,
    check_table_name,
    row_key,
)

TIMEOUT_S_MAX: Final = 60.0
"""Nobody waits longer; a client that says so is told before."""


class ValueServices(NamedTuple):
    """What a member does with tables of keys and values."""

    key_values: KeyValues
    crdt_values: CrdtValues
    tag_queries: TagQueries
    key_lists: KeyLists


class ClientRequests:
    """This node's side of its native clients; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        catalog: Catalog,
        coordinator: Coordinator,
        values: ValueServices,
        *,
        places: Requests,
        alive: Callable[[], Collection[NodeId]],
    ) -> None:
        """Serve clients that have a place in ``places``; ``alive`` are the members that answer this node."""
        self._topology = topology
        self._catalog = catalog
        self._coordinator = coordinator
        self._key_values, self._crdt_values, self._tag_queries, self._key_lists = values
        self._places = places
        self._alive = alive
        self._loop = asyncio.get_running_loop()
        self._ring: MapIs | None = None
        self.handlers: dict[type, Callable[[NodeId, Any], Coroutine[Any, Any, Reply]]] = {
            FetchRing: self.fetch_ring,
            ClientGet: self.get,
            ClientPut: self.put,
            AskKeys: self.keys,
            AskTagged: self.find,
            ClientGetCrdt: self.get_crdt,
            ClientUpdate: self.update,
            AskSession: self.open_session,
            MakeTable: self.make_table,
            DropTable: self.drop_table,
            FindTable: self.find_table,
            ChangePolicy: self.change_policy,
        }

    async def fetch_ring(self, _sender: NodeId, request: FetchRing) -> Reply:
        """Tell what a client needs to know of the newest map known here, if that is news."""
        epoch = self._topology.map.epoch
        if request.known_epoch >= epoch:
            return MapIs(epoch, None)
        if self._ring is None or self._ring.epoch != epoch:
            self._ring = MapIs(epoch, for_clients(self._topology.map))
        return self._ring

    async def get(self, _sender: NodeId, request: ClientGet) -> Reply:
        """Read the values of a key.

        Raises:
            as `KeyValues.get`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            _, level = levels.asked_for(request.level, table)
            found = await self._key_values.get(table, row_key(table, request.key), level=level, deadline=deadline)
        values = tuple(
            [
                ValueIs(
                    sibling.value,
                    sibling.dot.micros,
                    sibling.dot.number,
                    sibling.expires_at_s,
                    sibling.content_type,
                    sibling.metadata,
                    sibling.tags,
                    sibling.client,
                )
                for sibling in found.siblings
            ]
        )
        return ValuesAre(values, found.context, self._topology.map.epoch)

    async def put(self, _sender: NodeId, request: ClientPut) -> Reply:
        """Put a value, or delete what was seen.

        Raises:
            as `KeyValues.put`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            key = row_key(table, request.key)
            level, to_read = levels.asked_for(request.level, table)
            read_level = levels.before_writing(to_read)
            only_if = _condition(request.only_if)
            if request.value is None:
                context = await self._key_values.delete(
                    table,
                    key,
                    context=request.context,
                    only_if=only_if,
                    read_level=read_level,
                    level=level,
                    deadline=deadline,
                )
            else:
                context = await self._key_values.put(
                    table,
                    key,
                    Content(request.value, request.content_type, request.metadata, request.tags, request.client),
                    context=request.context,
                    expires_at_s=self._expiry(request.ttl_s),
                    only_if=only_if,
                    read_level=read_level,
                    level=level,
                    deadline=deadline,
                )
        return PutIs(context, self._topology.map.epoch)

    async def keys(self, _sender: NodeId, request: AskKeys) -> Reply:
        """Tell a page of the keys that can be read.

        Raises:
            as `KeyLists.page`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            page = await self._key_lists.page(
                table,
                resume=request.start,
                prefix=request.prefix,
                most=request.limit,
                level=levels.asked_for(request.level, table)[1],
                deadline=deadline,
            )
        return KeysAre(tuple(page.keys), page.resume, self._topology.map.epoch)

    async def find(self, _sender: NodeId, request: AskTagged) -> Reply:
        """Tell a page of the keys whose values have a tag.

        Raises:
            as `TagQueries.find`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            page = await self._tag_queries.find(
                table,
                request.tag,
                low=request.low,
                high=request.high,
                is_integer=request.is_integer,
                resume=request.resume,
                most=request.limit,
                level=levels.asked_for(request.level, table)[1],
                deadline=deadline,
            )
        return TaggedKeysAre(tuple(page.found), page.resume, self._topology.map.epoch)

    async def get_crdt(self, _sender: NodeId, request: ClientGetCrdt) -> Reply:
        """Read a key of values that merge themselves.

        Raises:
            as `CrdtValues.get`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            _, level = levels.asked_for(request.level, table)
            found = await self._crdt_values.get(table, row_key(table, request.key), level=level, deadline=deadline)
        return CrdtIs(tuple(found.values), found.context, self._topology.map.epoch)

    async def update(self, _sender: NodeId, request: ClientUpdate) -> Reply:
        """Make operations of a key, all or none.

        Raises:
            as `CrdtValues.update`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            level, read_level = levels.asked_for(request.level, table)
            has_changed = await self._crdt_values.update(
                table,
                row_key(table, request.key),
                request.operations,
                update=request.update,
                context=request.context,
                level=level,
                read_level=levels.before_writing(read_level),
                deadline=deadline,
            )
        return UpdateIs(has_changed, self._topology.map.epoch)

    async def open_session(self, _sender: NodeId, request: AskSession) -> Reply:
        """Open a session to number updates under.

        Raises:
            as `CrdtValues.open_session`; OverloadedError.
        """
        async with self._places:
            deadline = self._deadline(request.timeout_ms)
            table = await self._table(request.table, deadline)
            session = await self._crdt_values.open_session(table, b"", life_s=request.life_s, deadline=deadline)
        return SessionIs(session, self._topology.map.epoch)

    async def make_table(self, _sender: NodeId, request: MakeTable) -> Reply:
        """Make a key-value table.

        Raises:
            as `Catalog.create_table`; RequestError also for a name or a number that cannot be.
        """
        check_table_name(request.name)
        if not 1 <= request.n <= REPLICAS_MAX:
            raise RequestError(f"n must be 1 to {REPLICAS_MAX}, not {request.n}")
        if not 1 <= len(request.unique_id) <= TABLE_CHARACTERS_MAX:
            raise RequestError("a request for a table needs an id of its own")
        made = await self._catalog.create_table(
            wire=KEY_VALUE_WIRE,
            name=request.name,
            policy=_policy(request),
            definition=b"",
            unique_id=request.unique_id,
            conflicts=request.conflicts,
            deadline=self._deadline(request.timeout_ms),
        )
        return self._told(made)

    async def drop_table(self, _sender: NodeId, request: DropTable) -> Reply:
        """Drop a key-value table.

        Raises:
            as `Catalog.drop_table`.
        """
        deadline = self._deadline(request.timeout_ms)
        table = await self._table(request.name, deadline)
        await self._catalog.drop_table(table, deadline=deadline)
        return self._told(table)

    async def find_table(self, _sender: NodeId, request: FindTable) -> Reply:
        """Tell of a key-value table.

        Raises:
            as `Catalog.table`.
        """
        return self._told(await self._table(request.name, self._deadline(request.timeout_ms)))

    async def change_policy(self, _sender: NodeId, request: ChangePolicy) -> Reply:
        """Begin to have a key-value table be elsewhere; its answer tells where it will be.

        Raises:
            RequestError: it cannot be there, or something speaks against it; nothing was changed.
            and as `Catalog.change_policy`.
        """
        deadline = self._deadline(request.timeout_ms)
        table = await self._table(request.name, deadline)
        parts = {"replicas": request.replicas, "data_centers": request.data_centers, "zones": request.zones}
        try:
            policy = policies.rewritten(self._topology.map.policy_of(table), **parts)
        except ValueError as error:
            raise RequestError(str(error)) from None

        def check(newest: ClusterMap, plan: Plan) -> None:
            objections = operation_checks.judged(newest, plan, self._alive()).objections
            if objections and not request.is_forced:
                raise RequestError("; ".join(objections))

        if policy != self._catalog.policy_to_be(table):
            table = await self._catalog.change_policy(
                table,
                policy,
                definition=table.definition,
                now_us=self._coordinator.wall_us(),
                deadline=deadline,
                check=check,
            )
        return TableIs(
            table.name,
            policy.n,
            table.conflicts,
            self._topology.map.epoch,
            str(policy) if policy.is_bound else "",
        )

    async def _table(self, name: str, deadline: float) -> Table:
        known = self._catalog.known(KEY_VALUE_WIRE, name)
        if known is not None:
            return known
        check_table_name(name)
        return await self._catalog.table(KEY_VALUE_WIRE, name, deadline=deadline)

    def _told(self, table: Table) -> TableIs:
        policy = self._topology.map.policy_of(table)
        where = str(policy) if policy.is_bound else ""
        return TableIs(table.name, table.n, table.conflicts, self._topology.map.epoch, where)

    def _deadline(self, timeout_ms: int) -> float:
        if not 0 < timeout_ms <= TIMEOUT_S_MAX * 1000:
            raise RequestError(f"a request may take 1 ms to {TIMEOUT_S_MAX:g} s, not {timeout_ms} ms")
        return self._loop.time() + timeout_ms / 1000

    def _expiry(self, ttl_s: int | None) -> int | None:
        if ttl_s is None:
            return None
        if not 1 <= ttl_s <= TTL_S_MAX:
            raise RequestError(f"ttl_s must be 1 to {TTL_S_MAX}, not {ttl_s}")
        return self._coordinator.wall_us() // 1_000_000 + ttl_s


def for_clients(current: ClusterMap) -> ClusterMap:
    """Return what clients need of ``current``: who owns what, now and next, and the tables that they see."""
    tables = tuple(table for table in current.tables if table.wire == KEY_VALUE_WIRE and not snapshots.is_hidden(table))
    return msgspec.structs.replace(current, tables=tables, settling=(), operation=None, dropped=())


def _policy(request: MakeTable) -> Policy:
    try:
        return policies.parsed(
            n=request.n, replicas=request.replicas, data_centers=request.data_centers, zones=request.zones
        )
    except ValueError as error:
        raise RequestError(str(error)) from None


def _condition(text: str) -> Condition | None:
    if not text:
        return None
    try:
        return Condition(text)
    except ValueError:
        raise RequestError(f"only_if is {' or '.join(one.value for one in Condition)}, not {text!r:.80}") from None
