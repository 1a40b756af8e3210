"""What the admin port does for snapshots (`merganser snapshot`); all of it is POST and needs the admin header.

Making one, on each node::

    /snapshot/flush                             so that the checkpoint is quick
    /snapshot/stand-still?token=T&seconds=S     nothing is removed, no transaction committed (`service.standstill`)
    /snapshot/take?id=I&token=T                 the checkpoint; refused unless that standstill is still on
    /snapshot/go-on?token=T
    /snapshot/checksum?id=I&file=F&rate=BYTES   and
    /snapshot/read?id=I&file=F&offset=O&size=S  fetch it
    /snapshot/drop?id=I

Restoring one, on any node (`service.restored_rows`); bodies are msgpack::

    /snapshot/tables                            makes the hidden tables
    /snapshot/rows?table=N&crc=C                puts a chunk of rows
    /snapshot/reveal                            gives the tables their names
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qs

import msgspec
import orjson

from merganser.core.index_tables import is_index
from merganser.model.errors import CorruptionError, MerganserError, RequestError
from merganser.model.ids import TableId
from merganser.model.snapshot import WantedTable
from merganser.net.http import Request, Response
from merganser.node.checkpoints import Checkpoints, check_fit
from merganser.service.member import Member

PREFIX: Final = b"/snapshot/"
MAP_TIMEOUT_S: Final = 10.0
ROWS_TIMEOUT_S: Final = 60.0

_JSON = [(b"content-type", b"application/json")]
_BYTES = [(b"content-type", b"application/octet-stream")]
_WANTED = msgspec.msgpack.Decoder(list[WantedTable])
_ROWS = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])
_NAMES = msgspec.msgpack.Decoder(dict[int, str])

Query = dict[str, str]
T = TypeVar("T")


class SnapshotAdmin:
    """Answers requests below `PREFIX`; whoever hands them on has seen to the header."""

    def __init__(self, path: Path | None) -> None:
        """Keep checkpoints in ``path``; None: this node keeps nothing on a disk."""
        self._checkpoints = None if path is None else Checkpoints(path)
        self._actions: dict[bytes, Callable[[Member, Query, bytes], Awaitable[object]]] = {
            b"flush": self._flush,
            b"stand-still": self._stand_still,
            b"go-on": self._go_on,
            b"take": self._take,
            b"checksum": self._checksum,
            b"read": self._read,
            b"drop": self._drop,
            b"tables": self._tables,
            b"rows": self._rows,
            b"reveal": self._reveal,
        }

    def close(self) -> None:
        """Stop looking after checkpoints."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    async def answer(self, member: Member, request: Request) -> Response:
        """Do what is asked for."""
        path, _, query = request.path.partition(b"?")
        action = self._actions.get(path[len(PREFIX) :])
        if action is None:
            there = ", ".join(name.decode() for name in self._actions)
            return _answer(404, {"error": f"there is no such thing; below /snapshot/ there are {there}"})
        try:
            parsed = parse_qs(query.decode(errors="replace"), keep_blank_values=True)
            found = await action(member, {name: values[-1] for name, values in parsed.items()}, request.body)
        except RequestError as error:
            return _answer(400, {"error": str(error)})
        except MerganserError as error:
            return _answer(503, {"error": str(error)})
        return Response(200, _BYTES, found) if isinstance(found, bytes) else _answer(200, found)

    @property
    def _kept(self) -> Checkpoints:
        if self._checkpoints is None:
            raise RequestError("this node keeps its data in memory only (--ephemeral), and has no files to copy")
        return self._checkpoints

    async def _flush(self, member: Member, _query: Query, _body: bytes) -> object:
        await check_fit(member).flush()
        return {}

    async def _stand_still(self, member: Member, query: Query, _body: bytes) -> object:
        check_fit(member)
        member.standstill.begin(_text(query, "token"), float(_number(query, "seconds")))
        return {}

    async def _go_on(self, member: Member, query: Query, _body: bytes) -> object:
        member.standstill.end(_text(query, "token"))
        return {}

    async def _take(self, member: Member, query: Query, _body: bytes) -> object:
        token, checkpoint, engine = _text(query, "token"), _text(query, "id"), check_fit(member)
        kept, standstill = self._kept, member.standstill
        if not standstill.is_of(token):
            raise RequestError("the standstill is over: the node has restarted, or it took too long")
        found = await kept.take(checkpoint, engine)
        if not standstill.is_of(token):
            await kept.drop(checkpoint)
            raise RequestError("the standstill was over before the checkpoint was there: it took too long")
        return {
            "node": member.topology.node,
            "number": member.topology.me.number,
            "map": msgspec.json.encode(found).decode(),
            "files": kept.files(checkpoint),
        }

    async def _checksum(self, _member: Member, query: Query, _body: bytes) -> object:
        rate = max(2**16, _number(query, "rate"))
        return {"sha256": await self._kept.checksum(_text(query, "id"), _text(query, "file"), bytes_per_s=rate)}

    async def _read(self, _member: Member, query: Query, _body: bytes) -> object:
        offset, size = _number(query, "offset"), _number(query, "size")
        return await self._kept.read(_text(query, "id"), _text(query, "file"), offset, size)

    async def _drop(self, _member: Member, query: Query, _body: bytes) -> object:
        await self._kept.drop(_text(query, "id"))
        return {}

    async def _tables(self, member: Member, _query: Query, body: bytes) -> object:
        wanted = _decoded(_WANTED, body)
        unique_ids = [str(uuid.uuid4()) for _ in wanted]
        tables = await member.restored_rows.make(wanted, unique_ids, deadline=_in(MAP_TIMEOUT_S))
        return {"ids": [table.id for table in tables]}

    async def _rows(self, member: Member, query: Query, body: bytes) -> object:
        if zlib.crc32(body) != _number(query, "crc"):
            raise CorruptionError("the rows were damaged on their way")
        rows = _decoded(_ROWS, body)
        table = TableId(_number(query, "table"))
        if member.topology.table(table) is None:
            await member.catalog.look_for_news()
        await member.restored_rows.put(table, rows, deadline=_in(ROWS_TIMEOUT_S))
        return {"rows": len(rows)}

    async def _reveal(self, member: Member, _query: Query, body: bytes) -> object:
        names = {TableId(number): name for number, name in _decoded(_NAMES, body).items()}
        revealed = await member.restored_rows.reveal(names, deadline=_in(MAP_TIMEOUT_S))
        return {"epoch": revealed.epoch, "tables": sum(not is_index(one) for one in revealed.tables)}


def _answer(status: int, content: object) -> Response:
    return Response(status, _JSON, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _text(query: Query, name: str) -> str:
    if not query.get(name):
        raise RequestError(f"{name} is missing")
    return query[name]


def _number(query: Query, name: str) -> int:
    text = _text(query, name)
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise RequestError(f"{name} must be a whole number, not {text[:20]!r}")
    return int(text)


def _decoded(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise RequestError(f"the body makes no sense: {error}") from None
