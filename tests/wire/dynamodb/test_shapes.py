"""Every parameter of botocore's model with a value of every other JSON type: DynamoDB's SerializationException."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.wire.dynamodb.errors import SerializationError
from merganser.wire.dynamodb.shapes import OPERATIONS, check
from wire.dynamodb.api import SERVED, Parameter, parameters

MODEL = "com.amazonaws.dynamodb.v20120810."
JAVA = {"string": "String", "boolean": "Boolean", "integer": "Integer", "long": "Long", "double": "Double"}
TOKENS = ((1, "NUMBER_VALUE"), (1.5, "DECIMAL_VALUE"), (True, "TRUE_VALUE"), (False, "FALSE_VALUE"))
NOT_EXPECTED = "Start of structure or map found where not expected"
CAST = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class "
    "(sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base "
    "of loader 'bootstrap')"
)


def java_of(shape: Any) -> str:
    """What DynamoDB's messages call a type."""
    if shape.type_name == "structure":
        return f"{MODEL}{shape.name}"
    if shape.type_name == "list":
        return f"java.util.List<{java_of(shape.member)}>"
    if shape.type_name == "map":
        return f"java.util.Map<java.lang.String, {java_of(shape.value)}>"
    return "java.nio.ByteBuffer" if shape.type_name == "blob" else f"java.lang.{JAVA[shape.type_name]}"


def wrong_values(shape: Any, if_scalar: str) -> list[tuple[Any, str]]:
    """Values of other types and what is said of them, ``if_scalar`` of scalars where none is due."""
    kind = shape.type_name
    if kind == "list":
        return [({}, NOT_EXPECTED), ("x", if_scalar), (1, if_scalar), (True, if_scalar)]
    if kind == "map":
        return [([], f"Unrecognized collection type {java_of(shape)}"), ("x", if_scalar), (1.5, if_scalar)]
    if kind == "structure":
        return [([], f"Unrecognized collection type class {java_of(shape)}"), ("x", if_scalar), (False, if_scalar)]
    wrong: list[tuple[Any, str]] = [({}, NOT_EXPECTED), ([], f"Unrecognized collection type class {java_of(shape)}")]
    if kind == "string":
        return wrong + [(value, f"{token} cannot be converted to String") for value, token in TOKENS]
    if kind == "boolean":
        refused = [(value, f"{token} cannot be converted to Boolean") for value, token in TOKENS[:2]]
        return [*wrong, *refused, ("x", "Unexpected token received from parser")]
    refused = [(value, f"{token} cannot be converted to {JAVA[kind]}") for value, token in TOKENS[2:]]
    return [*wrong, *refused, ("1", f"STRING_VALUE cannot be converted to {JAVA[kind]}")]


def wrong_elements(shape: Any) -> list[tuple[Any, str]]:
    """Lists and maps with an element of another type, and what is said of it."""
    if shape.type_name not in ("list", "map"):
        return []
    element = shape.member if shape.type_name == "list" else shape.value
    if_scalar = CAST if element.type_name in ("list", "map") else "Unexpected value type in payload"
    inner = [*wrong_values(element, if_scalar), *wrong_elements(element)]
    return [([value] if shape.type_name == "list" else {"abc": value}, message) for value, message in inner]


def served() -> list[Parameter]:
    return [one for operation in OPERATIONS for one in parameters(operation) if one.status == SERVED]


def test_there_are_parameters_to_look_at() -> None:
    assert len(served()) > 200


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_value_of_another_type_is_told_as_dynamodb_tells_it(operation: str) -> None:
    told: list[tuple[str, Any, str]] = []
    due: list[tuple[str, Any, str]] = []
    for parameter in parameters(operation):
        if parameter.status == SERVED:
            shape = parameter.shape
            for value, message in [*wrong_values(shape, "Unexpected field type"), *wrong_elements(shape)]:
                due.append((".".join(parameter.names), value, message))
                told.append((".".join(parameter.names), value, refusal(operation, parameter.within(value))))
    assert told == due


def refusal(operation: str, request: dict[str, Any]) -> str:
    try:
        check(operation, request, deep=True)
    except SerializationError as error:
        return error.message
    return "taken"
