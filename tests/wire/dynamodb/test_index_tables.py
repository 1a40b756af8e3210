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


def global_(name: str = "byG", *names: str, **changes: Any) -> dict[str, Any]:
    return {"IndexName": name, "KeySchema": schema(*(names or ("l",))), "Projection": ALL, **changes}


def keyed(partition: str, sort: str = "") -> list[dict[str, str]]:
    """Return a key schema of several attributes, a letter each."""
    kinds = [*("HASH" for _ in partition), *("RANGE" for _ in sort)]
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(partition + sort, kinds, strict=True)]


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
            {
                "IndexName": "byL",
                "KeySchema": schema("p", "l"),
                "Projection": ALL,
                "IndexArn": f"{arn}/index/byL",
                "IndexSizeBytes": 0,
                "ItemCount": 0,
            },
            {
                "IndexName": "some.l-1_X",
                "KeySchema": schema("p", "l"),
                "Projection": projection,
                "IndexArn": f"{arn}/index/some.l-1_X",
                "IndexSizeBytes": 0,
                "ItemCount": 0,
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


UNITS = {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4}


def with_global(*indexes: Any, kinds: str = "psl", **changes: Any) -> dict[str, Any]:
    return table(
        AttributeDefinitions=defined(**dict.fromkeys(kinds, "S")),
        LocalSecondaryIndexes=None,
        GlobalSecondaryIndexes=list(indexes),
        **changes,
    )


def test_global_indexes_are_described(cluster: Cluster) -> None:
    keys_only = {"ProjectionType": "KEYS_ONLY"}
    wide = global_("wide", KeySchema=keyed("abcd", "efgh"), Projection=keys_only, ProvisionedThroughput=UNITS)
    request = with_global(
        global_(ProvisionedThroughput=UNITS, WarmThroughput={"ReadUnitsPerSecond": 9, "WriteUnitsPerSecond": 8}),
        wide,
        kinds="pslabcdefgh",
        BillingMode="PROVISIONED",
        ProvisionedThroughput=UNITS,
    )
    created = cluster.call("CreateTable", request)["TableDescription"]
    described = cluster.call("DescribeTable", {"TableName": "ind"})["Table"]
    assert [one["IndexStatus"] for one in created["GlobalSecondaryIndexes"]] == ["CREATING", "CREATING"]
    arn = described["TableArn"]
    warm = {"ReadUnitsPerSecond": 9, "WriteUnitsPerSecond": 8, "Status": "ACTIVE"}
    assert described["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "byG",
            "KeySchema": schema("l"),
            "Projection": ALL,
            "IndexArn": f"{arn}/index/byG",
            "IndexStatus": "ACTIVE",
            "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, **UNITS},
            "WarmThroughput": warm,
            "ItemCount": 0,
            "IndexSizeBytes": 0,
        },
        {
            "IndexName": "wide",
            "KeySchema": keyed("abcd", "efgh"),
            "Projection": keys_only,
            "IndexArn": f"{arn}/index/wide",
            "IndexStatus": "ACTIVE",
            "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, **UNITS},
            "WarmThroughput": {"ReadUnitsPerSecond": 3, "WriteUnitsPerSecond": 4, "Status": "ACTIVE"},
            "ItemCount": 0,
            "IndexSizeBytes": 0,
        },
    ]
    assert {one["AttributeName"] for one in described["AttributeDefinitions"]} == set("pslabcdefgh")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (with_global(), INVALID + "List of GlobalSecondaryIndexes is empty"),
        (
            with_global(global_("byG", "nowhere")),
            INVALID + "Some index key attributes are not defined in AttributeDefinitions. Keys: [nowhere], "
            "AttributeDefinitions: [p, s, l]",
        ),
        (
            with_global(global_("byG", "l", "l")),
            "ValidationException | Both the Hash Key and the Range Key element in the KeySchema have the same name",
        ),
        (
            with_global(global_(KeySchema=keyed("", "l"))),
            "ValidationException | Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        ),
        (
            with_global(global_(KeySchema=[*keyed("l", "s"), *keyed("p")])),
            INVALID + "A HASH key element comes after a RANGE key element for index: byG",
        ),
        (
            with_global(global_(KeySchema=keyed("abcde")), kinds="pslabcde"),
            INVALID + "Number of HASH key elements exceeds the limit of 4 for index: byG",
        ),
        (
            with_global(global_(ProvisionedThroughput=UNITS)),
            INVALID + "ProvisionedThroughput should not be specified for index: byG when BillingMode is "
            "PAY_PER_REQUEST",
        ),
        (
            with_global(global_(), BillingMode="PROVISIONED", ProvisionedThroughput=UNITS),
            INVALID + "ProvisionedThroughput is not specified for index: byG",
        ),
        (with_global(global_(), global_()), INVALID + "Duplicate index name: byG"),
        (
            table(GlobalSecondaryIndexes=[global_("byL")]),
            INVALID + "Duplicate index name: byL",
        ),
        (
            with_global(*[global_(f"index-{number}") for number in range(21)]),
            INVALID + "GlobalSecondaryIndex count exceeds the per-table limit of 20",
        ),
        (
            with_global(global_("byG", "s")),
            INVALID + "Some AttributeDefinitions are not used. AttributeDefinitions: [p, s, l], keys used: [p, s]",
        ),
        (
            with_global(
                *[
                    global_(
                        f"index-{n}",
                        Projection={"ProjectionType": "INCLUDE", "NonKeyAttributes": [f"a{i}" for i in range(17)]},
                    )
                    for n in range(6)
                ]
            ),
            INVALID + "Number of NonKeyAttributes over all secondary indexes exceeds the per-table limit of 100",
        ),
        (
            with_global(global_(), Tags=[{"Key": "merganser:replication", "Value": "leaderless"}]),
            "ValidationException | GlobalSecondaryIndexes needs a table with leaders: create the table without the "
            "tag merganser:replication = leaderless",
        ),
    ],
)
def test_global_indexes_that_make_no_sense_are_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("CreateTable", request_) == answer
