"""The native client, for asyncio: `Client` is a cluster, `ValueTable` a key-value table of it.

::

    async with Client("127.0.0.1:7700") as client:
        carts = client.table("carts", merge=union)
        await carts.put("ann", b"milk")

One connection to each node that is asked, with as many requests on it as there are at once: frames of one turn of the
loop leave in one write, and answers come back as they are ready, so a second connection would carry nothing more. The
connections are opened with the first request, and again when they break.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeVar, cast

from merganser.client.errors import ClosedError
from merganser.client.session import Coordinated, Make, Session
from merganser.client.values import Change, Merge, Values, as_bytes, merged, values_of
from merganser.model.client_messages import (
    AskKeys,
    ClientGet,
    ClientPut,
    ClientReply,
    DropTable,
    FindTable,
    KeysAre,
    MakeTable,
    PutIs,
    TableIs,
    ValuesAre,
)
from merganser.model.cluster import Conflicts
from merganser.model.consistency import parse_levels
from merganser.model.contents import Tag
from merganser.model.errors import ConfigurationError, CorruptionError, RequestError, TableExistsError
from merganser.model.ids import NodeId
from merganser.model.versions import CLIENTS_SINCE, NEWEST, Versions
from merganser.net.frames import FRAME_BYTES_MAX
from merganser.net.handshake import Identity
from merganser.net.links import Links
from merganser.net.sockets import split_address

DEFAULT_SEED: Final = "127.0.0.1:7700"
TIMEOUT_S: Final = 5.0
TIMEOUT_S_MAX: Final = 60.0
CONSISTENCY: Final = "QUORUM"
PAGE_KEYS: Final = 500
PAGE_PATIENCE_S: Final = 1.0  # a page of keys may take that long on a busy node

Data = bytes | bytearray | str
OnlyIf = Literal["not_modified", "none_match"]
T = TypeVar("T")


class Client:
    """A cluster, as its clients see it; an asynchronous context manager. It belongs to one event loop."""

    def __init__(
        self,
        seeds: str | Sequence[str] = DEFAULT_SEED,
        *,
        timeout_s: float = TIMEOUT_S,
        consistency: str = CONSISTENCY,
        merge: Merge | None = None,
        name: str = "",
        tls: ssl.SSLContext | None = None,
        coordinated: Coordinated = "replica",
        session: Session | None = None,
    ) -> None:
        """Prepare a client; nothing is opened before `open`, or ``async with``.

        Args:
            seeds: host:port of the *peer* ports of some nodes, one of which must be up when the client is opened; in
                one text, with commas, or a list. The client finds the other nodes by itself.
            timeout_s: what a request may take, if it does not say so itself.
            consistency: of requests that name none: a name or numbers (``w=2,r=2``), as for `merganser put`.
            merge: makes one of several values of a key, for tables that have no merge function of their own.
            name: kept with each value that this client puts, for those who look at siblings; empty: nothing is.
            tls: for connections to nodes that expect it.
            coordinated: by a replica of the key, which is nearer; or by any node, to compare.
            session: over another transport than TCP; for the simulator.

        Raises:
            RequestError: a seed, a time or a level that cannot be.
        """
        listed = [seed.strip() for seed in seeds.split(",")] if isinstance(seeds, str) else list(seeds)
        if not listed:
            raise RequestError("name at least one node to begin with, as host:port of its peer port")
        for seed in listed:
            _checked(split_address, seed)
        self._seeds = listed
        self._timeout_s = _check_timeout(timeout_s)
        self._consistency = _checked_level(consistency)
        self._merge = merge
        self.name = name
        self._tls = tls
        self._coordinated = coordinated
        self._links: Links | None = None
        self._unopened = session
        self._session: Session | None = None

    async def open(self) -> Self:
        """Find the cluster.

        Raises:
            UnavailableError: none of the seeds answered in time.
        """
        if self._session is not None:
            return self
        session = self._unopened or self._over_tcp()
        try:
            await session.open(self._deadline(None))
        except BaseException:
            if self._unopened is None:
                await session.close()
                await self._close_links()
            raise
        self._session = session
        return self

    async def close(self) -> None:
        """Fail what is under way, and close all connections; nothing is left running."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._close_links()

    async def __aenter__(self) -> Self:
        """Open."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def table(self, name: str, *, merge: Merge | None = None, consistency: str | None = None) -> ValueTable:
        """Return a key-value table to work with; whether there is one shows with the first request.

        Args:
            name: of the table.
            merge: makes one of several values of a key; None: that of the client, if it has one.
            consistency: of requests that name none; None: that of the client.
        """
        level = self._consistency if consistency is None else _checked_level(consistency)
        return ValueTable(self, name, merge or self._merge, level)

    async def create_table(
        self,
        name: str,
        *,
        n: int = 3,
        conflicts: Conflicts = "siblings",
        if_absent: bool = False,
        timeout_s: float | None = None,
        merge: Merge | None = None,
    ) -> ValueTable:
        """Make a key-value table.

        Args:
            name: of the table.
            n: replicas of each key.
            conflicts: what becomes of writes that did not know of one another; for the table's whole life.
            if_absent: a table of that name will do, whoever made it.
            timeout_s: what it may take.
            merge: as for `table`.

        Raises:
            TableExistsError: there is one of that name; with ``if_absent``, one that keeps conflicts otherwise.
            RequestError: no table can be so.
            UnavailableError: most of the nodes that keep the cluster map are away; nothing was made.
            UnknownOutcomeError: it may be made, now or later.
        """
        unique_id = uuid.uuid4().hex
        try:
            await self.write(
                name,
                None,
                lambda within_ms: MakeTable(name, n, conflicts, unique_id, within_ms),
                timeout_s=timeout_s,
                kind=TableIs,
            )
        except TableExistsError:
            if not if_absent:
                raise
            there = await self.read(
                name, None, lambda within_ms: FindTable(name, within_ms), timeout_s=timeout_s, kind=TableIs
            )
            if there.conflicts != conflicts:
                raise TableExistsError(f"table {name} exists, and its conflicts are {there.conflicts}") from None
        return self.table(name, merge=merge)

    async def drop_table(self, name: str, *, timeout_s: float | None = None) -> None:
        """Drop a key-value table, and all it holds.

        Raises:
            TableNotFoundError: there is none; it may have been dropped by an earlier attempt of this very call.
            and as `create_table`.
        """
        await self.write(name, None, lambda within_ms: DropTable(name, within_ms), timeout_s=timeout_s, kind=TableIs)

    async def tables(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the names of all key-value tables, as the node knows them that answers."""
        session, deadline = self._opened, self._deadline(timeout_s)
        await session.refresh(deadline)
        current = session.routes.map
        return [] if current is None else sorted(table.name for table in current.tables)

    @property
    def epoch(self) -> int:
        """Of the cluster map that this client knows."""
        return self._opened.routes.epoch

    @property
    def hedges(self) -> int:
        """How many reads were sent to a second node because the first was slow."""
        return self._opened.hedges

    def replicas(self, table: str, key: Data) -> Sequence[NodeId]:
        """Return who holds ``key`` as far as this client knows."""
        return self._opened.routes.replicas(table, as_bytes(key, "key"))

    # For `ValueTable`.

    async def read(
        self,
        table: str,
        key: bytes | None,
        make: Make,
        *,
        timeout_s: float | None,
        kind: type[T],
        patience_s: float | None = None,
    ) -> T:
        """Ask what changes nothing; see `Session.read`."""
        deadline = self._deadline(timeout_s)
        reply = await self._opened.read(table, key, make, deadline=deadline, patience_s=patience_s)
        return _checked_reply(reply, kind)

    async def write(self, table: str, key: bytes | None, make: Make, *, timeout_s: float | None, kind: type[T]) -> T:
        """Ask what changes something; see `Session.write`."""
        reply = await self._opened.write(table, key, make, deadline=self._deadline(timeout_s))
        return _checked_reply(reply, kind)

    def _over_tcp(self) -> Session:
        rng = random.Random(random.SystemRandom().getrandbits(256))
        name = NodeId(f"{rng.getrandbits(64):016x}")
        identity = Identity(name, "", Versions(CLIENTS_SINCE, NEWEST), is_client=True)
        self._links = links = Links(identity, random=rng, tls=self._tls, is_eager=False)

        def belong(cluster_id: str) -> None:
            links.cluster_id = cluster_id

        return Session(self._seeds, links, rng=rng, on_cluster=belong, coordinated=self._coordinated)

    async def _close_links(self) -> None:
        links, self._links = self._links, None
        if links is not None:
            await links.close()

    @property
    def _opened(self) -> Session:
        if self._session is None:
            raise ClosedError("the client is not open: await open(), or use it in an async with statement")
        return self._session

    def _deadline(self, timeout_s: float | None) -> float:
        patience_s = self._timeout_s if timeout_s is None else _check_timeout(timeout_s)
        return asyncio.get_running_loop().time() + patience_s


class ValueTable:
    """A key-value table. Keys are 1 to 2,048 bytes, values 1 MiB at most; text stands for its UTF-8."""

    def __init__(self, client: Client, name: str, merge: Merge | None, consistency: str) -> None:
        """Be the table called ``name``; made by `Client.table`."""
        self.name = name
        self._client = client
        self._merge = merge
        self._consistency = consistency

    async def get(self, key: Data, *, consistency: str | None = None, timeout_s: float | None = None) -> Values:
        """Return the values of a key, and the context to replace them with.

        Several values stay as they are in the table until somebody puts what they come to: `put` without a context, and
        `update`, do that where there is a merge function.

        Raises:
            TableNotFoundError: there is no such table.
            UnavailableError: too few replicas could be asked in time.
            RequestError: there can be no such key, or no such consistency.
        """
        name, raw, level = self.name, as_bytes(key, "key"), consistency or self._consistency
        told = await self._client.read(
            name,
            raw,
            lambda within_ms: ClientGet(name, raw, level, within_ms),
            timeout_s=timeout_s,
            kind=ValuesAre,
        )
        return values_of(told, self._merge)

    async def put(
        self,
        key: Data,
        value: Data,
        *,
        context: bytes | None = None,
        ttl_s: int | None = None,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[tuple[str, int | bytes]] = (),
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Put a value in the place of what was seen; returns the context to put with next.

        Args:
            key: of the value.
            value: to be put.
            context: of an earlier answer for this key: the value replaces what that had seen, and nothing else. None:
                it replaces nothing, and stands beside what is there; but with a merge function what is there is read
                first, and replaced by what it and the value come to.
            ttl_s: after how many seconds it reads as absent.
            content_type: kept with it.
            metadata: kept with it.
            tags: kept with it, to find it by.
            only_if: "none_match": there is no value; "not_modified": nothing was written that the context has not seen.
                Best effort while replicas cannot hear one another (docs/internals/siblings.md).
            consistency: how many nodes must have it; None: that of the table.
            timeout_s: what it may take.

        Raises:
            PreconditionFailedError: what ``only_if`` says is not so; nothing was written.
            RequestError: it cannot be done as it is, for example because the value is too large; nothing was written.
            UnavailableError: too few replicas could be reached; nothing was written.
            UnknownOutcomeError: it may have been written, now or later. It is not sent again by itself, for that
                could leave two values where one was meant.
        """
        given = as_bytes(value, "value")
        if context is None and self._merge is not None and only_if is None:
            found = await self.get(key, consistency=_for_reads(consistency), timeout_s=timeout_s)
            context = found.context
            if found.siblings:
                given = merged(self._merge, [*found.all, given])
        made = partial(
            ClientPut,
            ttl_s=ttl_s,
            only_if=only_if or "",
            content_type=content_type,
            metadata=tuple(sorted((metadata or {}).items())),
            tags=tuple(Tag(name, tagged) for name, tagged in tags),
            client=self._client.name,
        )
        return await self._put(key, given, context or b"", made, consistency, timeout_s)

    async def delete(
        self,
        key: Data,
        *,
        context: bytes | None = None,
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Delete what was seen, and nothing else; returns the context to put with next.

        ``context`` None: what is there now is read first.

        Raises:
            as `put`.
        """
        if context is None:
            found = await self.get(key, consistency=_for_reads(consistency), timeout_s=timeout_s)
            context = found.context
        return await self._put(key, None, context, partial(ClientPut, only_if=only_if or ""), consistency, timeout_s)

    async def update(
        self,
        key: Data,
        change: Change,
        *,
        ttl_s: int | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes | None:
        """Read, change, and put with the context of what was read; returns what was put, None if it was deleted.

        Whoever does the same at the same time leaves a sibling, which the next `update` merges.

        Raises:
            SiblingsError: there are several values, and no merge function.
            and as `put`.
        """
        found = await self.get(key, consistency=_for_reads(consistency), timeout_s=timeout_s)
        changed = change(found.value)
        value = None if changed is None else as_bytes(changed, "value")
        if value is not None or found.siblings:
            made = partial(ClientPut, ttl_s=ttl_s, client=self._client.name)
            await self._put(key, value, found.context, made, consistency, timeout_s)
        return value

    async def keys(self, *, consistency: str | None = None, timeout_s: float | None = None) -> AsyncIterator[bytes]:
        """Yield every key that can be read, in the order of the ring; a page at a time, the next when it is wanted.

        ``timeout_s`` is for each page.

        Raises:
            as `get`.
        """
        name, level = self.name, consistency or self._consistency
        start: bytes | None = None
        while True:
            page = await self._client.read(
                name,
                None,
                lambda within_ms, start=start: AskKeys(name, start, PAGE_KEYS, level, within_ms),  # type: ignore[misc]
                timeout_s=timeout_s,
                kind=KeysAre,
                patience_s=PAGE_PATIENCE_S,
            )
            for key in page.keys:
                yield key
            start = page.resume
            if start is None:
                return

    async def _put(
        self,
        key: Data,
        value: bytes | None,
        context: bytes,
        made: partial[ClientPut],
        consistency: str | None,
        timeout_s: float | None,
    ) -> bytes:
        name, raw, level = self.name, as_bytes(key, "key"), consistency or self._consistency
        if value is not None and len(value) > FRAME_BYTES_MAX // 2:
            raise RequestError(f"a value of {len(value):,} bytes is more than can be sent: split it")
        told = await self._client.write(
            name,
            raw,
            lambda within_ms: made(name, raw, value, context, level, within_ms),
            timeout_s=timeout_s,
            kind=PutIs,
        )
        return told.context


def _for_reads(consistency: str | None) -> str | None:
    """Return the level of the read before a write: ANY and numbers for writes alone say nothing of it."""
    if consistency is None:
        return None
    levels = parse_levels(consistency)
    return consistency if levels.read is not None and consistency.strip().upper() != "ANY" else None


def _checked_reply(reply: ClientReply, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise CorruptionError(f"a node answered with a {type(reply).__name__} where a {kind.__name__} was due")
    return cast("T", reply)


def _checked_level(consistency: str) -> str:
    _checked(parse_levels, consistency)
    return consistency


def _checked(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except (ValueError, ConfigurationError) as error:
        raise RequestError(f"{text!r}: {error}") from None


def _check_timeout(timeout_s: float) -> float:
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise RequestError(f"timeout_s must be above 0, and {TIMEOUT_S_MAX:g} at most, not {timeout_s!r}")
    return timeout_s
