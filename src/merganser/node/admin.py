"""The admin port: what this node knows of itself and its cluster, as JSON over HTTP.

``GET /status`` this node; ``GET /ring`` the cluster map's nodes and owners; ``GET /health`` 200 while the
node serves clients, 503 before, once its disk has failed, and while its clock is wrong: other nodes take what this one
does not. Read only; it listens on the same host
as everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import orjson

import merganser
from merganser.net.http import Request, Response
from merganser.net.peers import Peers
from merganser.service.member import Member

_HEALTHY = ("serving", "short of disk")
_JSON = [(b"content-type", b"application/json")]


class Admin:
    """Answers the admin port."""

    def __init__(self, peers: Callable[[], Peers | None], member: Callable[[], Member | None]) -> None:
        """Tell about ``member``, once there is one."""
        self._peers = peers
        self._member = member

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if request.method not in (b"GET", b"HEAD"):
            return _answer(405, {"error": "only GET is served here"})
        page = _PAGES.get(request.path.partition(b"?")[0])
        if page is None:
            return _answer(404, {"error": "there are /status, /ring and /health"})
        member, peers = self._member(), self._peers()
        if member is None or peers is None:
            return _answer(503, {"state": "founding", "version": merganser.__version__})
        is_ill = page is _health and _state(member) not in _HEALTHY
        return _answer(503 if is_ill else 200, page(member, peers))


def _answer(status: int, content: object) -> Response:
    return Response(status, _JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def _state(member: Member) -> str:
    if member.engine.failure is not None:
        return "read-only"
    if member.wholeness.condition.lost is not None:
        return "recovering"
    if member.engine.shortage is not None:
        return "short of disk"
    return "serving" if member.clock_watch.standing().refusal is None else "wrong clock"


def _loss(member: Member) -> str | None:
    """Tell what is lost or short, and what is in the way."""
    found = member.wholeness.progress()
    if member.wholeness.condition.lost is None:
        return found.shortage
    way = "; ".join(found.in_the_way) or "nothing"
    return (
        f"the disk has lost something ({found.lost}), hints it kept for others perhaps; {found.partitions_done} "
        f"partitions are equal to the other replicas again, {found.partitions_left} are left; in the way: {way}"
    )


def _status(member: Member, peers: Peers) -> dict[str, object]:
    topology = member.topology
    current = topology.map
    connected = peers.connected()
    repairs = member.coordinator.repairs
    return {
        "state": _state(member),
        "failure": member.engine.failure or _loss(member) or member.clock_watch.standing().refusal,
        "disk": msgspec.to_builtins(member.wholeness.progress()),
        "version": merganser.__version__,
        "node": topology.node,
        "number": topology.me.number,
        "zone": topology.me.zone,
        "peer_address": topology.me.peer_address,
        "addresses": topology.me.wire_addresses,
        "cluster": current.cluster_id,
        "epoch": current.epoch,
        "partitions_owned": Counter(current.owners)[topology.me.number],
        "tables": [{"name": table.name, "wire": table.wire, "n": table.n} for table in current.tables],
        "peers": {
            node.id: {"address": node.peer_address, "connected": connected.get(node.id, False)}
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
        "read_repairs": {"sent": repairs.sent, "failed": repairs.failed, "dropped": repairs.dropped},
        "hints": _hints(member),
        "membership": msgspec.to_builtins(member.failure_detector.view()),
    }


def _anti_entropy(member: Member) -> dict[str, object]:
    """Tell what the exchanges that this node began came to, and what it changed because others began one."""
    service = member.anti_entropy
    oldest = {table.name: service.oldest_comparison_us(table) for table in member.topology.map.tables}
    met_for_others = service.answers.met
    return {"oldest_comparisons_us": oldest, **msgspec.to_builtins(service.totals), "met_for_others": met_for_others}


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


def _ring(member: Member, _peers: Peers) -> dict[str, object]:
    current = member.topology.map
    owned = Counter(current.owners)
    return {
        "cluster": current.cluster_id,
        "epoch": current.epoch,
        "partitions": current.partitions,
        "nodes": [
            {
                "number": node.number,
                "id": node.id,
                "zone": node.zone,
                "peer_address": node.peer_address,
                "addresses": node.wire_addresses,
                "partitions_owned": owned[node.number],
                "is_voter": node.number in current.voters,
            }
            for node in current.nodes
        ],
        "owners": current.owners,
    }


def _health(member: Member, _peers: Peers) -> dict[str, object]:
    return {"state": _state(member)}


_PAGES: dict[bytes, Callable[[Member, Peers], dict[str, object]]] = {
    b"/status": _status,
    b"/ring": _ring,
    b"/health": _health,
}
