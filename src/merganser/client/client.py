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

import random
import ssl
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, get_args

from merganser.client.arguments import checked_function, checked_text, checked_texts, wrong_type
from merganser.client.calls import CONSISTENCY, TIMEOUT_S, Calls, Data, checked_level
from merganser.client.counting import Counting
from merganser.client.crdts import At, Crdt
from merganser.client.session import Coordinated, Session
from merganser.client.tables import ValueTable
from merganser.client.values import Merge, as_bytes
from merganser.core import policies
from merganser.model.client_messages import ChangePolicy, DropTable, FindTable, MakeTable, TableIs
from merganser.model.cluster import Conflicts
from merganser.model.errors import ConfigurationError, RequestError, TableExistsError
from merganser.model.ids import NodeId
from merganser.model.policy import Policy
from merganser.model.versions import CLIENTS_SINCE, NEWEST, Versions
from merganser.net.handshake import Identity
from merganser.net.links import Links
from merganser.net.sockets import split_address

DEFAULT_SEED: Final = "127.0.0.1:7700"
REPLICAS_DEFAULT: Final = 3


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
        listed = seeds.split(",") if isinstance(seeds, str) else checked_texts("seeds", seeds)
        if not listed:
            raise RequestError("name at least one node to begin with, as host:port of its peer port")
        listed = [seed.strip() for seed in listed]
        for seed in listed:
            try:
                split_address(seed)
            except ConfigurationError as error:
                raise RequestError(f"seed {error}") from None
        if tls is not None and not isinstance(tls, ssl.SSLContext):
            raise wrong_type("tls", "an ssl.SSLContext", tls)
        if coordinated not in get_args(Coordinated):
            raise RequestError(f"coordinated is one of {', '.join(get_args(Coordinated))}, not {coordinated!r:.80}")
        self._seeds = listed
        self._calls = Calls(timeout_s=timeout_s, consistency=consistency, name=name)
        self._counting = Counting(self._calls)
        self._merge = checked_function("merge", merge)
        self._tls = tls
        self._coordinated = coordinated
        self._links: Links | None = None
        self._unopened = session

    async def open(self) -> Self:
        """Find the cluster.

        Raises:
            UnavailableError: none of the seeds answered in time.
        """
        if self._calls.session is not None:
            return self
        session = self._unopened or self._over_tcp()
        try:
            await session.open(self._calls.deadline(None))
        except BaseException:
            if self._unopened is None:
                await session.close()
                await self._close_links()
            raise
        self._calls.session = session
        return self

    async def close(self) -> None:
        """Fail what is under way, and close all connections; nothing is left running."""
        session, self._calls.session = self._calls.session, None
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
        checked_text("name", name)
        return ValueTable(self._calls, name, checked_function("merge", merge) or self._merge, self._level(consistency))

    def crdt(self, table: str, key: Data, *, consistency: str | None = None) -> Crdt:
        """Return a key of a table whose values merge themselves, to work with; see `Crdt`.

        Args:
            table: its name.
            key: of the value.
            consistency: of requests that name none; None: that of the client.
        """
        checked_text("table", table)
        return Crdt(At(self._calls, self._counting, table, as_bytes(key, "key"), self._level(consistency)))

    async def create_table(
        self,
        name: str,
        *,
        n: int | None = None,
        conflicts: Conflicts = "siblings",
        replicas: Mapping[str, int] | None = None,
        data_centers: Iterable[str] = (),
        zones: Iterable[str] = (),
        if_absent: bool = False,
        timeout_s: float | None = None,
        merge: Merge | None = None,
    ) -> ValueTable:
        """Make a key-value table.

        Args:
            name: of the table.
            n: replicas of each key, if ``replicas`` does not say it; None: 3.
            conflicts: what becomes of writes that did not know of one another; for the table's whole life.
            replicas: of each key by data centre; there are none elsewhere. None: wherever it is allowed.
            data_centers: where replicas may be, if it is not said how many in which; none: in all.
            zones: that replicas may be in; none: in all.
            if_absent: a table of that name will do, whoever made it.
            timeout_s: what it may take.
            merge: as for `table`.

        Raises:
            TableExistsError: there is one of that name; with ``if_absent``, one that keeps conflicts otherwise, has
                another number of replicas, or is not bound to the places that this one is to be bound to.
            RequestError: no table can be so.
            UnavailableError: most of the nodes that keep the cluster map are away; nothing was made.
            UnknownOutcomeError: it may be made, now or later.
        """
        checked_text("name", name)
        checked_function("merge", merge)
        unique_id, deadline = uuid.uuid4().hex, self._calls.deadline(timeout_s)
        where, wanted = _places(REPLICAS_DEFAULT if n is None else n, replicas, data_centers, zones)
        try:
            await self._calls.write(
                name,
                None,
                lambda within_ms: MakeTable(name, wanted.n, conflicts, unique_id, within_ms, *where),
                deadline=deadline,
                kind=TableIs,
            )
        except TableExistsError:
            if not if_absent:
                raise
            there = await self._calls.read(
                name, None, lambda within_ms: FindTable(name, within_ms), deadline=deadline, kind=TableIs
            )
            if there.conflicts != conflicts:
                raise TableExistsError(f"table {name} exists, and its conflicts are {there.conflicts}") from None
            if wanted.is_bound and there.policy != str(wanted):
                raise TableExistsError(f"table {name} exists, and has replicas {there.policy or 'anywhere'}") from None
            if n is not None and there.n != n:
                raise TableExistsError(f"table {name} exists, and has {there.n} replicas of each key") from None
        return self.table(name, merge=merge)

    async def drop_table(self, name: str, *, timeout_s: float | None = None) -> None:
        """Drop a key-value table, and all it holds.

        Raises:
            TableNotFoundError: there is none; it may have been dropped by an earlier attempt of this very call.
            and as `create_table`.
        """
        deadline = self._calls.deadline(timeout_s)
        await self._calls.write(
            name, None, lambda within_ms: DropTable(name, within_ms), deadline=deadline, kind=TableIs
        )

    async def policy(self, name: str, *, timeout_s: float | None = None) -> str:
        """Return how many replicas of each key a key-value table has, and where, in words, such as ``eu=3, us=2``.

        Raises:
            TableNotFoundError: there is none.
            UnavailableError: no node has told in time.
        """
        checked_text("name", name)
        deadline = self._calls.deadline(timeout_s)
        there = await self._calls.read(
            name, None, lambda within_ms: FindTable(name, within_ms), deadline=deadline, kind=TableIs
        )
        return there.policy or str(there.n)

    async def set_policy(
        self,
        name: str,
        *,
        n: int | None = None,
        replicas: Mapping[str, int] | None = None,
        data_centers: Iterable[str] | None = None,
        zones: Iterable[str] | None = None,
        force: bool = False,
        timeout_s: float | None = None,
    ) -> str:
        """Begin to have another number of replicas of a table, or to have them elsewhere; returns what `policy` will.

        They move while the table is served, for as long as that takes; `policy` tells it once all are there, and
        `merganser operation` how far it is. Asked once more for the same, it begins nothing more.

        Args:
            name: of the table.
            n: replicas of each key, if ``replicas`` does not say it; None: as now.
            replicas: of each key by data centre; there are none elsewhere. None: as now.
            data_centers: where replicas may be, if it is not said how many in which; none: in all. None: as now.
            zones: that replicas may be in; none: in all. None: as now.
            force: begin it whatever speaks against it: nodes that are away, or too few of them.
            timeout_s: what it may take to begin.

        Raises:
            RequestError: nothing is to be otherwise; or it cannot be so, another operation is under way, or something
                speaks against it, and nothing was changed.
            TableNotFoundError: there is none.
            UnavailableError: most of the nodes that keep the cluster map are away; nothing was changed.
            UnknownOutcomeError: it may have begun, or may yet.
        """
        checked_text("name", name)
        if n is not None and replicas is not None:
            raise RequestError("replicas says how many there are: leave out n")
        where, _ = _places(REPLICAS_DEFAULT if n is None else n, replicas, data_centers or (), zones or ())
        counts = where.replicas if replicas is not None else None if n is None else str(n)
        centers = None if data_centers is None else where.data_centers
        allowed = None if zones is None else where.zones
        if counts is None and centers is None and allowed is None:
            raise RequestError("say what is to be otherwise: n, replicas, data_centers or zones")
        told = await self._calls.write(
            name,
            None,
            lambda within_ms: ChangePolicy(name, within_ms, counts, centers, allowed, force),
            deadline=self._calls.deadline(timeout_s),
            kind=TableIs,
            is_repeatable=True,
        )
        return told.policy or str(told.n)

    async def tables(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the names of all key-value tables, as the node knows them that answers."""
        session, deadline = self._calls.opened, self._calls.deadline(timeout_s)
        await session.refresh(deadline)
        current = session.routes.map
        return [] if current is None else sorted(table.name for table in current.tables)

    @property
    def epoch(self) -> int:
        """Of the cluster map that this client knows."""
        return self._calls.opened.routes.epoch

    @property
    def hedges(self) -> int:
        """How many reads were sent to a second node because the first was slow."""
        return self._calls.opened.hedges

    @property
    def repeats(self) -> int:
        """How many times an update that may have been made was sent again, to be made once."""
        return self._calls.opened.repeats

    def replicas(self, table: str, key: Data) -> Sequence[NodeId]:
        """Return who holds ``key`` as far as this client knows."""
        return self._calls.opened.routes.replicas(table, as_bytes(key, "key"))

    def _level(self, consistency: str | None) -> str:
        return self._calls.consistency if consistency is None else checked_level(consistency)

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


class _Where(NamedTuple):
    """As `policies.parsed` reads it, and `MakeTable` has it."""

    replicas: str
    data_centers: str
    zones: str


def _places(
    n: int, replicas: Mapping[str, int] | None, data_centers: Iterable[str], zones: Iterable[str]
) -> tuple[_Where, Policy]:
    """Return where a table is to be, in writing, and what that means; raises a RequestError if it can be nowhere."""
    if type(n) is not int:
        raise wrong_type("n", "a whole number", n)
    if replicas is None:
        replicas = {}
    elif not isinstance(replicas, Mapping) or not all(type(count) is int for count in replicas.values()):
        raise wrong_type("replicas", "a dictionary of whole numbers by data centre", replicas)
    centers, allowed = checked_texts("data_centers", data_centers), checked_texts("zones", zones)
    try:
        for name in [*checked_texts("replicas", replicas), *centers]:
            policies.check_name("data centre", name)
        for name in allowed:
            policies.check_name("zone", name)
        counts = " ".join(f"{name}={count}" for name, count in replicas.items())
        where = _Where(counts, " ".join(centers), " ".join(allowed))
        return where, policies.parsed(n=n, **where._asdict())
    except ValueError as error:
        raise RequestError(str(error)) from None
