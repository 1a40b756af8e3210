"""Counters that count each update once, however often it is sent, can be reset, and forget who has counted.

Whoever counts does so in a *chain*: one writer, its *session*, whose cell says how much it has counted altogether, so
that a later cell of a chain contains the earlier ones, and a copy too many changes nothing::

    chain of session s   [1: +5] -> [2: +7] -> [3: +7 -2]      tally: how many updates, sum up, sum down
    floor                              2: +7                   what a reset had seen of the chain
    the chain's part                                           the last cell less the floor: -2

A *reset* keeps for each chain how far it had seen it, and takes no cell away: what it had not seen still counts. Of
several cells, or floors, of one chain the furthest counts.

A session ends at a time that is part of its name, and has no event after it. So once the horizon of a replica
(`core.horizon`) has passed that, the replica holds the chain's last cell, and so does everyone else. Then it *folds*
all chains that have ended into one cell, the base, which says up to which end it contains all chains. Of two bases the
one that goes further contains the other, and all chains that have ended by then. The base is one of the cells that it
was made of, with a value that outranks what the cell had before, so that a merge with somebody who has not folded yet
ends in the base. Replicas that know all about the time of that cell take a copy of it all the same (`is_base`), because
the copy says of the other cells that they are gone. Which cell that is, and what it says, follows from the chains
alone, and so replicas fold alike. What a reset had seen of chains that are in the base by now still counts against it.

So a counter takes one cell for each session that has not ended, one for all others, and one for its resets. The last
two stay behind of a counter that is not there any more: what it has counted must not come back with a late copy.

An update with an id (`crdt.OperationId`) leaves behind, in the row, how far its session has come (`made`), until that
has ended: whoever is asked to make it again, sees that it was made. Who makes an update under an id must have read
all acknowledged ones before (R + W > N), or the chain would be continued from too early a cell.

Invariants: cells of chains are replaced by later cells of their own chain, and by folding, never by resets; no other
cell has the dot of a chain's cell; a chain's tally is a function of how many updates are in it.

Source: Shapiro 2011 §3.1 (PN-Counter); Almeida, Baquero 2013, "Scalable Eventually Consistent Counters over Unreliable
Networks" (actors that come and go); Baquero, Almeida, Lerche 2016, "The problem with embedded CRDT counters and a
solution"; Kafka KIP-98 (producer id and sequence number).
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from merganser.core import causal_rows
from merganser.core.crdt import types
from merganser.model import crdt
from merganser.model.crdt import OperationId, Session
from merganser.model.errors import RequestError
from merganser.model.row import Cell

CHAINS_MAX = 4096
"""Of one counter, 90 bytes each, until they end and are folded: clients that count for long keep their session."""
SESSION_S_MAX = 86_400

_CHAIN, _FLOORS = b"\x01", b"\x00"
_SESSION = struct.Struct(">QIQ")
_CHECKSUM = struct.Struct(">I")
_SEQUENCE = struct.Struct(">Q")
_COUNT_TAGS = frozenset((types.TAGS[crdt.COUNTER], types.TAGS[crdt.GROW_COUNTER]))
_WAY_OUT = "open a session, and give its name, a colon and the number of the update, from 1 on"


class Tally(NamedTuple):
    """What a chain has counted; the further one compares greater."""

    updates: int = 0
    up: int = 0
    down: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.updates + other.updates, self.up + other.up, self.down + other.down)

    def less(self, other: Tally) -> Tally:
        """Return what is left without ``other``, which is contained in it."""
        return Tally(self.updates - other.updates, self.up - other.up, self.down - other.down)


class Base(NamedTuple):
    """All chains that have ended by ``ends_us``; the further one compares greater."""

    ends_us: int = 0
    tally: Tally = Tally()


class Floors(NamedTuple):
    """What resets have seen."""

    base: Base
    chains: Mapping[Session, Tally]


NOTHING = Tally()
_BASE = Base()
_NO_FLOORS = Floors(_BASE, {})


class State:
    """What the cells of one counter say together."""

    __slots__ = ("base", "chains", "floors")

    def __init__(self, begin: bytes, cells: Iterable[Cell]) -> None:
        """Read ``cells``, those of the counter whose paths begin with ``begin``."""
        self.chains: dict[Session, Tally] = {}
        self.base = _BASE
        self.floors = _NO_FLOORS
        for cell in cells:
            session = _session_at(begin, cell)
            if session is None:
                self.floors = _both(self.floors, _decode_floors(cell.value or b""))
                continue
            base = _decode(cell.value or b"")
            if base.ends_us:
                self.base = max(self.base, base)
            else:
                self.chains[session] = max(self.chains.get(session, NOTHING), base.tally)
        self.base = max(self.base, self.floors.base)

    def tally_of(self, session: Session) -> Tally:
        """Return how far the chain of ``session`` has come, as far as this is known."""
        return max(self.chains.get(session, NOTHING), self.floors.chains.get(session, NOTHING))

    def total(self) -> Tally:
        """Return what is counted: of no updates, there is no counter."""
        total = self.base.tally.less(self.floors.base.tally)
        for session, tally in self.chains.items():
            if session.ends_us > self.base.ends_us:
                floor = self.floors.chains.get(session, NOTHING)
                total = total.plus(max(tally, floor).less(floor))
        for session, floor in self.floors.chains.items():
            if self.floors.base.ends_us < session.ends_us <= self.base.ends_us:
                total = total.less(floor)
        return total

    def seen(self) -> Floors:
        """Return the floors of a reset that has seen all of this."""
        live = {*self.chains, *self.floors.chains}
        return Floors(self.base, {one: self.tally_of(one) for one in live if one.ends_us > self.base.ends_us})


def is_counter(tag: int) -> bool:
    """Tell whether values with this tag are counters."""
    return tag in _COUNT_TAGS


def counter_of(cell: Cell) -> bytes | None:
    """Return how the paths of the counter begin that a cell belongs to; None: it is of something else."""
    path, at = causal_rows.path_of(cell), 0
    while path[at] == types.TAGS[crdt.MAP]:
        _, at = types.split_field(path, at + 1)
    return path[: at + 1] if path[at] in _COUNT_TAGS else None


def path_of_chain(begin: bytes, session: Session) -> bytes:
    """Return the path of a chain's cell."""
    return begin + _CHAIN + _SESSION.pack(*session)


def is_of(cell: Cell, session: Session) -> bool:
    """Tell whether a cell is one of a chain of ``session``."""
    begin = counter_of(cell)
    return begin is not None and _session_at(begin, cell) == session


def is_base(cell: Cell) -> bool:
    """Tell whether a cell stands for chains that have ended, and have no cells of their own any more."""
    if not types.of_cell(cell):
        return False
    begin = counter_of(cell)
    return begin is not None and _session_at(begin, cell) is not None and _decode(cell.value or b"").ends_us > 0


def path_of_floors(begin: bytes) -> bytes:
    """Return the path of the cells of resets."""
    return begin + _FLOORS


def encode(tally: Tally, ends_us: int = 0) -> bytes:
    """Return the value of a chain's cell, or, with an end, of a base: the further one is greater."""
    return _SEQUENCE.pack(ends_us) + _SEQUENCE.pack(tally.updates) + tally.up.to_bytes(16) + tally.down.to_bytes(16)


def encode_floors(floors: Floors) -> bytes:
    """Return the value of a reset's cell."""
    parts = [encode(floors.base.tally, floors.base.ends_us)]
    parts += [_SESSION.pack(*session) + encode(tally) for session, tally in sorted(floors.chains.items())]
    return b"".join(parts)


# Sessions


def token_of(session: Session) -> str:
    """Return the name of a session, as clients have it."""
    raw = _SESSION.pack(*session)
    return base64.urlsafe_b64encode(_CHECKSUM.pack(zlib.crc32(raw)) + raw).decode()


def id_of(session: Session, sequence: int) -> str:
    """Return the id of an update, as clients give it."""
    return f"{token_of(session)}:{sequence}"


def parse_id(text: str) -> OperationId:
    """Return the id that a client gives.

    Raises:
        RequestError: it is none.
    """
    token, _, number = text.rpartition(":")
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    is_number = number.isascii() and number.isdigit() and len(number) <= 18 and int(number) > 0
    if len(raw) != _CHECKSUM.size + _SESSION.size or not is_number:
        raise RequestError(f"{text[:80]!r} is no id of an update: {_WAY_OUT}")
    if _CHECKSUM.unpack_from(raw)[0] != zlib.crc32(raw[_CHECKSUM.size :]):
        raise RequestError(f"the session in {text[:80]!r} was changed on its way: {_WAY_OUT}")
    return OperationId(Session(*_SESSION.unpack_from(raw, _CHECKSUM.size)), int(number))


def made_path(session: Session) -> bytes:
    """Return the path of the cells that say which updates of a session have been made."""
    return bytes((types.SESSIONS,)) + _SESSION.pack(*session)


def made_value(sequence: int) -> bytes:
    """Return the value of such a cell."""
    return _SEQUENCE.pack(sequence)


def made_expires_at_s(session: Session) -> int:
    """Return when such a cell is not needed any more."""
    return session.ends_us // 1_000_000 + 1


def made(cells: Iterable[Cell], session: Session) -> int:
    """Return the number of the last update of ``session`` that has been made, 0 for none."""
    found = types.shared(cells, made_path(session))
    return max((int(_SEQUENCE.unpack(cell.value or b"")[0]) for cell in found), default=0)


# Folding


def folded(cells: tuple[Cell, ...], horizon_us: int) -> tuple[Cell, ...]:
    """Return the cells of a row of which all is known up to ``horizon_us``, with chains that have ended as one.

    The same object if there is nothing to do. No value changes.
    """
    if not cells or not types.of_cell(cells[0]):
        return cells
    counters: dict[bytes, list[Cell]] = {}
    for cell in cells:
        begin = counter_of(cell)
        if begin is not None:
            counters.setdefault(begin, []).append(cell)
    changes: dict[bytes, Cell | None] = {}
    for begin, held in counters.items():
        changes |= _fold(begin, held, horizon_us)
    if not changes:
        return cells
    kept = [changes.get(cell.name, cell) for cell in cells]
    return tuple([cell for cell in kept if cell is not None])


def _fold(begin: bytes, cells: Sequence[Cell], horizon_us: int) -> dict[bytes, Cell | None]:
    """Return what takes the place of which cells of one counter."""
    ended: list[Cell] = []
    for cell in cells:
        session = _session_at(begin, cell)
        if session is not None and session.ends_us <= horizon_us:
            ended.append(cell)
    if not ended:
        return {}
    state = State(begin, cells)
    base = state.base
    for session in {*state.chains, *state.floors.chains}:
        if state.base.ends_us < session.ends_us <= horizon_us:
            base = Base(max(base.ends_us, session.ends_us), base.tally.plus(state.tally_of(session)))
    last = max(ended, key=causal_rows.dot_of)
    changes: dict[bytes, Cell | None] = {cell.name: None for cell in ended}
    value = encode(base.tally, base.ends_us)
    if last.value == value:
        del changes[last.name]
    else:
        changes[last.name] = Cell(last.name, last.written_at, value)
    return changes


def _both(a: Floors, b: Floors) -> Floors:
    chains = dict(a.chains)
    for session, tally in b.chains.items():
        chains[session] = max(chains.get(session, NOTHING), tally)
    return Floors(max(a.base, b.base), chains)


def _decode(value: bytes) -> Base:
    return Base(
        _SEQUENCE.unpack_from(value)[0],
        Tally(_SEQUENCE.unpack_from(value, 8)[0], int.from_bytes(value[16:32]), int.from_bytes(value[32:48])),
    )


_TALLY_BYTES = len(encode(NOTHING))


def _decode_floors(value: bytes) -> Floors:
    base = _decode(value[:_TALLY_BYTES])
    chains = {}
    for at in range(_TALLY_BYTES, len(value), _SESSION.size + _TALLY_BYTES):
        after = at + _SESSION.size
        chains[Session(*_SESSION.unpack_from(value, at))] = _decode(value[after : after + _TALLY_BYTES]).tally
    return Floors(base, chains)


def _session_at(begin: bytes, cell: Cell) -> Session | None:
    """Return whose chain a cell of a counter belongs to; None: it is one of a reset."""
    at = len(begin)
    if cell.name[at : at + 1] == _FLOORS:
        return None
    return Session(*_SESSION.unpack_from(cell.name, at + 1))
