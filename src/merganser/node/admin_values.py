"""Tables of keys and values over the admin port (`merganser put` and so on): all POST, all with the admin header.

::

    /values/create?table=T[&n=3][&conflicts=siblings][&replicas=eu=3,us=2][&data_centers=eu,us][&zones=a,b]
    /values/drop?table=T
    /values/tables[?from=T][&limit=1000]
    /values/get?table=T&key=K[&consistency=QUORUM]
    /values/put?table=T&key=K[&context=C][&ttl_s=S][&if=not_modified][&consistency=QUORUM]    the value is the body
               [&content_type=…][&metadata={"name": "text"}][&tags=[["name", 5], ["name", "text"]]][&client=…]
    /values/delete?table=T&key=K[&context=C][&if=not_modified][&consistency=QUORUM]
    /values/keys?table=T[&prefix=P][&from=R][&limit=1000][&consistency=QUORUM]
    /values/find?table=T&tag=N&value=5[&limit=1000][&from=R][&consistency=QUORUM]
    /values/find?table=T&tag=N[&low="a"][&high="b"][&integer=true][&limit=1000][&from=R][&consistency=QUORUM]
    /values/update?table=T&key=K[&id=SESSION:1][&context=C][&consistency=QUORUM]    operations, `node.admin_crdts`
    /values/session?table=T[&life_s=3600]

A context longer than a request line may be goes before the body: ``context_bytes=N`` in place of ``context=C`` says how
long it is, to ``put``, ``delete`` and ``update``.

``get`` tells all siblings, who wrote them and when, and the context to put with; ``put`` and ``delete`` tell the
context to put with next. ``keys`` tells a page of the keys that can be read, in the order of the ring, and where the
next page is ``from``, if there is one; a page may be empty and not the last. ``find`` tells keys by a tag of their
values, in the order of the tag, both bounds included; of a range of no bounds ``integer`` tells which tags are meant.

Keys are any bytes, percent-encoded. A key or value that is no UTF-8 goes out as base64. Consistency is what
`core.levels.asked_for` reads. 400 says what was wrong with the request, 412 that what ``if`` asks for is
not so, 503 that nothing was written, and 504 that it is unknown whether it was.
"""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl

import orjson

from merganser.core import levels, policies
from merganser.core.causality import CONTEXT_BYTES_MAX
from merganser.core.crdt import counters
from merganser.core.crdt.types import RESET
from merganser.model.cluster import KEY_VALUE_WIRE, Conflicts, Table
from merganser.model.consistency import Consistency, ReadLevel, WriteLevel
from merganser.model.crdt import ANY, Operation
from merganser.model.errors import MerganserError, PreconditionFailedError, RequestError, UnknownOutcomeError
from merganser.model.policy import Policy
from merganser.net.http import Request, Response
from merganser.node import admin_crdts
from merganser.node.admin_contents import ABOUT, as_json, condition_of, content_of, tag_as_json, tag_value, told
from merganser.service.member import Member
from merganser.service.value_rules import LIMIT_MAX, REPLICAS_MAX, TTL_S_MAX, check_table_name, row_key

PREFIX: Final = b"/values/"
WIRE: Final = KEY_VALUE_WIRE
CONFLICTS: Final[dict[str, Conflicts]] = {"siblings": "siblings", "lww": "lww", "crdt": "crdt"}
REPLICAS: Final = 3
MAP_TIMEOUT_S: Final = 10.0
TIMEOUT_S: Final = 5.0

_JSON = [(b"content-type", b"application/json")]
_NAMES: Final[dict[bytes, frozenset[str]]] = {
    b"create": frozenset(("table", "n", "conflicts", "replicas", "data_centers", "zones")),
    b"drop": frozenset(("table",)),
    b"tables": frozenset(("from", "limit")),
    b"get": frozenset(("table", "key", "consistency")),
    b"put": ABOUT | {"table", "key", "context", "context_bytes", "ttl_s", "if", "consistency"},
    b"delete": frozenset(("table", "key", "context", "context_bytes", "if", "consistency")),
    b"find": frozenset(("table", "tag", "value", "low", "high", "integer", "from", "limit", "consistency")),
    b"update": frozenset(("table", "key", "id", "context", "context_bytes", "consistency")),
    b"session": frozenset(("table", "life_s")),
    b"keys": frozenset(("table", "prefix", "from", "limit", "consistency")),
}

_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})[^&]{0,2}")

Query = dict[str, str]
"""Values in Latin-1, so that every byte is a character."""


async def answer(member: Member, request: Request) -> Response:
    """Do what a request below `PREFIX` asks for; whoever hands it on has seen to the header."""
    path, _, text = request.path.partition(b"?")
    name = path[len(PREFIX) :]
    action = _ACTIONS.get(name)
    if action is None:
        there = ", ".join(one.decode() for one in _ACTIONS)
        return _answer(404, {"error": f"there is no such thing; below /values/ there are {there}"})
    try:
        return _answer(200, await action(member, *_with_context(_query(name, text), request.body)))
    except PreconditionFailedError as error:
        return _answer(412, {"error": str(error)})
    except RequestError as error:
        return _answer(400, {"error": str(error)})
    except UnknownOutcomeError as error:
        return _answer(504, {"error": str(error)})
    except MerganserError as error:
        return _answer(503, {"error": str(error)})


async def _create(member: Member, query: Query, _body: bytes) -> object:
    name = _table_name(query)
    policy = _policy(query)
    conflicts = CONFLICTS.get(query.get("conflicts", "siblings"))
    if conflicts is None:
        raise RequestError(f"conflicts is {' or '.join(CONFLICTS)}, not {query['conflicts']!r:.80}")
    table = await member.catalog.create_table(
        wire=WIRE,
        name=name,
        policy=policy,
        definition=b"",
        unique_id=uuid.uuid4().hex,
        conflicts=conflicts,
        deadline=_in(MAP_TIMEOUT_S),
    )
    where = str(policy) if policy.is_bound else ""
    return {"table": table.name, "n": table.n, "conflicts": table.conflicts, "policy": where}


async def _drop(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    await member.catalog.drop_table(table, deadline=_in(MAP_TIMEOUT_S))
    return {}


async def _tables(member: Member, query: Query, _body: bytes) -> object:
    limit = _number(query, "limit", LIMIT_MAX, low=1, high=LIMIT_MAX)
    there = sorted((table for table in member.topology.map.tables if table.wire == WIRE), key=lambda table: table.name)
    left = [table for table in there if table.name >= _text(query, "from")]
    found = [{"table": table.name, "n": table.n, "conflicts": table.conflicts} for table in left[:limit]]
    return {"tables": found, "from": left[limit].name if len(left) > limit else None}


async def _get(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    _, level = _levels(query, table)
    if table.conflicts == "crdt":
        read = await member.crdt_values.get(table, _key(table, query), level=level, deadline=_in(TIMEOUT_S))
        return {"values": [admin_crdts.told(shown) for shown in read.values], "context": read.context.decode()}
    found = await member.key_values.get(table, _key(table, query), level=level, deadline=_in(TIMEOUT_S))
    values = [told(sibling) for sibling in found.siblings]
    return {"values": values, "context": found.context.decode()}


async def _put(member: Member, query: Query, body: bytes) -> object:
    table = await _table(member, query)
    ttl_s = _number(query, "ttl_s", 0, low=1, high=TTL_S_MAX)
    write_level, read_level = _levels(query, table)
    context = await member.key_values.put(
        table,
        _key(table, query),
        content_of(body, query),
        context=query.get("context", "").encode("latin-1"),
        expires_at_s=member.coordinator.wall_us() // 1_000_000 + ttl_s if ttl_s else None,
        only_if=condition_of(query),
        read_level=levels.before_writing(read_level),
        level=write_level,
        deadline=_in(TIMEOUT_S),
    )
    return {"context": context.decode()}


async def _update(member: Member, query: Query, body: bytes) -> object:
    table = await _table(member, query)
    return {"made": await _updated(member, table, query, admin_crdts.operations_of(body))}


async def _updated(member: Member, table: Table, query: Query, operations: list[Operation]) -> bool:
    write_level, read_level = _levels(query, table)
    return await member.crdt_values.update(
        table,
        _key(table, query),
        operations,
        update=counters.parse_id(query["id"]) if "id" in query else None,
        context=query["context"].encode("latin-1") if "context" in query else None,
        level=write_level,
        read_level=levels.before_writing(read_level),
        deadline=_in(TIMEOUT_S),
    )


async def _open_session(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    life_s = _number(query, "life_s", admin_crdts.SESSION_S, low=1, high=counters.SESSION_S_MAX)
    session = await member.crdt_values.open_session(table, b"", life_s=life_s, deadline=_in(TIMEOUT_S))
    return {"session": counters.token_of(session), "ends_at_us": session.ends_us}


async def _delete(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    if table.conflicts == "crdt":
        if "if" in query:
            raise RequestError("values that merge themselves are deleted as far as they were seen, on no condition")
        return {"made": await _updated(member, table, query, [Operation(ANY, RESET)])}
    write_level, read_level = _levels(query, table)
    context = await member.key_values.delete(
        table,
        _key(table, query),
        context=query.get("context", "").encode("latin-1"),
        only_if=condition_of(query),
        read_level=levels.before_writing(read_level),
        level=write_level,
        deadline=_in(TIMEOUT_S),
    )
    return {"context": context.decode()}


async def _keys(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    page = await member.key_lists.page(
        table,
        resume=_token(query),
        prefix=query.get("prefix", "").encode("latin-1"),
        most=_number(query, "limit", LIMIT_MAX, low=1, high=LIMIT_MAX),
        level=_levels(query, table)[1],
        deadline=_in(TIMEOUT_S),
    )
    resume = None if page.resume is None else base64.urlsafe_b64encode(page.resume).decode()
    return {"keys": [as_json(key) for key in page.keys], "from": resume}


async def _find(member: Member, query: Query, _body: bytes) -> object:
    table = await _table(member, query)
    bounds = {name: tag_value(query[name]) for name in ("value", "low", "high") if name in query}
    if "value" in bounds and len(bounds) > 1:
        raise RequestError("value is exact: leave it out, or low and high")
    if query.get("integer", "false") not in ("true", "false"):
        raise RequestError(f"integer is true or false, not {query['integer']!r:.80}")
    page = await member.tag_queries.find(
        table,
        _text(query, "tag"),
        low=bounds.get("value", bounds.get("low")),
        high=bounds.get("value", bounds.get("high")),
        is_integer=any(isinstance(bound, int) for bound in bounds.values()) or query.get("integer") == "true",
        resume=_token(query),
        most=_number(query, "limit", LIMIT_MAX, low=1, high=LIMIT_MAX),
        level=_levels(query, table)[1],
        deadline=_in(TIMEOUT_S),
    )
    found = [{"key": as_json(one.key), "value": tag_as_json(one.value)} for one in page.found]
    return {"found": found, "from": None if page.resume is None else base64.urlsafe_b64encode(page.resume).decode()}


_ACTIONS: Final[dict[bytes, Callable[[Member, Query, bytes], Awaitable[object]]]] = {
    b"create": _create,
    b"drop": _drop,
    b"tables": _tables,
    b"get": _get,
    b"put": _put,
    b"delete": _delete,
    b"find": _find,
    b"update": _update,
    b"session": _open_session,
    b"keys": _keys,
}


def _levels(query: Query, table: Table) -> tuple[WriteLevel, ReadLevel]:
    """Return the levels to write at, and to read; raises as `levels.asked_for`."""
    return levels.asked_for(query.get("consistency", Consistency.QUORUM.value), table)


def _query(action: bytes, text: bytes) -> Query:
    """Read a query; raises a RequestError for what the action does not know, is told twice, or is not encoded."""
    broken = _BROKEN.search(text)
    if broken is not None:
        name = text[: broken.start()].rpartition(b"&")[2].partition(b"=")[0].decode("latin-1")
        cut = broken.group().decode("latin-1")
        raise RequestError(
            f"{name or 'a name'}: {cut!r} is no percent-encoded byte: write two hex digits, and % as %25"
        )
    pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    query = dict(pairs)
    unknown = sorted(query.keys() - _NAMES[action])
    if unknown:
        there = ", ".join(sorted(_NAMES[action]))
        raise RequestError(f"unknown: {', '.join(unknown)}; {action.decode()} takes {there}")
    if len(query) < len(pairs):
        raise RequestError("something is there twice")
    return query


def _with_context(query: Query, body: bytes) -> tuple[Query, bytes]:
    """Return a query and a body with the context in the query, where the body had it; raises a RequestError."""
    if "context_bytes" not in query:
        return query, body
    if "context" in query:
        raise RequestError("context and context_bytes exclude each other: the context is in the query or in the body")
    size = _number(query, "context_bytes", 0, low=0, high=CONTEXT_BYTES_MAX)
    if size > len(body):
        raise RequestError(f"context_bytes is {size}, and the body has {len(body)} bytes: it begins with the context")
    return {**query, "context": body[:size].decode("latin-1")}, body[size:]


def _text(query: Query, name: str) -> str:
    try:
        return query.get(name, "").encode("latin-1").decode()
    except UnicodeDecodeError:
        raise RequestError(f"{name} must be UTF-8") from None


def _table_name(query: Query) -> str:
    name = _text(query, "table")
    check_table_name(name)
    return name


def _policy(query: Query) -> Policy:
    """Return how many replicas a table is to have, and where."""
    n = _number(query, "n", REPLICAS, low=1, high=REPLICAS_MAX)
    texts = {name: query.get(name, "").encode("latin-1") for name in ("replicas", "data_centers", "zones")}
    try:
        return policies.parsed(n=n, **{name: text.decode() for name, text in texts.items()})
    except ValueError as error:
        raise RequestError(str(error)) from None


async def _table(member: Member, query: Query) -> Table:
    return await member.catalog.table(WIRE, _table_name(query), deadline=_in(MAP_TIMEOUT_S))


def _key(table: Table, query: Query) -> bytes:
    return row_key(table, query.get("key", "").encode("latin-1"))


def _token(query: Query) -> bytes | None:
    """Return where the page before ended; raises a RequestError if none ended so."""
    given = query.get("from")
    if given is None:
        return None
    try:
        return base64.b64decode(given.encode("latin-1"), altchars=b"-_", validate=True)
    except ValueError:
        raise RequestError("from must be what the page before told; leave it out to begin anew") from None


def _number(query: Query, name: str, default: int, *, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise RequestError(f"{name} must be a number from {low} to {high}, not {text[:40]!r}")
    return int(text)


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _answer(status: int, content: object) -> Response:
    return Response(status, _JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))
