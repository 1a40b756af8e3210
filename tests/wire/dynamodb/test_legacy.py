"""The parameters of the time before expressions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from wire.dynamodb.fakes import Cluster

A, B, ONE, TWO = {"S": "a"}, {"S": "b"}, {"N": "1"}, {"N": "2"}
VALIDATION = "ValidationException | "
INVALID = VALIDATION + "One or more parameter values were invalid: "
WRITTEN = VALIDATION + "1 validation error detected: One or more parameter values were invalid: "
FAILED = "ConditionalCheckFailedException | The conditional request failed"


def key(p: str = "a") -> dict[str, Any]:
    return {"TableName": "str", "Key": {"p": {"S": p}}}


def put(cluster: Cluster, **attributes: Any) -> Any:
    return cluster.call("PutItem", {"TableName": "str", "Item": {"p": A, **attributes}})


def got(cluster: Cluster, p: str = "a") -> Any:
    return cluster.call("GetItem", {**key(p), "ConsistentRead": True}).get("Item")


def condition(operator: str, *values: Any) -> dict[str, Any]:
    return {"ComparisonOperator": operator, "AttributeValueList": list(values)}


@pytest.mark.parametrize(
    ("expected", "is_met"),
    [
        ({"n": {"Value": ONE}}, True),
        ({"n": {"Value": {"N": "1.0"}, "Exists": True}}, True),
        ({"n": {"Value": TWO}}, False),
        ({"n": {"Exists": False}}, False),
        ({"m": {"Exists": False}}, True),
        ({"n": {"ComparisonOperator": "GE", "Value": ONE}}, True),
        ({"n": condition("BETWEEN", TWO, TWO)}, False),
        ({"n": {"ComparisonOperator": "NOT_NULL"}}, True),
        ({"n": condition("NULL")}, False),
        ({}, True),
    ],
)
def test_writes_expect_an_item(cluster: Cluster, expected: Any, is_met: bool) -> None:
    def tried(operation: str, request: Any) -> None:
        put(cluster, n=ONE)
        answer = cluster.call(operation, {**request, "Expected": expected})
        assert answer == ({} if is_met else FAILED)
        assert (got(cluster) != {"p": A, "n": ONE}) is is_met

    tried("PutItem", {"TableName": "str", "Item": {"p": A, "n": TWO}})
    tried("DeleteItem", key())
    tried("UpdateItem", {**key(), "AttributeUpdates": {"n": {"Value": TWO}}})


def test_one_of_several_expectations_is_enough_if_the_request_says_so(cluster: Cluster) -> None:
    put(cluster, n=ONE)
    delete = {**key(), "Expected": {"n": {"Value": TWO}, "m": {"Exists": False}}}
    assert cluster.call("DeleteItem", delete) == FAILED
    assert cluster.call("DeleteItem", {**delete, "ConditionalOperator": "AND"}) == FAILED
    assert cluster.call("DeleteItem", {**delete, "ConditionalOperator": "OR", "ReturnValues": "ALL_OLD"}) == {
        "Attributes": {"p": A, "n": ONE}
    }


def test_a_failed_expectation_shows_the_item_if_the_request_wants_it(cluster: Cluster) -> None:
    put(cluster, n=ONE)
    shown = {"Expected": {"n": {"Value": TWO}}, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    fault = cluster.fault("DeleteItem", {**key(), **shown})
    assert orjson.loads(fault.body())["Item"] == {"p": A, "n": ONE}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (
            {"n": {"Value": ONE, "AttributeValueList": [ONE], "ComparisonOperator": "EQ"}},
            "Value and AttributeValueList cannot be used together for Attribute: n",
        ),
        (
            {"n": {"Exists": True, "ComparisonOperator": "EQ", "Value": ONE}},
            "Exists and ComparisonOperator cannot be used together for Attribute: n",
        ),
        (
            {"n": {"ComparisonOperator": "EQ"}},
            "Value or AttributeValueList must be used with ComparisonOperator: EQ for Attribute: n",
        ),
        (
            {"n": {"AttributeValueList": [ONE]}},
            "AttributeValueList can only be used with a ComparisonOperator for Attribute: n",
        ),
        ({"n": {}}, "Value must be provided when Exists is null for Attribute: n"),
        ({"n": {"Exists": True}}, "Value must be provided when Exists is true for Attribute: n"),
        ({"n": {"Exists": False, "Value": ONE}}, "Value cannot be used when Exists is false for Attribute: n"),
        ({"n": condition("EQ")}, "Invalid number of argument(s) for the EQ ComparisonOperator"),
        ({"n": condition("NULL", ONE)}, "Invalid number of argument(s) for the NULL ComparisonOperator"),
        ({"n": {"ComparisonOperator": "BETWEEN", "Value": ONE}}, "Invalid number of argument(s) for the BETWEEN "),
        ({"n": condition("IN", ONE, A)}, "AttributeValues inside AttributeValueList must be of same type"),
        ({"n": {"Value": {"SS": []}}}, "An string set  may not be empty"),
    ],
)
def test_wrong_expectation_is_refused(cluster: Cluster, expected: Any, message: str) -> None:
    answer = cluster.call("DeleteItem", {**key(), "Expected": expected})
    assert isinstance(answer, str)
    assert answer.startswith(WRITTEN + message)


@pytest.mark.parametrize(
    ("conditions", "answer"),
    [
        ({"n": condition("EQ", {})}, "Supplied AttributeValue is empty, must contain exactly one of the supported"),
        ({"n": condition("LT", {"SS": ["a"]})}, "ComparisonOperator LT is not valid for SS AttributeValue type"),
        ({"n": condition("BEGINS_WITH", ONE)}, "ComparisonOperator BEGINS_WITH is not valid for N AttributeValue type"),
        ({"n": condition("CONTAINS", {"L": []})}, "ComparisonOperator CONTAINS is not valid for L AttributeValue type"),
        ({"n": condition("IN")}, "Invalid number of argument(s) for the IN ComparisonOperator"),
        (
            {"n": condition("BETWEEN", TWO, ONE)},
            "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound",
        ),
        (
            {"n": {}},
            "1 validation error detected: Value null at 'scanFilter.n.member.comparisonOperator' failed to satisfy "
            "constraint: Member must not be null",
        ),
        (
            {"n": condition("ABOUT", ONE)},
            "1 validation error detected: Value 'ABOUT' at 'scanFilter.n.member.comparisonOperator' failed to satisfy "
            "constraint: Member must satisfy enum value set: [IN, NULL, BETWEEN, LT, NOT_CONTAINS, EQ, GT, NOT_NULL, "
            "NE, LE, BEGINS_WITH, GE, CONTAINS]",
        ),
    ],
)
def test_wrong_filter_is_refused(cluster: Cluster, conditions: Any, answer: str) -> None:
    told = cluster.call("Scan", {"TableName": "str", "ScanFilter": conditions})
    assert isinstance(told, str)
    assert answer in told


def test_ten_violations_are_told_and_no_more(cluster: Cluster) -> None:
    told = cluster.call("Scan", {"TableName": "str", "ScanFilter": {f"n{number}": {} for number in range(12)}})
    assert told.startswith(VALIDATION + "10 validation errors detected: Value null at 'scanFilter.n0.member.")
    assert told.count("failed to satisfy constraint") == 10


@pytest.mark.parametrize(
    ("operation", "extra", "answer"),
    [
        ("Scan", {"ScanFilter": {"n": condition("EQ", 1)}}, "Unexpected value type in payload"),
        ("Scan", {"ScanFilter": []}, "Unrecognized collection type java.util.Map<java.lang.String, "),
        ("Query", {"KeyConditions": {"p": 1}}, "Unexpected value type in payload"),
        ("Query", {"QueryFilter": "x"}, "Unexpected field type"),
    ],
)
def test_wrong_json_type_in_a_condition_is_told(cluster: Cluster, operation: str, extra: Any, answer: str) -> None:
    told = cluster.call(operation, {"TableName": "str", **extra})
    assert told.startswith(f"SerializationException | {answer}")


def test_wrong_json_type_of_an_expected_value_is_told(cluster: Cluster) -> None:
    wrong = {"Expected": {"n": {"Value": 1}}}
    assert cluster.call("DeleteItem", {**key(), **wrong}) == "SerializationException | Unexpected field type"


def test_attribute_updates_put_add_and_delete(cluster: Cluster) -> None:
    put(cluster, n=ONE, s={"SS": ["a", "b"]}, x=ONE, y=ONE)
    changes = {
        "n": {"Action": "ADD", "Value": TWO},
        "s": {"Action": "DELETE", "Value": {"SS": ["a"]}},
        "x": {"Action": "DELETE"},
        "y": {"Value": {"N": "2.0"}},
        "l": {"Action": "ADD", "Value": {"L": [ONE]}},
    }
    update = {**key(), "AttributeUpdates": changes, "ReturnValues": "UPDATED_NEW"}
    assert cluster.call("UpdateItem", update)["Attributes"] == {
        "n": {"N": "3"},
        "s": {"SS": ["b"]},
        "y": TWO,
        "l": {"L": [ONE]},
    }
    assert got(cluster) == {"p": A, "n": {"N": "3"}, "s": {"SS": ["b"]}, "y": TWO, "l": {"L": [ONE]}}


def test_attribute_updates_make_an_item_unless_they_only_delete(cluster: Cluster) -> None:
    only = {"AttributeUpdates": {"n": {"Action": "DELETE"}}}
    assert cluster.call("UpdateItem", {**key(), **only}) == {}
    assert got(cluster) is None
    assert cluster.call("UpdateItem", {**key(), "AttributeUpdates": {}}) == {}
    assert got(cluster) == {"p": A}
    both = {"AttributeUpdates": {"n": {"Action": "ADD", "Value": ONE}, "m": {"Action": "DELETE"}}}
    assert cluster.call("UpdateItem", {**key("b"), **both}) == {}
    assert got(cluster, "b") == {"p": B, "n": ONE}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"n": {}}, WRITTEN + "Only DELETE action is allowed when no attribute value is specified"),
        ({"n": {"Action": "ADD"}}, WRITTEN + "Only DELETE action is allowed when no attribute value is specified"),
        (
            {"n": {"Action": "DELETE", "Value": ONE}},
            WRITTEN + "DELETE action with value is not supported for the type N",
        ),
        ({"n": {"Action": "ADD", "Value": A}}, WRITTEN + "ADD action is not supported for the type S"),
        (
            {"p": {"Value": A}},
            INVALID + "Cannot update attribute p. This attribute is part of the key",
        ),
        ({"n": {"Action": "ADD", "Value": {"NS": ["1"]}}}, VALIDATION + "Type mismatch for attribute to update"),
        ({"n": {"Action": "ADD", "Value": {"L": []}}}, VALIDATION + "Type mismatch for attribute to update"),
        (
            {"n": {"Action": "GROW", "Value": ONE}},
            VALIDATION + "1 validation error detected: Value 'GROW' at 'attributeUpdates.n.member.action' failed to "
            "satisfy constraint: Member must satisfy enum value set: [ADD, PUT, DELETE]",
        ),
    ],
)
def test_wrong_attribute_update_is_refused(cluster: Cluster, changes: Any, answer: str) -> None:
    put(cluster, n=ONE)
    assert cluster.call("UpdateItem", {**key(), "AttributeUpdates": changes}) == answer
    assert got(cluster) == {"p": A, "n": ONE}


@pytest.fixture
def listed(cluster: Cluster) -> Cluster:
    """A cluster with an item collection in the table tsn: s and n from 1 to 5."""
    for number in range(1, 6):
        value = {"N": str(number)}
        cluster.call("PutItem", {"TableName": "tsn", "Item": {"p": A, "s": value, "n": value, "m": A}})
    return cluster


def numbers(answer: Any) -> list[int]:
    assert isinstance(answer, dict), answer
    return [int(item["s"]["N"]) for item in answer["Items"]]


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"s": condition("EQ", TWO)}, [2]),
        ({"s": condition("LT", TWO)}, [1]),
        ({"s": condition("LE", TWO)}, [1, 2]),
        ({"s": condition("GT", TWO)}, [3, 4, 5]),
        ({"s": condition("GE", TWO)}, [2, 3, 4, 5]),
        ({"s": condition("BETWEEN", TWO, {"N": "4"})}, [2, 3, 4]),
    ],
)
def test_query_by_key_conditions(listed: Cluster, sort: Any, found: list[int]) -> None:
    query = {"TableName": "tsn", "KeyConditions": {"p": condition("EQ", A), **sort}}
    assert numbers(listed.call("Query", query)) == found


def test_query_filters_and_shows_parts(listed: Cluster) -> None:
    query: dict[str, Any] = {"TableName": "tsn", "KeyConditions": {"p": condition("EQ", A)}}
    chosen = {"n": condition("IN", ONE, TWO), "m": condition("NE", A)}
    assert numbers(listed.call("Query", {**query, "QueryFilter": chosen})) == []
    either = {**query, "QueryFilter": chosen, "ConditionalOperator": "OR"}
    assert listed.call("Query", either)["ScannedCount"] == 5
    assert numbers(listed.call("Query", either)) == [1, 2]
    shown = listed.call("Query", {**either, "AttributesToGet": ["n", "gone"], "Limit": 1})
    assert shown["Items"] == [{"n": ONE}]


def test_key_conditions_stand_beside_other_expressions(listed: Cluster) -> None:
    query = {
        "TableName": "tsn",
        "KeyConditions": {"p": condition("EQ", A)},
        "FilterExpression": "n > :n",
        "ProjectionExpression": "s",
        "ExpressionAttributeValues": {":n": {"N": "3"}},
    }
    assert listed.call("Query", query)["Items"] == [{"s": {"N": "4"}}, {"s": {"N": "5"}}]
    unused = {**query, "ExpressionAttributeValues": {":n": ONE, ":m": ONE}}
    assert listed.call("Query", unused) == (
        VALIDATION + "Value provided in ExpressionAttributeValues unused in expressions: keys: {:m}"
    )


@pytest.mark.parametrize(
    ("extra", "answer"),
    [
        ({"KeyConditions": {}}, "Conditions can be of length 1 or 2 only"),
        ({"KeyConditions": {"s": condition("EQ", ONE)}}, "Query condition missed key schema element: p"),
        (
            {"KeyConditions": {"p": condition("EQ", A), "x": condition("EQ", A)}},
            "Query condition missed key schema element: s",
        ),
        ({"KeyConditions": {"p": condition("GT", A)}}, "Query key condition not supported"),
        (
            {"KeyConditions": {"p": condition("EQ", A), "s": condition("NE", ONE)}},
            "Attempted conditional constraint is not an indexable operation",
        ),
        (
            {"KeyConditions": {"p": condition("EQ", A)}, "QueryFilter": {"s": condition("EQ", ONE)}},
            "QueryFilter can only contain non-primary key attributes: Primary key attribute: s",
        ),
        (
            {"KeyConditions": {"p": condition("EQ", ONE)}},
            "One or more parameter values were invalid: Condition parameter type does not match schema type",
        ),
        (
            {"KeyConditions": {"p": condition("EQ", A)}, "ConditionalOperator": "OR"},
            "ConditionalOperator cannot be used without Filter or Expected",
        ),
        (
            {
                "KeyConditions": {},
                "QueryFilter": {},
                "ConditionalOperator": "OR",
                "AttributesToGet": ["a"],
                "KeyConditionExpression": "p",
                "FilterExpression": "p",
            },
            "Can not use both expression and non-expression parameters in the same request: Non-expression "
            "parameters: {AttributesToGet, QueryFilter, ConditionalOperator, KeyConditions} Expression parameters: "
            "{FilterExpression, KeyConditionExpression}",
        ),
        (
            {"KeyConditions": {"p": condition("EQ", A)}, "QueryFilter": {}, "FilterExpression": "n"},
            "Can not use both expression and non-expression parameters in the same request: Non-expression "
            "parameters: {QueryFilter} Expression parameters: {FilterExpression}",
        ),
    ],
)
def test_wrong_older_query_is_refused(listed: Cluster, extra: Any, answer: str) -> None:
    assert listed.call("Query", {"TableName": "tsn", **extra}) == VALIDATION + answer


def test_scan_filters_and_shows_parts(listed: Cluster) -> None:
    chosen = {"ScanFilter": {"n": condition("GT", {"N": "4"}), "s": condition("NOT_NULL")}}
    assert numbers(listed.call("Scan", {"TableName": "tsn", **chosen})) == [5]
    shown = listed.call("Scan", {"TableName": "tsn", **chosen, "AttributesToGet": ["m"]})
    assert (shown["Items"], shown["ScannedCount"]) == ([{"m": A}], 5)
    unfiltered = listed.call("Scan", {"TableName": "tsn", "ScanFilter": {}})
    assert unfiltered["Count"] == 5


def test_attributes_to_get_shows_parts_of_items(cluster: Cluster) -> None:
    put(cluster, **{"n.m": ONE}, n={"M": {"m": TWO}})
    assert cluster.call("GetItem", {**key(), "AttributesToGet": ["n.m", "x"]}) == {"Item": {"n.m": ONE}}
    keys = {"str": {"Keys": [key()["Key"], key("b")["Key"]], "AttributesToGet": ["p"]}}
    assert cluster.call("BatchGetItem", {"RequestItems": keys})["Responses"] == {"str": [{"p": A}]}


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["a", "b", "a"], INVALID + "Duplicate value in attribute name: a"),
        (
            [],
            VALIDATION + "1 validation error detected: Value '[]' at 'attributesToGet' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1",
        ),
    ],
)
def test_wrong_attributes_to_get_are_refused(cluster: Cluster, names: list[str], answer: str) -> None:
    assert cluster.call("GetItem", {**key(), "AttributesToGet": names}) == answer
    assert cluster.call("Scan", {"TableName": "str", "AttributesToGet": names}) == answer
    batch = cluster.call("BatchGetItem", {"RequestItems": {"str": {"Keys": [key()["Key"]], "AttributesToGet": names}}})
    assert batch == answer.replace("'attributesToGet'", "'requestItems.str.member.attributesToGet'")


def test_expectations_need_leaders(leaderless: Cluster) -> None:
    answer = leaderless.call("DeleteItem", {**key(), "Expected": {"n": {"Value": ONE}}})
    assert answer.startswith(VALIDATION + "Expected needs a table with leaders, and str is leaderless")
