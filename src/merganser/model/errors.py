"""Errors, sorted by who can act. Each wire has one table from these to its own codes."""

from __future__ import annotations

from collections.abc import Sequence

from merganser.model.leadership import NO_EPOCH, Epoch
from merganser.model.transaction import Reason


class MerganserError(Exception):
    """Root of everything Merganser raises on purpose."""


class RequestError(MerganserError):
    """The client asked for something wrong; nothing was written."""


class ConfigurationError(MerganserError):
    """The operator asked for something wrong; nothing was started."""


class UnavailableError(MerganserError):
    """Too few replicas could be reached; nothing was written, try again."""


class OverloadedError(UnavailableError):
    """This node, or too many replicas, have more to do than they take on; nothing was written, try again later."""


class UnknownOutcomeError(MerganserError):
    """The request was sent on, but too few replicas answered: it may have happened, now or later."""


class CorruptionError(MerganserError):
    """Bytes from disk or from a peer are damaged; the other replicas have the value."""


class StorageFailedError(MerganserError):
    """The engine met a failed write or fsync and takes no more writes until the node restarts."""


class InvariantError(MerganserError):
    """Merganser broke a promise to itself; the node stops."""


class IndexExistsError(RequestError):
    """Another index of the table has the name; nothing was changed."""


class TransactionConflictError(RequestError):
    """Another transaction holds the item; nothing was written, try again."""


class TransactionCanceledError(RequestError):
    """The transaction has not happened and never will; ``reasons`` says why, by item."""

    def __init__(
        self, message: str, reasons: Sequence[Reason | None], answers: Sequence[bytes | None] | None = None
    ) -> None:
        """Keep what is known of each item, in the order of the request.

        Args:
            message: for people.
            reasons: None for an item that is not to blame.
            answers: of the steps on items that were locked, None for one that was not, or did not tell.
        """
        super().__init__(message)
        self.reasons = tuple(reasons)
        self.answers = (None,) * len(self.reasons) if answers is None else tuple(answers)


class PreconditionFailedError(RequestError):
    """What a put or delete was to depend on is not so; nothing was written. Read the key again."""


class SessionError(RequestError):
    """The session of an update has ended, or updates before it have not been made; nothing was written."""


class TransactionInProgressError(RequestError):
    """A transaction with the same token is under way; this one was not begun."""


class IdempotentParameterMismatchError(RequestError):
    """The token is that of another transaction; this one was not begun."""


class TableNotFoundError(RequestError):
    """No such table in the newest cluster map that could be found."""


class TableExistsError(RequestError):
    """A table of that name exists."""


class TableChangedError(RequestError):
    """The table is defined otherwise by now than the change was made for; nothing was changed."""


class ClockSkewError(MerganserError):
    """This node's clock and those of its peers are further apart than a bound allows."""


class PeerUnreachableError(MerganserError):
    """No connection to the peer; the request was not sent."""


class PeerBusyError(PeerUnreachableError):
    """As many requests as may wait for the peer do so already; this one was not sent."""


class PeerTooOldError(PeerUnreachableError):
    """The peer speaks a version that has no such request; it was not sent."""


class PeerLostError(MerganserError):
    """The connection broke, or the deadline passed, after the request was sent."""


class VersionError(ConfigurationError):
    """The cluster makes use of a version that this build does not speak."""


class RefusedError(MerganserError):
    """The peer answered that it will not do it."""

    def __init__(self, code: str, message: str, *, map_epoch: int = 0, epoch: Epoch = NO_EPOCH) -> None:
        """Keep the peer's code (see `messages.Refused`) and the epochs it knows, of the map and of its leader."""
        super().__init__(message)
        self.code = code
        self.map_epoch = map_epoch
        self.epoch = epoch
