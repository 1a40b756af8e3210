"""A page of the registers that a leader holds, as of one turn of the loop."""

from __future__ import annotations

from merganser.model.errors import CorruptionError
from merganser.model.leader_messages import ReadRangeLed
from merganser.model.register import Register
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register


def page_of(
    engine: Engine, request: ReadRangeLed, *, end: bytes
) -> tuple[list[tuple[bytes, Register]], bytes | None, bytes | None]:
    """Return keys and registers from the start of ``request`` up to ``end``, in its order and within its bounds.

    Returns:
        the page, at least one register if there is any; where it goes on, None: at ``end``, or nowhere; and the key of
        a damaged register, at which it stops.

    Raises:
        CorruptionError: the engine cannot read on.
    """
    page: list[tuple[bytes, Register]] = []
    bytes_left = request.bytes_max
    for key, stored in engine.scan(request.start, end, reverse=request.reverse):
        if page and (len(page) >= request.rows_max or bytes_left <= 0):
            return page, page[-1][0] if request.reverse else key, None
        try:
            page.append((key, decode_register(key, stored)))
        except CorruptionError:
            return page, None, key
        bytes_left -= len(key) + len(stored)
    return page, None, None
