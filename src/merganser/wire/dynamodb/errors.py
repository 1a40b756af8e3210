"""What DynamoDB clients are told when a request fails: one table from `model.errors` to DynamoDB's codes.

Everything the client can put right is an `ApiError` with DynamoDB's own type and text. The rest of
Merganser's errors are mapped by `fault_of`:

- OverloadedError: 400 ``ThrottlingException``. Of DynamoDB's three throttling errors the one that is not about
  capacity somebody bought (``ProvisionedThroughputExceededException``) or an account's quota
  (``RequestLimitExceeded``, which botocore's legacy mode does not retry). Every SDK retries it, and waits longer
  than after a 503.
- UnavailableError: 503 ``ServiceUnavailable``. Nothing was written; every SDK retries a 503.
- TransactionConflictError: 400 ``TransactionConflictException``. Nothing was written.
- UnknownOutcomeError: 500 ``InternalServerError``, and the message says that the outcome is unknown.
  SDKs retry it too, as they do with Amazon's; putting or deleting the same item again is harmless.
- anything else: 500 ``InternalServerError`` with DynamoDB's text, which names nothing of the inside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from merganser.model.errors import (
    IdempotentParameterMismatchError,
    OverloadedError,
    RequestError,
    TableExistsError,
    TableNotFoundError,
    TransactionConflictError,
    TransactionInProgressError,
    UnavailableError,
)
from merganser.model.errors import UnknownOutcomeError as OutcomeError

API = "com.amazonaws.dynamodb.v20120810#"
SERVICE = "com.amazon.coral.service#"
VALIDATION = "com.amazon.coral.validate#ValidationException"
SERIALIZATION = SERVICE + "SerializationException"
UNKNOWN_OPERATION = SERVICE + "UnknownOperationException"
RESOURCE_NOT_FOUND = API + "ResourceNotFoundException"
RESOURCE_IN_USE = API + "ResourceInUseException"
LIMIT_EXCEEDED = API + "LimitExceededException"
INTERNAL = API + "InternalServerError"
UNAVAILABLE = API + "ServiceUnavailable"
THROTTLING = API + "ThrottlingException"
TABLE_NOT_FOUND = API + "TableNotFoundException"
ACCESS_DENIED = SERVICE + "AccessDeniedException"
THROUGHPUT_EXCEEDED = API + "ProvisionedThroughputExceededException"
CONDITION_FAILED = API + "ConditionalCheckFailedException"
TRANSACTION_CONFLICT = API + "TransactionConflictException"
TRANSACTION_CANCELED = API + "TransactionCanceledException"
TRANSACTION_IN_PROGRESS = API + "TransactionInProgressException"
IDEMPOTENT_MISMATCH = API + "IdempotentParameterMismatchException"

CONFLICT_TEXT = "Transaction is ongoing for the item"

_CAPITALS = frozenset(
    (SERIALIZATION, ACCESS_DENIED, TRANSACTION_CANCELED, TRANSACTION_IN_PROGRESS, IDEMPOTENT_MISMATCH)
)

_OUTCOME_UNKNOWN = "The outcome of the request is unknown: it may or may not have been applied, now or later"
_INTERNAL_TEXT = "The request processing has failed because of an unknown error, exception or failure."


class ApiError(RequestError):
    """An error with DynamoDB's own type and text; status 400."""

    def __init__(self, kind: str, message: str = "", members: Mapping[str, Any] | None = None) -> None:
        """Keep the full ``__type``; an empty message is left out of the answer, as DynamoDB does.

        ``members`` is what else the answer says, ready for orjson.
        """
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.members: Mapping[str, Any] = members or {}


class ValidationError(ApiError):
    """The request is well formed and asks for something wrong."""

    def __init__(self, message: str) -> None:
        """Take DynamoDB's text."""
        super().__init__(VALIDATION, message)


DETECTED: Final = "1 validation error detected: "
_IS_DETECTED: Final = re.compile(r"\d+ validation errors? detected").match


def detected(error: RequestError) -> ValidationError:
    """Return what is said of an item to be written that is wrong by the request alone, whatever the table is.

    PutItem, UpdateItem and DeleteItem count such errors, as all operations do those of the API's model; transactions
    and reads do not. Source: the tests of moto 5.2.5 that are verified against AWS.

    Args:
        error: an `ApiError`, or one of `query`, whose message is whole.
    """
    message = str(error)
    return ValidationError(message if _IS_DETECTED(message) else DETECTED + message)


class SerializationError(ApiError):
    """The body is no JSON, or a member has another type than the API's."""

    def __init__(self, message: str = "") -> None:
        """Take DynamoDB's text, which is empty when the body is no JSON at all."""
        super().__init__(SERIALIZATION, message)


class NotFoundError(ApiError):
    """The table is not there."""

    def __init__(self, message: str = "Requested resource not found") -> None:
        """Take DynamoDB's text."""
        super().__init__(RESOURCE_NOT_FOUND, message)


class ThroughputExceededError(UnavailableError):
    """The table has no throughput left, and has asked to be held to it; nothing was done."""

    kind = THROUGHPUT_EXCEEDED
    text = (
        "The level of configured provisioned throughput for the table was exceeded. Consider increasing your "
        "provisioning level with the UpdateTable API."
    )


class IndexThroughputExceededError(ThroughputExceededError):
    """The same of a global index of the table."""

    text = (
        "The level of configured provisioned throughput for one or more global secondary indexes of the table was "
        "exceeded. Consider increasing your provisioning level for the under-provisioned global secondary indexes with "
        "the UpdateTable API"
    )


class OnDemandLimitError(ThroughputExceededError):
    """The same of a table on demand."""

    kind = THROTTLING
    text = "Throughput exceeds the maximum OnDemandThroughput configured on table or index"


class Fault(NamedTuple):
    """What goes on the wire."""

    status: int
    kind: str
    message: str
    members: Mapping[str, Any] = {}

    def body(self) -> bytes:
        """Return the JSON of the answer; DynamoDB writes "Message" for a few errors only."""
        content: dict[str, Any] = {"__type": self.kind}
        if self.message:
            content["Message" if self.kind in _CAPITALS else "message"] = self.message
        return orjson.dumps({**content, **self.members})


def fault_of(error: Exception) -> Fault:
    """Return how DynamoDB's clients are told of ``error``."""
    match error:
        case ApiError():
            return Fault(400, error.kind, error.message, error.members)
        case TableNotFoundError():
            return Fault(400, RESOURCE_NOT_FOUND, "Requested resource not found")
        case TableExistsError():
            return Fault(400, RESOURCE_IN_USE, str(error))
        case TransactionInProgressError():
            return Fault(400, TRANSACTION_IN_PROGRESS, str(error))
        case IdempotentParameterMismatchError():
            return Fault(400, IDEMPOTENT_MISMATCH, str(error))
        case TransactionConflictError():
            return Fault(400, TRANSACTION_CONFLICT, CONFLICT_TEXT)
        case RequestError():
            return Fault(400, VALIDATION, str(error))
        case ThroughputExceededError():
            return Fault(400, error.kind, error.text)
        case OverloadedError():
            return Fault(400, THROTTLING, f"Too many requests: {error}")
        case UnavailableError():
            return Fault(503, UNAVAILABLE, f"The service is unavailable: {error}")
        case OutcomeError():
            return Fault(500, INTERNAL, f"{_OUTCOME_UNKNOWN}: {error}")
        case _:
            return Fault(500, INTERNAL, _INTERNAL_TEXT)
