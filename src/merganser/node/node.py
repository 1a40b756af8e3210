"""One node: the place where engine, network, services and front doors meet.

    opening --ports and directory are ours--> founding --a map names us--> serving --close()--> closed

A node in founding answers clients with 503 and peers with who it is; everything else waits until it is
a member. What stops a start raises `ConfigurationError` or `CorruptionError`, which name the way out, and leaves
nothing open.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from merganser.model.cluster import NodeRecord
from merganser.model.errors import ConfigurationError, CorruptionError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request
from merganser.model.versions import Versions
from merganser.net import http
from merganser.net.datagrams import DatagramPortError
from merganser.net.peers import Peers
from merganser.net.transport import Beginner, begins_nothing
from merganser.node.admin import Admin
from merganser.node.admin_snapshots import SnapshotAdmin
from merganser.node.data_directory import DataDirectory, left_message
from merganser.node.logs import event, failure
from merganser.node.reloading import Change, Reloading, take_over, with_taken_over
from merganser.node.settings import Settings, is_loopback
from merganser.service.founding import Founding, check_address
from merganser.service.joining import Joining
from merganser.service.member import Member
from merganser.storage.engine import Engine
from merganser.storage.memory import MemoryEngine
from merganser.storage.rocks import RocksEngine
from merganser.wire.dynamodb.expiry import expiring
from merganser.wire.dynamodb.http import DynamoDBApplication, body_bound, too_large
from merganser.wire.dynamodb.index_items import indexer, local_indexer, local_measurer
from merganser.wire.dynamodb.items import measure, measure_entry
from merganser.wire.dynamodb.operations import DynamoDB
from merganser.wire.dynamodb.session import INDEX_WIRE, WIRE, Services
from merganser.wire.dynamodb.signature import Verifier
from merganser.wire.dynamodb.steps import evaluate
from merganser.wire.dynamodb.tables import ends_ms

CLOSE_GRACE_S = 5.0


def wall_us() -> int:
    """Return microseconds since 1970 as this machine's clock has it."""
    return time.time_ns() // 1000


class Node:
    """A running node; see the module's docstring."""

    def __init__(
        self,
        settings: Settings,
        *,
        rebuild: bool = False,
        accept_loss: bool = False,
        door: socket.socket | None = None,
        reloading: Reloading | None = None,
    ) -> None:
        """Prepare a node; nothing is opened before `start`.

        Args:
            reloading: reads the settings again when asked to; None: they stay as they are.
            door: a bound socket for DynamoDB clients, instead of one of the node's own.
            rebuild: set the database aside and take everything from the other nodes.
            accept_loss: go on with what is left, if the disk has lost something.
        """
        self.settings = settings
        self._rebuild = rebuild
        self._accept_loss = accept_loss
        self._door = door
        self._reloading = reloading
        self._application: DynamoDBApplication | None = None
        self.member: Member | None = None
        self._rng = random.Random(random.SystemRandom().getrandbits(256))
        self._peers: Peers | None = None
        self._directory: DataDirectory | None = None
        self._doors: list[http.HttpServer] = []
        self._closing = contextlib.AsyncExitStack()
        self._serve_peers: Callable[[NodeId, Request], Awaitable[Reply]] | None = None
        self._begin_to_serve_peers: Beginner = begins_nothing
        self._dynamodb: http.Application = _founding
        self.left = asyncio.Event()
        """Set when this node is a member of its cluster no more, and has nothing left to do."""
        self.addresses: dict[str, str] = {}
        """Advertised host:port by door, once listening."""

    async def start(self) -> None:
        """Open everything, become a member, and serve.

        Raises:
            ConfigurationError: a setting, a port or the data directory is wrong; says what to do.
            CorruptionError: the database, or what this node remembers in it, is damaged; says what to do.
        """
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise

    async def close(self) -> None:
        """Finish what clients asked for, then stop."""
        event("stopping")
        await self._closing.aclose()
        event("stopped")

    def reload(self, *, is_dry_run: bool = False) -> Sequence[Change]:
        """Read the settings again and go by them; returns what has changed. A dry run only tells.

        Raises:
            ConfigurationError: they are wrong, or some of what has changed needs a restart; nothing was changed.
        """
        if self._reloading is None or self.member is None or self._application is None:
            raise ConfigurationError("this node has yet to serve, or was not started from a command line")
        wanted, changes = self._reloading.read()
        if changes and not is_dry_run:
            self.settings = with_taken_over(self.settings, wanted)
            take_over(self.settings, self.member, self._doors[-1] if self._doors else None)
            self._application.let_in(self._verifier(), has_browsers=self._has_browsers)
            self._reloading.taken_over(wanted)
            event("settings were read again", changed={one.name: one.after for one in changes})
        return changes

    async def _start(self) -> None:
        node_id, engine = self._open_storage()
        me = await self._listen(node_id)
        with self._remembering():
            way_in = self._way_in(me, engine)
        self._serve_peers = way_in.serve
        current = await way_in.membership()
        check_address(me, current)
        if self._directory is not None:
            self._directory.joined(current.cluster_id)
        self._transport.cluster_id = current.cluster_id
        with self._remembering():
            self.member = member = Member(
                node_id,
                current,
                engine=engine,
                transport=self._transport,
                wall_us=wall_us,
                rng=self._rng,
                on_error=lambda error: failure("background task failed", error),
                clock_skew_max_s=self.settings.clock_skew_max_s,
                on_clock=_tell_of_clock,
                purge_interval_s=self.settings.purge_interval_s,
                repair_interval_s=self.settings.repair_interval_s,
                scrub_interval_s=self.settings.scrub_interval_s,
                evaluators={WIRE: evaluate},
                indexers={WIRE: indexer},
                local_indexers={WIRE: local_indexer},
                local_measurers={WIRE: local_measurer},
                expiries={WIRE: expiring},
                measures={WIRE: measure, INDEX_WIRE: measure_entry},
                ends={WIRE: ends_ms},
                on_damage=lambda what: failure("damage on the disk", reason=what),
            )
        await self._tell_of_loss(member)
        member.topology.when_gone = lambda: self._leave(member)
        self._serve_peers, self._begin_to_serve_peers = member.serve, member.begin
        member.start(me.wire_addresses)
        self._closing.push_async_callback(member.close)
        await member.catalog.look_for_news()  # or clients would meet tables that were dropped while it was away
        if member.topology.gone_at:
            raise ConfigurationError(left_message(node_id, current.cluster_id, member.topology.gone_at))
        self._open_front_doors(member)
        for door in self._doors:  # they close before the member that answers behind them
            self._closing.push_async_callback(door.close, CLOSE_GRACE_S)
        zone = member.topology.me.zone
        if self.settings.zone and zone != self.settings.zone:
            number = member.topology.me.number
            event(
                "the cluster has this node in another zone than --zone, and goes by that",
                zone=zone,
                setting=self.settings.zone,
                advice=f"merganser zones {number}={self.settings.zone} moves it; else start it without --zone",
            )
        if not is_loopback(self.settings.host):
            event("peer and admin ports ask for no key: keep them inside a network you trust", host=self.settings.host)
        event(
            "ready",
            node=node_id,
            cluster=current.cluster_id,
            epoch=member.topology.map.epoch,
            nodes=len(current.nodes),
            **self.addresses,
        )

    def _way_in(self, me: NodeRecord, engine: Engine) -> Founding | Joining:
        member_of = "" if self._directory is None else self._directory.identity.cluster_id
        if self.settings.join:
            return Joining(
                me,
                self.settings.join,
                engine,
                self._transport,
                rng=self._rng,
                progress=_waiting_for("member"),
                member_of=member_of,
            )
        return Founding(
            me,
            self.settings.seed,
            engine,
            self._transport,
            partitions=self.settings.partitions,
            rng=self._rng,
            progress=_waiting_for("seed"),
            member_of=member_of,
        )

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Name the way out if what this node remembers is damaged: without its promises it must not go on."""
        try:
            yield
        except CorruptionError as error:
            raise CorruptionError(
                f"what the database in --data {self.settings.data} remembers of this node is damaged: start it once "
                "with --rebuild, which sets the database aside and takes everything from the other nodes, or start "
                f"from a copy made while the node was stopped: {error}"
            ) from error

    def _leave(self, member: Member) -> None:
        """Remember that the node is no member any more, and have whoever runs it close it."""
        topology = member.topology
        cluster, epoch = topology.map.cluster_id, topology.gone_at
        if self._directory is not None:
            self._directory.left(epoch)
        event("this node has left its cluster, and ends", node=topology.node, cluster=cluster, epoch=epoch)
        self.left.set()

    async def _tell_of_loss(self, member: Member) -> None:
        lost = member.engine.lost
        if self._accept_loss:
            accepted = await member.wholeness.accept()
            if accepted is not None:
                event("loss accepted, the node goes on with what is left", lost=accepted)
        elif lost is not None:
            failure("the disk has lost what was on it, the node recovers from the others", reason=lost)

    @property
    def _transport(self) -> Peers:
        assert self._peers is not None
        return self._peers

    def _open_storage(self) -> tuple[NodeId, RocksEngine | MemoryEngine]:
        if self.settings.data is None:
            if self._rebuild:
                raise ConfigurationError("--rebuild needs --data: a node in memory has nothing to set aside")
            return NodeId(f"{self._rng.getrandbits(64):016x}"), MemoryEngine()
        directory = DataDirectory(Path(self.settings.data), rng=self._rng)
        self._closing.callback(directory.close)
        engine = directory.open_engine(
            on_failure=lambda reason: failure("storage failed", reason=reason),
            reserve_bytes=self.settings.disk_reserve_mib * 2**20,
            rebuild=self._rebuild,
        )
        self._closing.callback(engine.close)
        self._directory = directory
        return directory.identity.node_id, engine

    async def _listen(self, node_id: NodeId) -> NodeRecord:
        """Take the ports; returns this node as it will introduce itself."""
        settings = self.settings
        self._peers = Peers(
            node_id,
            cluster_id="",
            random=self._rng,
            handler=self._answer_peer,
            begin=self._begin_to_answer_peer,
            on_error=lambda error: failure("peer request failed", error),
            versions=Versions(newest=settings.peer_protocol_max),
        )
        self._closing.push_async_callback(self._peers.close)
        peer_port = await self._take_port("peer", settings.peer_port, self._peers.listen)
        self.addresses["peers"] = settings.advertised_to_peers(peer_port)
        for name, port in ("admin", settings.admin_port), ("dynamodb", settings.dynamodb_port):
            server = self._dynamodb_server() if name == "dynamodb" else _server(self._admin())
            self._closing.push_async_callback(server.close, CLOSE_GRACE_S)
            is_given = name == "dynamodb" and self._door is not None
            listen = self._listen_at_door(server) if is_given else server.listen
            self.addresses[name] = settings.advertised(await self._take_port(name, port, listen))
            self._doors.append(server)
        doors_only = {name: address for name, address in self.addresses.items() if name != "peers"}
        speaks = self._peers.versions.newest
        return NodeRecord(
            node_id,
            0,
            self.addresses["peers"],
            doors_only,
            settings.zone,
            settings.machine,
            speaks=speaks,
            data_center=settings.data_center,
        )

    def _listen_at_door(self, server: http.HttpServer) -> Callable[[str, int], Awaitable[int]]:
        assert self._door is not None
        door = self._door
        return lambda _host, _port: server.listen_on(door)

    def _admin(self) -> Admin:
        snapshots = SnapshotAdmin(None if self._directory is None else self._directory.checkpoints)
        self._closing.callback(snapshots.close)
        return Admin(
            lambda: self._peers,
            lambda: self.member,
            is_ephemeral=self.settings.ephemeral,
            snapshots=snapshots,
            door=lambda: self._doors[-1] if self._doors else None,  # the last to be opened
            reload=self.reload,
        )

    def _dynamodb_server(self) -> http.HttpServer:
        limits = http.HttpLimits(connections_max=self.settings.connections_max)
        return _server(self._answer_dynamodb, limits=limits, body_bound=body_bound, too_large=too_large)

    async def _take_port(self, name: str, port: int, listen: Callable[[str, int], Awaitable[int]]) -> int:
        host = self.settings.host
        try:
            return await listen(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have that name
            door = (
                f"UDP port {host}:{port} beside the TCP port"
                if isinstance(error, DatagramPortError)
                else f"{host}:{port}"
            )
            raise ConfigurationError(
                f"cannot listen on {door} {_way_out(error)}choose another --host or --{name}-port"
            ) from None

    def _answer_peer(self, sender: NodeId, request: Request) -> Awaitable[Reply]:
        if self._serve_peers is None:
            raise UnavailableError("this node is starting")
        return self._serve_peers(sender, request)

    def _begin_to_answer_peer(self, sender: NodeId, request: Request) -> asyncio.Future[Reply] | Reply | None:
        return self._begin_to_serve_peers(sender, request)

    def _answer_dynamodb(self, request: http.Request) -> http.Response | Coroutine[Any, Any, http.Response]:
        return self._dynamodb(request)

    def _open_front_doors(self, member: Member) -> None:
        led = member.leader_tables
        self._dynamodb = self._application = DynamoDBApplication(
            DynamoDB(
                Services(member.coordinator, led.leader_based, led.transactions, member.catalog, member.counting),
                rng=self._rng,
                host=self.addresses["dynamodb"],
                table_delay_ms=self.settings.table_delay_ms,
            ),
            self._verifier(),
            rng=self._rng,
            report=lambda error: failure("client request failed", error),
            places=member.admission.requests,
            has_browsers=self._has_browsers,
        )

    def _verifier(self) -> Verifier:
        return Verifier(self.settings.access_keys, wall_us=wall_us, is_open=self.settings.no_auth)

    @property
    def _has_browsers(self) -> bool:
        return bool(self.settings.access_keys) or self.settings.ephemeral


def _server(
    application: http.Application,
    *,
    limits: http.HttpLimits | None = None,
    body_bound: http.BodyBound | None = None,
    too_large: http.TooLarge | None = None,
) -> http.HttpServer:
    return http.HttpServer(
        application,
        on_error=lambda error: failure("client request failed", error),
        limits=limits,
        body_bound=body_bound,
        too_large=too_large,
    )


def _tell_of_clock(reason: str | None) -> None:
    if reason is None:
        event("clock is right again, timestamps are minted")
    else:
        failure("clock is wrong, no timestamps are minted", reason=reason)


def _way_out(error: OSError | UnicodeError) -> str:
    if not isinstance(error, OSError) or not error.errno or error.errno < 0:  # below zero: from the resolver
        return f"({getattr(error, 'strerror', None) or error}): "
    return f"({os.strerror(error.errno)}): " + ("stop what uses it, or " if error.errno == errno.EADDRINUSE else "")


def _founding(_request: http.Request) -> http.Response:
    body = (
        b'{"__type":"com.amazonaws.dynamodb.v20120810#ServiceUnavailable","message":"The node is starting, try again"}'
    )
    return http.Response(503, [(b"content-type", b"application/x-amz-json-1.0")], body)


def _waiting_for(role: str) -> Callable[[str, str], None]:
    """Return what logs once for each node of that role that does not answer, and each reason."""
    told: set[tuple[str, str]] = set()

    def tell(address: str, reason: str) -> None:
        if (address, reason) not in told:
            told.add((address, reason))
            event(f"waiting for {role}", **{role: address, "reason": reason})

    return tell


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    rebuild: bool = False,
    accept_loss: bool = False,
    door: socket.socket | None = None,
    reloading: Reloading | None = None,
    on_ready: Callable[[Node], None] = lambda _: None,
) -> None:
    """Run one node until ``stop`` is set or it has left its cluster; see `Node` for the rest.

    ``on_ready`` is called once it serves.

    Raises:
        ConfigurationError: the node cannot start.
        CorruptionError: its files are damaged.
    """
    node = Node(settings, rebuild=rebuild, accept_loss=accept_loss, door=door, reloading=reloading)
    starting = asyncio.ensure_future(node.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return
    await starting
    leaving = asyncio.ensure_future(node.left.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        on_ready(node)
        await asyncio.wait({leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        stopping.cancel()
        await node.close()
