"""What an error that a node answers with means to a client: what it raises, and whether another node may be asked.

::

    not sent; or the node says that nothing was done   another node may be asked, whatever the request
    it may have been done: no answer, "unknown"        another node is asked to read; a write is `UnknownOutcomeError`
    the request is wrong                               raised as the class that the node has raised
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from merganser.core.wholeness import NOTHING_WRITTEN
from merganser.model import errors
from merganser.model.client_messages import NOT_FOR_CLIENTS
from merganser.model.errors import (
    MerganserError,
    OverloadedError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    TransactionCanceledError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.net.transport import refusal_code

FRESH: Final = "fresh_node"
"""What a node answers that is no member of a cluster yet."""


class SiblingsError(RequestError):
    """A key has several values, and there is no merge function to make one of them."""


class WrongTypeError(RequestError, TypeError):
    """An argument is of a wrong type; nothing was sent."""


class ClosedError(RequestError):
    """The client is closed, or was never opened."""


def _and_below(kind: type[MerganserError]) -> Iterator[type[MerganserError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _and_below(below)


_WRONG: Final[dict[str, type[MerganserError]]] = {
    refusal_code(kind("")): kind
    for kind in _and_below(RequestError)
    if kind.__module__ == errors.__name__ and kind is not TransactionCanceledError
}
_WRONG[NOT_FOR_CLIENTS] = RequestError
"""The classes that say that the request is wrong, by the code that a node answers."""

_NOTHING_DONE: Final = frozenset(
    (FRESH, *NOTHING_WRITTEN, refusal_code(UnavailableError()), refusal_code(OverloadedError()))
)
"""All others, those of later releases among them, leave the outcome of a write unknown."""


def wrong_request(error: MerganserError) -> MerganserError | None:
    """Return what to raise if ``error`` says that the request is wrong, None if it does not."""
    if not isinstance(error, RefusedError):
        return None
    kind = _WRONG.get(error.code)
    return None if kind is None else kind(str(error))


def did_nothing(error: MerganserError) -> bool:
    """Tell whether a request that failed so has certainly not been done."""
    if isinstance(error, RefusedError):
        return error.code in _NOTHING_DONE
    return isinstance(error, PeerUnreachableError)


def unknown(error: MerganserError) -> UnknownOutcomeError:
    """Return what a write comes to that may have been done."""
    return UnknownOutcomeError(f"{error}; it may have been written, now or later: read the key")


def unavailable(tried: int, last: MerganserError | None, *, is_write: bool) -> UnavailableError:
    """Return what a request comes to that no node has done; of a read there is no need to say that nothing was."""
    if isinstance(last, RefusedError) and last.code == refusal_code(OverloadedError()):
        return OverloadedError(str(last))
    why = "there was no time to ask any node" if last is None else f"of {tried} attempts the last failed: {last}"
    return UnavailableError(f"{why}; nothing was written" if is_write else why)
