"""What a replica tells of a row to whoever asks for keys alone: which version of it, and until when there is a value.

Replicas that tell the same hold the same. Where they differ, it takes a read of the row to know.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from merganser.core.crdt import reading
from merganser.model.cluster import Conflicts
from merganser.model.row import Row

FOREVER_S: Final = 2**64 - 1
_BRIEF = struct.Struct(">QQ")


def brief(fingerprint: int, until_s: int) -> bytes:
    """Return what is told of a row.

    Args:
        fingerprint: of the row as it is stored (`core.hash_tree`).
        until_s: as `lasts_until_s` has it.
    """
    return _BRIEF.pack(fingerprint, until_s)


def lasts_until_s(row: Row, conflicts: Conflicts) -> int:
    """Return from when on nothing of ``row`` can be read, in seconds since 1970: 0 if nothing can be now.

    Args:
        row: of a table without leaders.
        conflicts: what becomes of them in that table.
    """
    if conflicts == "crdt":
        return FOREVER_S if reading.is_there(row) else 0
    ends = [
        FOREVER_S if cell.expires_at_s is None else max(0, cell.expires_at_s)
        for cell in row.cells
        if cell.value is not None
    ]
    return max(ends, default=0)


def is_there(told: Collection[bytes | None], now_s: int) -> bool | None:
    """Tell whether a row reads as anything at ``now_s``, by what replicas have told of it; None: they differ.

    Args:
        told: briefs, None of a replica that does not hold the row.
        now_s: seconds since 1970.
    """
    distinct = set(told)
    if len(distinct) != 1:
        return None
    (one,) = distinct
    return one is not None and int(_BRIEF.unpack(one)[1]) > now_s
