"""Tables with secondary indexes: what CreateTable accepts of them, and how they are described."""

from __future__ import annotations

from typing import Any

import pytest

from wire.dynamodb.fakes import Cluster

INVALID = "ValidationException | One or more parameter values were invalid: "
ALL = {"ProjectionType": "ALL"}


def schema(*names: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": "RANGE" if number else "HASH"} for number, name in enumerate(names)]


def defined(**kinds: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()]


def local(name: str = "byL", *names: str, **changes: Any) -> dict[str, Any]:
    return {"IndexName": name, "KeySchema": schema(*(names or ("p", "l"))), "Projection": ALL, **changes}


def table(**changes: Any) -> dict[str, Any]:
    return {
        "TableName": "ind",
        "AttributeDefinitions": defined(p="S", s="N", l="S"),
        "KeySchema": schema("p", "s"),
        "BillingMode": "PAY_PER_REQUEST",
        "LocalSecondaryIndexes": [local()],
        **changes,
    }


def test_local_indexes_are_described(cluster: Cluster) -> None:
    projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["b", "a"]}
    request = table(LocalSecondaryIndexes=[local(), local("some.l-1_X", Projection=projection)])
    created = cluster.call("CreateTable", request)["TableDescription"]
    for described in created, cluster.call("DescribeTable", {"TableName": "ind"})["Table"]:
        assert described["AttributeDefinitions"] == sorted(
            request["AttributeDefinitions"], key=lambda one: str(one["AttributeName"])
        )
        arn = described["TableArn"]
        assert described["LocalSecondaryIndexes"] == [
            {"IndexName": "byL", "KeySchema": schema("p", "l"), "Projection": ALL, "IndexArn": f"{arn}/index/byL"},
            {
                "IndexName": "some.l-1_X",
                "KeySchema": schema("p", "l"),
                "Projection": projection,
                "IndexArn": f"{arn}/index/some.l-1_X",
            },
        ]
        assert "GlobalSecondaryIndexes" not in described


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (table(LocalSecondaryIndexes=[]), INVALID + "List of LocalSecondaryIndexes is empty"),
        (
            table(KeySchema=schema("p")),
            INVALID + "Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex",
        ),
        (
            table(LocalSecondaryIndexes=[local("byL", "p", "nowhere")]),
            INVALID + "Some index key attributes are not defined in AttributeDefinitions. Keys: [p, nowhere], "
            "AttributeDefinitions: [p, s, l]",
        ),
        (
            table(LocalSecondaryIndexes=[local("byL", "p", "p")]),
            "ValidationException | Both the Hash Key and the Range Key element in the KeySchema have the same name",
        ),
        (
            table(LocalSecondaryIndexes=[local(KeySchema=schema("l", "p")[::-1])]),
            "ValidationException | Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        ),
        (
            table(LocalSecondaryIndexes=[local(KeySchema=schema("p") + schema("l"))]),
            "ValidationException | Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
        ),
        (
            table(LocalSecondaryIndexes=[local("byL", "p")]),
            INVALID + "Index KeySchema does not have a range key for index: byL",
        ),
        (
            table(LocalSecondaryIndexes=[local("byL", "l", "s")]),
            INVALID + "Index KeySchema does not have the same leading hash key as table KeySchema for index: byL. "
            "index hash key: l, table hash key: p",
        ),
        (
            table(LocalSecondaryIndexes=[local(Projection={})]),
            INVALID + "Unknown ProjectionType: null",
        ),
        (
            table(LocalSecondaryIndexes=[local(Projection={**ALL, "NonKeyAttributes": ["a"]})]),
            INVALID + "ProjectionType is ALL, but NonKeyAttributes is specified",
        ),
        (
            table(LocalSecondaryIndexes=[local(Projection={"ProjectionType": "INCLUDE"})]),
            INVALID + "ProjectionType is INCLUDE, but NonKeyAttributes is not specified",
        ),
        (table(LocalSecondaryIndexes=[local(), local()]), INVALID + "Duplicate index name: byL"),
        (
            table(LocalSecondaryIndexes=[local(f"index-{number}") for number in range(6)]),
            INVALID + "Number of LocalSecondaryIndexes exceeds per-table limit of 5",
        ),
        (
            table(AttributeDefinitions=defined(p="S", s="N", l="S", x="S")),
            INVALID + "Some AttributeDefinitions are not used. AttributeDefinitions: [p, s, l, x], "
            "keys used: [p, s, l]",
        ),
        (
            table(Tags=[{"Key": "merganser:replication", "Value": "leaderless"}]),
            "ValidationException | LocalSecondaryIndexes needs a table with leaders: create the table without the tag "
            "merganser:replication = leaderless",
        ),
        (
            table(LocalSecondaryIndexes=[local("a!", Projection={"ProjectionType": "SOME", "NonKeyAttributes": []})]),
            "ValidationException | 4 validation errors detected: Value 'a!' at "
            "'localSecondaryIndexes.1.member.indexName' failed to satisfy constraint: Member must satisfy regular "
            "expression pattern: [a-zA-Z0-9_.-]+; Value 'a!' at 'localSecondaryIndexes.1.member.indexName' failed to "
            "satisfy constraint: Member must have length greater than or equal to 3; Value 'SOME' at "
            "'localSecondaryIndexes.1.member.projection.projectionType' failed to satisfy constraint: Member must "
            "satisfy enum value set: [ALL, INCLUDE, KEYS_ONLY]; Value '[]' at "
            "'localSecondaryIndexes.1.member.projection.nonKeyAttributes' failed to satisfy constraint: Member must "
            "have length greater than or equal to 1",
        ),
        (
            table(LocalSecondaryIndexes=[local(Projection="ALL")]),
            "SerializationException | Unexpected field type",
        ),
    ],
)
def test_local_indexes_that_make_no_sense_are_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("CreateTable", request_) == answer
