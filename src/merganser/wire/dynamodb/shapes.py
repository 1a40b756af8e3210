"""The JSON types of the API, and what DynamoDB says of a member that has another one.

Only what the served operations read is described; every other member of a request is taken out of it, so that nothing
looks at one of another operation: DynamoDB ignores members it does not know. What has another type but can be read as
the API's, such as "true" or 1.5 where an integer is due, is replaced, as DynamoDB does. Attribute values are left to
`attributes` on the way in (``deep=False``) and looked at here only when a request turned out wrong.

Source of the texts: the answers of DynamoDB itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from merganser.wire.dynamodb.errors import SerializationError
from merganser.wire.dynamodb.unserved import UNSERVED

exact: Callable[[str], Decimal] = Decimal
"""Numbers by value, for sorting."""

_MODEL = "com.amazonaws.dynamodb.v20120810."
_CAST = (
    "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class "
    "(sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base "
    "of loader 'bootstrap')"
)
_NOT_EXPECTED = "Start of structure or map found where not expected"

Shape = Callable[[Any, int], None]
"""Checks a value that is not null; the number tells how many levels of attribute values to look into."""

_NOTHING: Mapping[str, Any] = {}

LEVELS = 33
"""One more than an item may have: what lies deeper is refused for its depth, whatever it is."""


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "NUMBER_VALUE" if isinstance(value, int) else "DECIMAL_VALUE"


def _refuse_collections(value: Any, java: str) -> None:
    if isinstance(value, dict):
        raise SerializationError(_NOT_EXPECTED)
    if isinstance(value, list):
        raise SerializationError(f"Unrecognized collection type class {java}")


def string(value: Any, deep: int) -> None:
    """Check a string."""
    if not isinstance(value, str):
        _refuse_collections(value, "java.lang.String")
        raise SerializationError(f"{_token(value)} cannot be converted to String")


def boolean(value: Any, deep: int) -> None:
    """Check a boolean."""
    if not isinstance(value, bool):
        _refuse_collections(value, "java.lang.Boolean")
        if isinstance(value, str):
            boolean_of(value)
            return
        raise SerializationError(f"{_token(value)} cannot be converted to Boolean")


def boolean_of(value: bool | str) -> bool:
    """Return what DynamoDB reads: a boolean, or the text of one.

    Raises:
        SerializationError: a text of something else.
    """
    if isinstance(value, bool):
        return value
    said = _BOOLEANS.get(value.upper())
    if said is None:
        raise SerializationError("Unexpected token received from parser")
    return said


_BOOLEANS = {"TRUE": True, "YES": True, "1": True, "FALSE": False, "NO": False, "0": False}


def _whole(bits: int) -> Callable[[float], int]:
    """Return what makes an integer of so many bits of a number: its whole part, or the nearest there is."""
    most = 2 ** (bits - 1) - 1
    return lambda value: max(-most - 1, min(most, math.floor(value)))


def _number(name: str) -> Shape:
    def check(value: Any, deep: int) -> None:
        _refuse_collections(value, f"java.lang.{name}")
        if isinstance(value, bool | str):
            raise SerializationError(f"{_token(value)} cannot be converted to {name}")

    return check


integer = _number("Integer")
long = _number("Long")

_CONVERSIONS: Mapping[Shape, Callable[[Any], Any]] = {boolean: boolean_of, integer: _whole(32), long: _whole(64)}


def blob(value: Any, deep: int) -> None:
    """Check strict base64."""
    _refuse_collections(value, "java.nio.ByteBuffer")
    if not isinstance(value, str):
        raise SerializationError("only base-64-encoded strings are convertible to bytes")
    if _BASE64(value) is None or len(value) % 4 or not _has_clean_end(value):
        raise base64_error(value)


def listing(element: Shape) -> Shape:
    """Return the check of a list."""

    def check(value: Any, deep: int) -> None:
        if isinstance(value, dict):
            raise SerializationError(_NOT_EXPECTED)
        if not isinstance(value, list):
            raise SerializationError("Unexpected field type")
        for one in value:
            if one is not None:
                element(one, deep)

    return check


def nested(check_collection: Shape) -> Shape:
    """Return the check of a list or map inside another, of which DynamoDB speaks differently."""

    def check(value: Any, deep: int) -> None:
        if not isinstance(value, list | dict):
            raise SerializationError(_CAST)
        check_collection(value, deep)

    return check


def mapping(element: Shape, java: str) -> Shape:
    """Return the check of a map to ``java``, a class of the API or with its full name."""
    full = java if "." in java else _MODEL + java

    def check(value: Any, deep: int) -> None:
        if isinstance(value, list):
            raise SerializationError(f"Unrecognized collection type java.util.Map<java.lang.String, {full}>")
        if not isinstance(value, dict):
            raise SerializationError("Unexpected field type")
        for one in value.values():
            if one is not None:
                element(one, deep)

    return check


def structure(java: str, members: Mapping[str, Shape], *, is_element: bool = False) -> Shape:
    """Return the check of a structure, member of another or (``is_element``) of a list or map."""
    unexpected = "Unexpected value type in payload" if is_element else "Unexpected field type"

    def check(value: Any, deep: int) -> None:
        if isinstance(value, list):
            raise SerializationError(f"Unrecognized collection type class {_MODEL}{java}")
        if not isinstance(value, dict):
            raise SerializationError(unexpected)
        check_members(value, members, deep)

    return check


def check_members(
    value: dict[str, Any], members: Mapping[str, Shape], deep: int, *, others: Mapping[str, Any] = _NOTHING
) -> None:
    """Check those of ``members`` that are there, and replace those that can be read as the type that is due.

    What is neither among them nor the ``others`` is taken out.

    Raises:
        SerializationError: one has another type.
    """
    if not value.keys() <= members.keys():
        for name in value.keys() - members.keys() - others.keys():
            del value[name]
    for name, shape in members.items():
        member = value.get(name)
        if member is not None:
            shape(member, deep)
            convert = _CONVERSIONS.get(shape)
            if convert is not None:
                value[name] = convert(member)


def check_value(value: Any) -> None:
    """Check one attribute value to the bottom.

    Raises:
        SerializationError: it, or a value in it, has another type.
    """
    _value(value, LEVELS)


def mismatch(value: Any) -> SerializationError:
    """Return what is wrong with an attribute value that is known to be wrong."""
    try:
        _value(value, LEVELS)
    except SerializationError as error:
        return error
    raise AssertionError(value)


def base64_error(text: str) -> SerializationError:
    """Return what DynamoDB says of a text that is not strict base64."""
    if len(text) % 4:
        return SerializationError(f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(text)}")
    wrong = re.search(r"[^a-zA-Z0-9+/=]", text)
    if wrong:
        return SerializationError(f"Invalid Base64 character: '{wrong[0]}'")
    return SerializationError("Invalid last non-pad Base64 character dectected")  # sic


_BASE64 = re.compile(r"[a-zA-Z0-9+/]*={0,2}").fullmatch
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _has_clean_end(text: str) -> bool:
    """Tell whether the bits that the padding leaves over are zero."""
    pads = len(text) - len(text.rstrip("="))
    return not pads or (len(text) > pads and _ALPHABET.index(text[-pads - 1]) % (4**pads) == 0)


def _attribute_map(value: Any, deep: int) -> None:
    if deep or not isinstance(value, dict):
        mapping(_value, "AttributeValue")(value, deep)


def _value(value: Any, deep: int) -> None:
    if deep:
        _VALUE_ELEMENT(value, deep - 1)


_VALUE_MEMBERS = {
    "S": string,
    "N": string,
    "B": blob,
    "SS": listing(string),
    "NS": listing(string),
    "BS": listing(blob),
    "BOOL": boolean,
    "NULL": boolean,
    "M": nested(mapping(_value, "AttributeValue")),
    "L": nested(listing(_value)),
}
_VALUE_ELEMENT = structure("AttributeValue", _VALUE_MEMBERS, is_element=True)


def _field_value(value: Any, deep: int) -> None:
    """Check an attribute value that is a member of a structure."""
    if deep:
        _VALUE_FIELD(value, deep - 1)


_VALUE_FIELD = structure("AttributeValue", _VALUE_MEMBERS)
_VALUES = {"AttributeValueList": listing(_value)}
_CONDITIONS = mapping(structure("Condition", {"ComparisonOperator": string, **_VALUES}, is_element=True), "Condition")
_EXPECTED = mapping(
    structure(
        "ExpectedAttributeValue",
        {"Value": _field_value, "Exists": boolean, "ComparisonOperator": string, **_VALUES},
        is_element=True,
    ),
    "ExpectedAttributeValue",
)
_CHANGES = mapping(
    structure("AttributeValueUpdate", {"Value": _field_value, "Action": string}, is_element=True),
    "AttributeValueUpdate",
)

_NAMES = mapping(string, "java.lang.String")
_READ = {"ConsistentRead": boolean, "ReturnConsumedCapacity": string, "ExpressionAttributeNames": _NAMES}
_LISTED = {
    "TableName": string,
    "IndexName": string,
    "Select": string,
    "Limit": integer,
    "ExclusiveStartKey": _attribute_map,
    "AttributesToGet": listing(string),
    "ConditionalOperator": string,
    "ProjectionExpression": string,
    "FilterExpression": string,
    "ExpressionAttributeValues": _attribute_map,
    **_READ,
}
_WRITE = {
    "TableName": string,
    "ReturnValues": string,
    "ReturnConsumedCapacity": string,
    "ReturnItemCollectionMetrics": string,
    "ReturnValuesOnConditionCheckFailure": string,
    "ConditionalOperator": string,
    "Expected": _EXPECTED,
    "ConditionExpression": string,
    "ExpressionAttributeNames": _NAMES,
    "ExpressionAttributeValues": _attribute_map,
}
_KEYS = {
    "Keys": listing(nested(_attribute_map)),
    "AttributesToGet": listing(string),
    "ProjectionExpression": string,
    **_READ,
}
_PUT_OR_DELETE = {
    "PutRequest": structure("PutRequest", {"Item": _attribute_map}),
    "DeleteRequest": structure("DeleteRequest", {"Key": _attribute_map}),
}

_CONDITIONAL = {
    "TableName": string,
    "ConditionExpression": string,
    "ExpressionAttributeNames": _NAMES,
    "ExpressionAttributeValues": _attribute_map,
    "ReturnValuesOnConditionCheckFailure": string,
}
_TRANSACTED = {
    "ConditionCheck": structure("ConditionCheck", {**_CONDITIONAL, "Key": _attribute_map}),
    "Put": structure("Put", {**_CONDITIONAL, "Item": _attribute_map}),
    "Delete": structure("Delete", {**_CONDITIONAL, "Key": _attribute_map}),
    "Update": structure("Update", {**_CONDITIONAL, "Key": _attribute_map, "UpdateExpression": string}),
}
_TRANSACTED_GET = {
    "TableName": string,
    "Key": _attribute_map,
    "ProjectionExpression": string,
    "ExpressionAttributeNames": _NAMES,
}

_TAG = structure("Tag", {"Key": string, "Value": string}, is_element=True)
_THROUGHPUT = {
    "ProvisionedThroughput": structure(
        "ProvisionedThroughput", {"ReadCapacityUnits": long, "WriteCapacityUnits": long}
    ),
    "OnDemandThroughput": structure("OnDemandThroughput", {"MaxReadRequestUnits": long, "MaxWriteRequestUnits": long}),
    "WarmThroughput": structure("WarmThroughput", {"ReadUnitsPerSecond": long, "WriteUnitsPerSecond": long}),
}
_KEY_SCHEMA = listing(structure("KeySchemaElement", {"AttributeName": string, "KeyType": string}, is_element=True))
_DEFINED = listing(
    structure("AttributeDefinition", {"AttributeName": string, "AttributeType": string}, is_element=True)
)
_INDEX = {
    "IndexName": string,
    "KeySchema": _KEY_SCHEMA,
    "Projection": structure("Projection", {"ProjectionType": string, "NonKeyAttributes": listing(string)}),
}
_SETTINGS = {
    "TableName": string,
    "BillingMode": string,
    **_THROUGHPUT,
    "StreamSpecification": structure("StreamSpecification", {"StreamEnabled": boolean, "StreamViewType": string}),
    "SSESpecification": structure(
        "SSESpecification", {"Enabled": boolean, "SSEType": string, "KMSMasterKeyId": string}
    ),
    "TableClass": string,
    "DeletionProtectionEnabled": boolean,
}

OPERATIONS: Mapping[str, Mapping[str, Shape]] = {
    "CreateTable": {
        **_SETTINGS,
        "AttributeDefinitions": _DEFINED,
        "KeySchema": _KEY_SCHEMA,
        "LocalSecondaryIndexes": listing(structure("LocalSecondaryIndex", _INDEX, is_element=True)),
        "GlobalSecondaryIndexes": listing(
            structure("GlobalSecondaryIndex", {**_INDEX, **_THROUGHPUT}, is_element=True)
        ),
        "Tags": listing(_TAG),
    },
    "UpdateTable": {
        **_SETTINGS,
        "AttributeDefinitions": _DEFINED,
        "GlobalSecondaryIndexUpdates": listing(
            structure(
                "GlobalSecondaryIndexUpdate",
                {
                    "Update": structure("UpdateGlobalSecondaryIndexAction", {"IndexName": string, **_THROUGHPUT}),
                    "Create": structure("CreateGlobalSecondaryIndexAction", {**_INDEX, **_THROUGHPUT}),
                    "Delete": structure("DeleteGlobalSecondaryIndexAction", {"IndexName": string}),
                },
                is_element=True,
            )
        ),
    },
    "DescribeTable": {"TableName": string},
    "DeleteTable": {"TableName": string},
    "ListTables": {"ExclusiveStartTableName": string, "Limit": integer},
    "TagResource": {"ResourceArn": string, "Tags": listing(_TAG)},
    "UntagResource": {"ResourceArn": string, "TagKeys": listing(string)},
    "ListTagsOfResource": {"ResourceArn": string, "NextToken": string},
    "UpdateTimeToLive": {
        "TableName": string,
        "TimeToLiveSpecification": structure("TimeToLiveSpecification", {"Enabled": boolean, "AttributeName": string}),
    },
    "DescribeTimeToLive": {"TableName": string},
    "DescribeLimits": {},
    "DescribeEndpoints": {},
    "DescribeContinuousBackups": {"TableName": string},
    "PutItem": {**_WRITE, "Item": _attribute_map},
    "DeleteItem": {**_WRITE, "Key": _attribute_map},
    "UpdateItem": {
        **_WRITE,
        "Key": _attribute_map,
        "AttributeUpdates": _CHANGES,
        "UpdateExpression": string,
    },
    "GetItem": {
        "TableName": string,
        "Key": _attribute_map,
        "AttributesToGet": listing(string),
        "ProjectionExpression": string,
        **_READ,
    },
    "BatchWriteItem": {
        "RequestItems": mapping(
            nested(listing(structure("WriteRequest", _PUT_OR_DELETE, is_element=True))),
            f"java.util.List<{_MODEL}WriteRequest>",
        ),
        "ReturnConsumedCapacity": string,
        "ReturnItemCollectionMetrics": string,
    },
    "BatchGetItem": {
        "RequestItems": mapping(structure("KeysAndAttributes", _KEYS, is_element=True), "KeysAndAttributes"),
        "ReturnConsumedCapacity": string,
    },
    "TransactWriteItems": {
        "TransactItems": listing(structure("TransactWriteItem", _TRANSACTED, is_element=True)),
        "ClientRequestToken": string,
        "ReturnConsumedCapacity": string,
        "ReturnItemCollectionMetrics": string,
    },
    "TransactGetItems": {
        "TransactItems": listing(
            structure("TransactGetItem", {"Get": structure("Get", _TRANSACTED_GET)}, is_element=True)
        ),
        "ReturnConsumedCapacity": string,
    },
    "Scan": {**_LISTED, "ScanFilter": _CONDITIONS, "Segment": integer, "TotalSegments": integer},
    "Query": {
        **_LISTED,
        "ScanIndexForward": boolean,
        "KeyConditions": _CONDITIONS,
        "QueryFilter": _CONDITIONS,
        "KeyConditionExpression": string,
    },
}
"""Members by operation; the keys are the operations that are served."""


_TYPES: Mapping[Shape, type] = {string: str, boolean: bool, _attribute_map: dict}
"""Of those shapes that a look at the type is enough for, as long as nobody looks into attribute values."""

_EXACT: Mapping[str, Mapping[str, type]] = {
    operation: {name: _TYPES[shape] for name, shape in members.items() if shape in _TYPES}
    for operation, members in OPERATIONS.items()
}


def _is_exact(request: dict[str, Any], types: Mapping[str, type]) -> bool:
    """Tell whether nothing can be wrong with the members of a request, as with nearly all: a third of the time."""
    for name, member in request.items():  # noqa: SIM110 - `all` takes twice the time
        if type(member) is not types.get(name):
            return False
    return True


def check(operation: str, request: Any, *, deep: bool) -> None:
    """Check the body of a request.

    Args:
        operation: one of `OPERATIONS`.
        request: what JSON gave.
        deep: look into attribute values as well.

    Raises:
        SerializationError: a member has another type than the API's.
    """
    if not deep and isinstance(request, dict) and _is_exact(request, _EXACT[operation]):
        return
    if not isinstance(request, dict):
        raise SerializationError("Unexpected value type in payload" if not isinstance(request, list) else "")
    refused = UNSERVED.get(operation, _NOTHING)
    check_members(request, OPERATIONS[operation], LEVELS if deep else 0, others=refused)
