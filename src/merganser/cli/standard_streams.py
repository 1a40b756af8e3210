"""Standard input, output and error that whoever started this process has closed.

Their numbers are the lowest there are, so the next files and sockets would get them: libuv aborts when it is to close
one of those, and what a library prints would end up in a file of the database or at a peer.
"""

from __future__ import annotations

import os
from typing import Final

_NUMBERS: Final = (0, 1, 2)


def occupy_closed() -> None:
    """Have the null device stand in for those that are closed, before anything else is opened."""
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            else:
                os.set_inheritable(number, True)
