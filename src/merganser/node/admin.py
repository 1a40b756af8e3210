"""The admin port: what this node knows of itself and its cluster, as JSON over HTTP.

``GET /status`` this node; ``GET /ring`` the cluster map's nodes and owners; ``GET /health`` 200 while the
node serves clients, 503 before, once its disk has failed, and while its clock is wrong: other nodes take what this one
does not. ``GET /staleness?table=NAME`` tells what this node has measured of what makes reads of a table stale. It
listens on the same host as everything else.

``POST /repair?table=NAME&partition=P[&dry_run=1][&scrub_only=1]`` repairs one partition that this node holds, and
answers when that is done. ``POST /reload[?dry_run=1]`` has it read its settings again (`node.reloading`), and answers
with what has changed. ``POST /drain`` has the node leave what it leads to others and clients go elsewhere, until
``POST /undrain`` or its end. ``POST /snapshot/...`` is told in `node.admin_snapshots`, ``POST /values/...`` in
`node.admin_values`, ``GET /operation`` and ``POST /operation/...`` in `node.admin_operations`. ``POST /clean`` drops
every table, on nodes in memory only, which tests use. Nothing else changes anything, and nobody proves here who they
are. So that no page in an operator's browser can send these, they must carry the header ``x-merganser-admin``, which a
form cannot send and a script of another site only after a preflight that is not answered, and no ``Origin``, which
browsers add to every POST.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import orjson

import merganser
from merganser.model.build import BUILD
from merganser.model.cluster import ClusterMap, Pending, Table
from merganser.model.errors import ConfigurationError, MerganserError, RequestError
from merganser.model.ids import PartitionId
from merganser.net.http import HttpServer, Request, Response
from merganser.net.peers import Peers
from merganser.node import admin_operations, admin_values
from merganser.node.admin_snapshots import PREFIX, SnapshotAdmin
from merganser.node.reloading import Change
from merganser.service import clean_slate
from merganser.service.member import Member
from merganser.storage import keys

HEADER = b"x-merganser-admin"
REPAIR_TIMEOUT_S = 600.0  # of one partition; as long as an exchange may take
CLEAN_TIMEOUT_S = 10.0  # a change of the map takes milliseconds
WOUNDS_TOLD_MAX = 20

_HEALTHY = ("serving", "short of disk")
_JSON = [(b"content-type", b"application/json")]


class Reload(Protocol):
    """Reads the settings again: `node.node.Node.reload`."""

    def __call__(self, *, is_dry_run: bool) -> Sequence[Change]:
        """Return what has changed; raises a ConfigurationError if it is wrong, or not to be had without a restart."""


class Admin:
    """Answers the admin port."""

    def __init__(
        self,
        peers: Callable[[], Peers | None],
        member: Callable[[], Member | None],
        *,
        is_ephemeral: bool = False,
        snapshots: SnapshotAdmin | None = None,
        door: Callable[[], HttpServer | None] = lambda: None,
        reload: Reload | None = None,
    ) -> None:
        """Tell about ``member``, once there is one; if ``is_ephemeral``, drop all of its tables when asked to.

        What is asked of ``snapshots`` is refused if there are none. ``door`` is that of clients, which draining closes.
        ``reload`` reads the settings again.
        """
        self._peers = peers
        self._member = member
        self._is_ephemeral = is_ephemeral
        self._snapshots = snapshots
        self._door = door
        self._reload = reload

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        path = request.path.partition(b"?")[0]
        if request.method == b"POST" and (
            path in (b"/repair", b"/clean", b"/drain", b"/undrain", b"/reload")
            or path.startswith((PREFIX, admin_values.PREFIX, admin_operations.PREFIX))
        ):
            return await self._change(path, request)
        if request.method not in (b"GET", b"HEAD"):
            return _answer(405, {"error": "only GET is served here, and POST /repair"})
        if path == b"/staleness":
            return self._staleness(request.path)
        page = _PAGES.get(path)
        if page is None:
            return _answer(404, {"error": "there are /status, /ring, /operation and /health, and POST /repair"})
        member, peers = self._member(), self._peers()
        if member is None or peers is None:
            return _answer(503, {"state": "founding", "version": merganser.__version__})
        is_ill = page is _health and _state(member) not in _HEALTHY
        return _answer(503 if is_ill else 200, page(member, peers))

    async def _change(self, path: bytes, request: Request) -> Response:
        if request.header(HEADER) is None or request.header(b"origin") is not None:
            return _answer(403, {"error": f"POST needs the header {HEADER.decode()}, and does not come from a browser"})
        member = self._member()
        if member is None:
            return _answer(503, {"state": "founding", "version": merganser.__version__})
        if path.startswith(PREFIX) and self._snapshots is not None:
            return await self._snapshots.answer(member, request)
        if path.startswith(admin_values.PREFIX):
            return await admin_values.answer(member, request)
        if path.startswith(admin_operations.PREFIX):
            return await admin_operations.answer(member, request)
        if path in (b"/drain", b"/undrain"):
            return self._drained(member, is_draining=path == b"/drain")
        if path == b"/reload":
            return self._reloaded(request)
        if path == b"/repair":
            return await _repaired(member, request)
        if not self._is_ephemeral:
            return _answer(403, {"error": "this node keeps its data: only nodes started with --ephemeral are cleaned"})
        return await _cleaned(member)

    def _staleness(self, path: bytes) -> Response:
        """Tell what this node has measured that concerns one table."""
        member = self._member()
        if member is None:
            return _answer(503, {"state": "founding", "version": merganser.__version__})
        query = parse_qs(path.partition(b"?")[2].decode(errors="replace"))
        name, wire = (query.get(key, [""])[-1] for key in ("table", "wire"))
        try:
            table = _table_named(member, name, wire)
        except RequestError as error:
            return _answer(400, {"error": str(error)})
        if table.has_leaders:
            return _answer(400, {"error": f"table {name} has leaders: its consistent reads are never stale"})
        told = msgspec.to_builtins(member.coordinator.staleness.told(table.id))
        return _answer(200, {"table": table.name, "n": table.n, **told})

    def _reloaded(self, request: Request) -> Response:
        """Read the settings again, all or none of what has changed; with ``?dry_run=1`` tell what it would be."""
        query = parse_qs(request.path.partition(b"?")[2].decode(errors="replace"))
        if self._reload is None:
            return _answer(403, {"error": "this node was not started from a command line"})
        try:
            changes = self._reload(is_dry_run=query.get("dry_run", ["0"])[-1] not in ("", "0"))
        except ConfigurationError as error:
            return _answer(400, {"error": str(error)})
        return _answer(200, {"changed": msgspec.to_builtins(changes)})

    def _drained(self, member: Member, *, is_draining: bool) -> Response:
        """Leave what is led here to others, and have clients go elsewhere; or no more."""
        member.leader_tables.leadership.is_draining = is_draining
        door = self._door()
        if door is not None:
            door.is_draining = is_draining
        return _answer(200, {"state": _state(member)})


async def _repaired(member: Member, request: Request) -> Response:
    try:
        table, partition, flags = _asked_for(member, request.path)
    except RequestError as error:
        return _answer(400, {"error": str(error)})
    try:
        deadline = asyncio.get_running_loop().time() + REPAIR_TIMEOUT_S
        done = await member.repairing.repair(table, partition, deadline=deadline, **flags)
    except MerganserError as error:
        return _answer(503, {"error": str(error)})
    told = msgspec.to_builtins(done)
    for comparison in told["peers"].values():
        comparison["damaged"] = len(comparison["damaged"])
    return _answer(200, told)


async def _cleaned(member: Member) -> Response:
    try:
        deadline = asyncio.get_running_loop().time() + CLEAN_TIMEOUT_S
        tables = await clean_slate.clean(member.catalog, member.leader_tables.transactions, deadline=deadline)
    except MerganserError as error:
        return _answer(503, {"error": str(error)})
    return _answer(200, {"tables": tables})


def _table_named(member: Member, name: str, wire: str) -> Table:
    """Return a table by its name; raises a RequestError if there is none, or several of several wires."""
    tables = [t for t in member.topology.map.tables if t.name == name and wire in ("", t.wire)]
    if len(tables) != 1:
        there = ", ".join(sorted({t.name for t in member.topology.map.tables})) or "none"
        raise RequestError(f"{len(tables) or 'no'} tables are called {name!r} on this node; there are {there}")
    return tables[0]


def _asked_for(member: Member, path: bytes) -> tuple[Table, PartitionId, dict[str, bool]]:
    """Return what a request for a repair names.

    Raises:
        RequestError: there is no such thing here; says what there is.
    """
    query = parse_qs(path.partition(b"?")[2].decode(errors="replace"), keep_blank_values=True)
    unknown = query.keys() - {"table", "wire", "partition", "dry_run", "scrub_only"}
    if unknown:
        raise RequestError(
            f"unknown: {', '.join(sorted(unknown))}; there are table, wire, partition, dry_run, scrub_only"
        )
    name, wire = (query.get(key, [""])[-1] for key in ("table", "wire"))
    table = _table_named(member, name, wire)
    number, ring = query.get("partition", [""])[-1], member.topology.ring
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(ring.partitions))
    if not (is_number and int(number) < ring.partitions):
        raise RequestError(f"partition must be 0 to {ring.partitions - 1}, not {number[:20]!r}")
    for flag in ("dry_run", "scrub_only"):
        if query.get(flag, ["0"])[-1] not in ("0", "1"):
            raise RequestError(f"{flag} must be 0 or 1")
    partition = PartitionId(int(number))
    if not ring.holds(member.topology.node, partition, table.rule):
        raise RequestError(f"this node holds no replica of partition {partition} of {name}")
    return table, partition, {f"is_{key}": query.get(key, ["0"])[-1] == "1" for key in ("dry_run", "scrub_only")}


def _answer(status: int, content: object) -> Response:
    return Response(status, _JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def _state(member: Member) -> str:
    if member.topology.gone_at:
        return "left"
    if member.engine.failure is not None:
        return "read-only"
    if member.wholeness.condition.lost is not None:
        return "recovering"
    if member.engine.shortage is not None:
        return "short of disk"
    if member.leader_tables.leadership.is_draining:
        return "draining"
    return "serving" if member.clock_watch.standing().refusal is None else "wrong clock"


def _loss(member: Member) -> str | None:
    """Tell what is lost or short, and what is in the way."""
    found = member.wholeness.progress()
    if member.wholeness.condition.lost is None:
        return found.shortage
    way = "; ".join(found.in_the_way) or "nothing"
    return (
        f"the disk has lost something ({found.lost}), hints it kept for others perhaps; {found.partitions_done} "
        f"partitions are equal to the other replicas again, {found.partitions_left} are left, and "
        f"{found.groups_left} of leader-based tables; in the way: {way}"
    )


def _status(member: Member, peers: Peers) -> dict[str, object]:
    topology = member.topology
    current = topology.map
    connected, versions, problems = peers.connected(), peers.agreed(), peers.problems()
    repairs = member.coordinator.repairs
    return {
        "state": _state(member),
        "failure": member.engine.failure or _loss(member) or member.clock_watch.standing().refusal,
        "disk": msgspec.to_builtins(member.wholeness.progress()),
        "version": merganser.__version__,
        "build": BUILD,
        "node": topology.node,
        "number": topology.me.number,
        "data_center": topology.me.data_center,
        "zone": topology.me.zone,
        "machine": topology.me.machine,
        "peer_address": topology.me.peer_address,
        "addresses": topology.me.wire_addresses,
        "cluster": current.cluster_id,
        "epoch": current.epoch,
        "cluster_version": current.version,
        "speaks": msgspec.to_builtins(peers.versions),
        "partitions_owned": Counter(current.owners)[topology.me.number],
        "tables": [_told_table(current, table) for table in current.tables],
        "peers": {
            node.id: {
                "address": node.peer_address,
                "connected": connected.get(node.id, False),
                "version": versions.get(node.id),
                "problem": problems.get(node.id),
            }
            for node in current.nodes
            if node.id != topology.node
        },
        "clock": msgspec.to_builtins(member.clock_watch.standing()),
        "load": msgspec.to_builtins(member.admission.load()),
        "purge": {
            "oldest_horizons_us": {t.name: member.purger.oldest_horizon_us(t) for t in current.tables},
            "rounds_completed": member.purger.rounds_completed,
            "rounds_given_up": member.purger.rounds_given_up,
            "last_problem": member.purger.last_problem,
            "rows_purged": member.purger.purged_rows,
            "partitions_in_doubt": len(member.horizons.doubted()),
        },
        "anti_entropy": _anti_entropy(member),
        "damage": _damage(member),
        "scrub": {
            "position": msgspec.structs.asdict(member.scrubber.position),
            "passes": member.scrubber.passes,
            "rows": member.scrubber.rows,
            "leaves_wrong": member.scrubber.leaves_wrong,
        },
        "read_repairs": {"sent": repairs.sent, "failed": repairs.failed, "dropped": repairs.dropped},
        "staleness": _staleness(member),
        "hints": _hints(member),
        "leadership": msgspec.to_builtins(member.leader_tables.leadership.view()),
        "transactions": _transactions(member),
        "indexes": _indexes(member),
        "expired": member.leader_tables.expirer.removed,
        "membership": msgspec.to_builtins(member.failure_detector.view()),
    }


def _anti_entropy(member: Member) -> dict[str, object]:
    """Tell what the exchanges that this node began came to, and what it changed because others began one."""
    service = member.anti_entropy
    oldest = {table.name: service.oldest_comparison_us(table) for table in member.topology.map.tables}
    met_for_others = service.answers.met
    return {"oldest_comparisons_us": oldest, **msgspec.to_builtins(service.totals), "met_for_others": met_for_others}


def _damage(member: Member) -> dict[str, object]:
    """Tell what was found damaged since the start, what became of it, and what waits for what."""
    damage, healing, topology = member.damage, member.healing, member.topology
    names = {table.id: table.name for table in topology.map.tables}
    return {
        "found": damage.found,
        "healed": healing.healed,
        "rows_put": healing.rows_put,
        "overlooked": damage.overlooked,
        "waiting": len(damage.wounds),
        "first": [
            {
                "table": names.get(wound.table, str(wound.table)),
                "partition": topology.ring.partition_of(keys.token_in(wound.start)),
                "key": wound.start.hex(),
                "what": "row" if wound.end is None else "stretch that cannot be read",
                "tries": wound.tries,
                "why": wound.problem,
            }
            for wound in islice(damage.wounds.values(), WOUNDS_TOLD_MAX)
        ],
    }


def _staleness(member: Member) -> dict[str, object]:
    """Tell how stale reads at ONE are predicted to be, by table, of those that are written through this node."""
    views = member.coordinator.staleness.views
    return {t.name: msgspec.to_builtins(views[t.id]) for t in member.topology.map.tables if t.id in views}


def _hints(member: Member) -> dict[str, object]:
    """Tell what this node keeps for others, and what became of what it sent and took since its start."""
    store, handoff, hinting = member.hints, member.handoff, member.coordinator.hinting
    return {
        "stored": [msgspec.to_builtins(stored) for stored in store.summary()],
        "taken": store.stored,
        "not_taken": store.refused,
        "damaged": store.damaged,
        "delivered": handoff.delivered,
        "moved": handoff.moved,
        "refused": handoff.refused,
        "sent": hinting.sent,
        "unkept": hinting.unkept + hinting.dropped,
    }


def _transactions(member: Member) -> dict[str, object]:
    """Tell what became of transactions since the start: of this node's own, and of others that it has ended."""
    led = member.leader_tables
    return {
        "under_way": led.transactions.under_way.count,
        "refused": led.transactions.under_way.refused,
        "committed": led.transactions.committed,
        "cancelled": led.transactions.cancelled,
        "given_up_for_others": led.recovery.aborted,
        "ended_for_others": led.sweep.ended,
    }


def _indexes(member: Member) -> dict[str, int]:
    """Tell how far indexes are behind the items that this node leads, and what it has done about it since its start."""
    led = member.leader_tables
    return {
        "items_waiting": led.indexer.waiting,
        "entries_delivered": led.indexer.delivered,
        "markers_removed": led.markers.removed,
    }


def _told_table(current: ClusterMap, table: Table) -> dict[str, object]:
    policy = current.policy_of(table)
    told = str(policy) if policy.is_bound else ""
    return {"name": table.name, "wire": table.wire, "n": table.n, "rule": table.rule, "policy": told}


def _ring(member: Member, _peers: Peers) -> dict[str, object]:
    current = member.topology.map
    owned = Counter(current.owners)
    coming = Counter(move.to for move in (current.pending or Pending()).moves)
    return {
        "cluster": current.cluster_id,
        "epoch": current.epoch,
        "partitions": current.partitions,
        "nodes": [
            {
                "number": node.number,
                "id": node.id,
                "data_center": node.data_center,
                "zone": node.zone,
                "machine": node.machine,
                "peer_address": node.peer_address,
                "addresses": node.wire_addresses,
                "partitions_owned": owned[node.number],
                "partitions_coming": coming[node.number],
                "weight": node.weight,
                "is_voter": node.number in current.voters,
            }
            for node in current.nodes
        ],
        "owners": current.owners,
        "policies": msgspec.to_builtins(current.policies),
        "operation": None if current.operation is None else current.operation.told,
    }


def _health(member: Member, _peers: Peers) -> dict[str, object]:
    return {"state": _state(member)}


_PAGES: dict[bytes, Callable[[Member, Peers], dict[str, object]]] = {
    b"/status": _status,
    b"/ring": _ring,
    b"/health": _health,
    admin_operations.PAGE: lambda member, _peers: admin_operations.page(member),
}
