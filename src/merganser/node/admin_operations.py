"""What the admin port does for operations that change who is a member and who holds what (`core.reshaping`).

::

    GET  /operation                 the one under way, how far it is and what it waits for; and what became of the last
    POST /operation/plan            what it would do, and what speaks against it; changes nothing
    POST /operation/begin           begins it; again with the same id, it begins nothing more
    POST /operation/cancel?id=ID    gives it up; what has changed hands stays so

Bodies are JSON as `Wanted`; nodes are named by id, number or address. POST needs the admin header.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from typing import Final, cast
from urllib.parse import parse_qs

import msgspec
import orjson

from merganser.core import operation_checks, planner, policies, reshaping
from merganser.core.reshaping import Plan
from merganser.model.cluster import ClusterMap, OperationKind
from merganser.model.errors import MerganserError, RequestError
from merganser.net.http import Request, Response
from merganser.service.member import Member

PAGE: Final = b"/operation"
PREFIX: Final = b"/operation/"
CHANGE_TIMEOUT_S: Final = 10.0

_JSON = [(b"content-type", b"application/json")]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation, as an operator asks for it."""

    kind: OperationKind
    id: str = ""
    """Drawn by whoever asks; "" only to plan."""
    nodes: tuple[str, ...] = ()
    """Who joins, leaves, is removed or replaced, or is to own more or less."""
    weight: float | None = None
    """Of those who join, None: what they have, or else 1; or of those whose weight changes."""
    by: str = ""
    """Who takes the place of one that is replaced."""
    zones: dict[str, str] = {}
    table: str = ""
    """Whose policy changes."""
    wire: str = ""
    """The front door that knows the table by that name; "": the only one that does."""
    policy: dict[str, str] = {}
    """What of it is to be otherwise: replicas, data_centers, zones, as in `policies.parsed`."""
    forced: bool = False
    """Whatever speaks against it."""


class Planned(msgspec.Struct, frozen=True):
    """One member, before and after."""

    number: int
    id: str
    peer_address: str
    is_alive: bool
    is_gone: bool
    weight: float
    weight_after: float
    data_center: str
    zone: str
    zone_after: str
    owned: int
    owned_after: int


_POLICY_PARTS: Final = frozenset({"replicas", "data_centers", "zones"})
_WANTED = msgspec.json.Decoder(Wanted)


def page(member: Member) -> dict[str, object]:
    """Tell of the operation under way, and of the last one that this node saw end."""
    return {
        "epoch": member.topology.map.epoch,
        "running": msgspec.to_builtins(member.rebalancer.progress()),
        "last": msgspec.to_builtins(member.rebalancer.last),
    }


async def answer(member: Member, request: Request) -> Response:
    """Do what is asked for below `PREFIX`."""
    path, _, query = request.path.partition(b"?")
    try:
        if path == PREFIX + b"plan":
            await member.catalog.look_for_news()
            return _answer(200, await _planned(member, _decoded(request.body)))
        if path == PREFIX + b"begin":
            return _answer(200, await _begun(member, _decoded(request.body)))
        if path == PREFIX + b"cancel":
            name = parse_qs(query.decode(errors="replace")).get("id", [""])[-1]
            return _answer(200, await _cancelled(member, name))
    except RequestError as error:
        return _answer(400, {"error": str(error)})
    except MerganserError as error:
        return _answer(503, {"error": str(error)})
    return _answer(404, {"error": "there is no such thing; below /operation/ there are plan, begin and cancel"})


async def _begun(member: Member, wanted: Wanted) -> object:
    if not wanted.id:
        raise RequestError("id is missing: draw one, so that the operation begins once however often it is asked for")

    await member.catalog.look_for_news()  # what is planned for an older map is planned again, in one turn
    current = member.topology.map
    planned: Plan | None = None

    def change(newest: ClusterMap) -> ClusterMap:
        if newest.operation is not None and newest.operation.id == wanted.id:
            return newest
        plan = planned if planned is not None and newest == current else planner.at_once(_planning)(newest, wanted)
        verdict = operation_checks.judged(newest, plan, member.rebalancer.alive())
        if verdict.objections and not wanted.forced:
            raise RequestError("; ".join(verdict.objections))
        return reshaping.begun(newest, plan.operation, plan.weights)

    last = member.rebalancer.last
    if last is None or last.id != wanted.id:
        with contextlib.suppress(RequestError):  # the newest map may know better, and is asked in any case
            planned = await _plan(current, wanted)
        await member.catalog.change(change, deadline=_deadline())
    return page(member)


async def _cancelled(member: Member, name: str) -> object:
    if not name:
        raise RequestError("id is missing: GET /operation tells that of the operation under way")
    changed = await member.catalog.change(lambda newest: reshaping.cancelled(newest, name), deadline=_deadline())
    if changed.operation is not None:
        raise RequestError(f"no operation {name} is under way, but {changed.operation.id}: {changed.operation.told}")
    return page(member)


async def _planned(member: Member, wanted: Wanted) -> dict[str, object]:
    current, alive = member.topology.map, member.rebalancer.alive()
    plan = await _plan(current, wanted)
    operation = plan.operation
    verdict = operation_checks.judged(current, plan, alive)
    objections = [*verdict.objections]
    if current.operation is not None:
        objections.append(f"another operation is under way: {current.operation.told}; wait for its end, or cancel it")
    zones = dict(operation.zones)
    nodes = [
        Planned(
            number=node.number,
            id=node.id,
            peer_address=node.peer_address,
            is_alive=node.id in alive,
            is_gone=node.number in operation.gone,
            weight=node.weight,
            weight_after=plan.weights.get(node.number, node.weight),
            data_center=node.data_center,
            zone=node.zone,
            zone_after=zones.get(node.number, node.zone),
            owned=plan.owned[node.id][0],
            owned_after=plan.owned[node.id][1],
        )
        for node in current.nodes
    ]
    return {
        "epoch": current.epoch,
        "kind": operation.kind,
        "told": operation.told,
        "partitions": current.partitions,
        "partitions_after": len(operation.owners),
        "moves": operation.moves,
        "nodes": msgspec.to_builtins(nodes),
        "objections": objections,
        "warnings": verdict.warnings,
    }


async def _plan(current: ClusterMap, wanted: Wanted) -> Plan:
    """Return what ``wanted`` comes to, a step each turn of the loop, so that clients are served meanwhile.

    Raises:
        RequestError: it makes no sense, and why.
    """
    steps = _planning(current, wanted)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("Plan", end.value)
        await asyncio.sleep(0)


def _planning(current: ClusterMap, wanted: Wanted) -> Generator[None, None, Plan]:
    _check(wanted)
    if wanted.kind == "policy":
        return _policy_plan(current, wanted)
    nodes = [operation_checks.member_named(current, name) for name in wanted.nodes]
    records = {node.id: node for node in current.nodes}
    weights: dict[str, float] = {}
    if wanted.kind in ("join", "weights"):
        weights = {node: (records[node].weight or 1.0) if wanted.weight is None else wanted.weight for node in nodes}
    if wanted.kind == "join":
        for record in (records[node] for node in nodes):
            if operation_checks.has_its_share(current, record):
                raise RequestError(
                    f"node {record.number} has its share already (weight {record.weight:g}, "
                    f"{current.owners.count(record.number)} partitions): give it another one with move --weight"
                )
    return (
        yield from reshaping.planning(
            current,
            wanted.kind,
            operation_id=wanted.id,
            now_us=time.time_ns() // 1000,
            weights={node: weights[node] for node in nodes if node in weights},
            gone=nodes if wanted.kind in ("leave", "remove", "replace") else (),
            successor=operation_checks.member_named(current, wanted.by) if wanted.by else None,
            zones={operation_checks.member_named(current, name): zone for name, zone in wanted.zones.items()},
        )
    )


def _policy_plan(current: ClusterMap, wanted: Wanted) -> Plan:
    table = operation_checks.table_named(current, wanted.table, wire=wanted.wire)
    try:
        policy = policies.rewritten(current.policy_of(table), **wanted.policy)
    except ValueError as error:
        raise RequestError(str(error)) from None
    return reshaping.planned_policy(current, table.id, policy, operation_id=wanted.id, now_us=time.time_ns() // 1000)


def _check(wanted: Wanted) -> None:
    """Check that what is given is what the kind of operation takes.

    Raises:
        RequestError: not.
    """
    takes_nodes = wanted.kind not in ("rebalance", "zones", "split", "policy")
    if takes_nodes != bool(wanted.nodes):
        raise RequestError(f"{wanted.kind} takes {'the nodes that it is for' if takes_nodes else 'no nodes'}")
    if len(set(wanted.nodes)) < len(wanted.nodes):
        raise RequestError("a node is named twice")
    if (wanted.kind == "replace") != bool(wanted.by):
        raise RequestError("replace needs --by, the node that takes the place, and nothing else takes it")
    if wanted.kind == "replace" and len(wanted.nodes) != 1:
        raise RequestError("replace takes one node and the one that takes its place")
    if (wanted.kind == "zones") != bool(wanted.zones):
        raise RequestError("zones takes NODE=ZONE, and nothing else takes it")
    if (wanted.kind == "policy") != bool(wanted.table):
        raise RequestError("policy takes a table, and nothing else takes it")
    if (wanted.kind == "policy") != bool(wanted.policy):
        raise RequestError("say what of the policy is to be otherwise: replicas, data centres or zones")
    unknown = wanted.policy.keys() - _POLICY_PARTS
    if unknown:
        raise RequestError(f"a policy has no {min(unknown)}: how a table is kept otherwise stays as it was made")
    if wanted.kind == "weights" and wanted.weight is None:
        raise RequestError("move needs --weight, a number of 0 or more")
    if wanted.weight is not None and wanted.kind not in ("join", "weights"):
        raise RequestError(f"{wanted.kind} takes no weight")
    if wanted.kind == "join" and wanted.weight is not None and not wanted.weight > 0:
        raise RequestError("nodes join with a weight above 0")


def _decoded(body: bytes) -> Wanted:
    try:
        return _WANTED.decode(body)
    except msgspec.MsgspecError as error:
        raise RequestError(f"the body makes no sense: {error}") from None


def _deadline() -> float:
    return asyncio.get_running_loop().time() + CHANGE_TIMEOUT_S


def _answer(status: int, content: object) -> Response:
    return Response(status, _JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))
