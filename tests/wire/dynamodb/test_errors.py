"""The shape of errors, against botocore's model of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.model.errors import (
    IdempotentParameterMismatchError,
    OverloadedError,
    TableExistsError,
    TableNotFoundError,
    TransactionConflictError,
    TransactionInProgressError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.wire.dynamodb import errors
from merganser.wire.dynamodb.errors import API, ApiError, fault_of
from wire.dynamodb.api import model

KINDS = sorted(
    value
    for name, value in vars(errors).items()
    if isinstance(value, str) and value.rpartition("#")[2] and "#" in value
)


def body_of(error: Exception) -> Any:
    return orjson.loads(fault_of(error).body())


def test_there_are_kinds_to_look_at() -> None:
    assert len(KINDS) >= 13


@pytest.mark.parametrize("kind", KINDS)
def test_error_of_the_model_has_its_prefix_and_spelling_and_no_other_has(kind: str) -> None:
    namespace, _, name = kind.partition("#")
    shapes: dict[str, Any] = {shape.name: shape for shape in model().error_shapes}
    if name in shapes:
        assert namespace + "#" == API
        spelling = next(member for member in shapes[name].members if member.lower() == "message")
        assert body_of(ApiError(kind, "text")) == {"__type": kind, spelling: "text"}
    else:
        assert namespace + "#" != API or name in ("ServiceUnavailable",)


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.ValidationError("text"), 400, "ValidationException"),
        (errors.SerializationError("text"), 400, "SerializationException"),
        (TableNotFoundError("text"), 400, "ResourceNotFoundException"),
        (TableExistsError("text"), 400, "ResourceInUseException"),
        (TransactionConflictError("text"), 400, "TransactionConflictException"),
        (TransactionInProgressError("text"), 400, "TransactionInProgressException"),
        (IdempotentParameterMismatchError("text"), 400, "IdempotentParameterMismatchException"),
        (OverloadedError("text"), 400, "ThrottlingException"),
        (UnavailableError("text"), 503, "ServiceUnavailable"),
        (UnknownOutcomeError("text"), 500, "InternalServerError"),
        (KeyError("text"), 500, "InternalServerError"),
    ],
)
def test_error_has_its_status(error: Exception, status: int, name: str) -> None:
    assert fault_of(error).status == status
    assert body_of(error)["__type"].endswith(f"#{name}")
