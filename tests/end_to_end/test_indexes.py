"""Secondary indexes of a real cluster, through boto3: they follow what is written, also over a node that is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

TABLE = "orders"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes of this module."""
    with LocalCluster(tmp_path_factory.mktemp("indexes"), zones=("zone-1", "zone-2", "zone-3")) as running:
        yield running


@pytest.fixture(scope="module")
def clients(nodes: LocalCluster, connect: Any) -> list[DynamoDBClient]:
    """Return a client of each node, once there is a table with indexes of both kinds."""
    found: list[DynamoDBClient] = [connect(node.dynamodb_url) for node in nodes.nodes]
    found[0].create_table(
        TableName=TABLE,
        AttributeDefinitions=[
            {"AttributeName": "customer", "AttributeType": "S"},
            {"AttributeName": "order", "AttributeType": "N"},
            {"AttributeName": "placed", "AttributeType": "S"},
            {"AttributeName": "status", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "customer", "KeyType": "HASH"}, {"AttributeName": "order", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
        LocalSecondaryIndexes=[
            {
                "IndexName": "by-date",
                "KeySchema": [
                    {"AttributeName": "customer", "KeyType": "HASH"},
                    {"AttributeName": "placed", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-status",
                "KeySchema": [
                    {"AttributeName": "status", "KeyType": "HASH"},
                    {"AttributeName": "placed", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
    found[0].get_waiter("table_exists").wait(TableName=TABLE)
    return found


def order(customer: str, number: int, placed: str, status: str | None = None) -> dict[str, Any]:
    optional = {} if status is None else {"status": {"S": status}}
    return {"customer": {"S": customer}, "order": {"N": str(number)}, "placed": {"S": placed}, **optional}


def by_date(client: DynamoDBClient, customer: str, *, is_consistent: bool = True) -> list[int]:
    pages = client.get_paginator("query").paginate(
        TableName=TABLE,
        IndexName="by-date",
        KeyConditionExpression="customer = :c",
        ExpressionAttributeValues={":c": {"S": customer}},
        ConsistentRead=is_consistent,
        PaginationConfig={"PageSize": 2},
    )
    return [int(item["order"]["N"]) for page in pages for item in page["Items"]]


def by_status(client: DynamoDBClient, status: str) -> list[int]:
    pages = client.get_paginator("query").paginate(
        TableName=TABLE,
        IndexName="by-status",
        KeyConditionExpression="#s = :s",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": {"S": status}},
        PaginationConfig={"PageSize": 2},
    )
    return [int(item["order"]["N"]) for page in pages for item in page["Items"]]


def test_indexes_follow_every_kind_of_write(clients: list[DynamoDBClient], eventually: Any) -> None:
    first, second, third = clients
    for number, placed in enumerate(["2024-03", "2024-01", "2024-02"]):
        first.put_item(TableName=TABLE, Item=order("ann", number, placed, "open"))
    assert [by_date(client, "ann") for client in clients] == [[1, 2, 0]] * 3
    second.batch_write_item(
        RequestItems={TABLE: [{"PutRequest": {"Item": order("ann", 3, "2024-02-15", "paid")}}]},
    )
    third.update_item(
        TableName=TABLE,
        Key={"customer": {"S": "ann"}, "order": {"N": "0"}},
        UpdateExpression="SET placed = :p, #s = :s",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":p": {"S": "2023-12"}, ":s": {"S": "paid"}},
    )
    first.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": TABLE, "Item": order("ann", 4, "2024-09")}},
            {"Delete": {"TableName": TABLE, "Key": {"customer": {"S": "ann"}, "order": {"N": "1"}}}},
        ]
    )
    for client in clients:
        assert by_date(client, "ann") == [0, 2, 3, 4]
        eventually(lambda: by_status(client, "open") == [2])  # noqa: B023
        eventually(lambda: by_status(client, "paid") == [0, 3])  # noqa: B023
        eventually(lambda: by_date(client, "ann", is_consistent=False) == [0, 2, 3, 4])  # noqa: B023


def test_a_global_index_refuses_what_it_cannot_do(clients: list[DynamoDBClient]) -> None:
    with pytest.raises(ClientError, match="Consistent reads are not supported on global secondary indexes"):
        clients[0].scan(TableName=TABLE, IndexName="by-status", ConsistentRead=True)
    wrong = {**order("ann", 9, "2024"), "status": {"N": "1"}}
    with pytest.raises(ClientError, match="Type mismatch for Index Key status Expected: S Actual: N"):
        clients[0].put_item(TableName=TABLE, Item=wrong)


def test_indexes_are_right_after_a_node_was_killed_while_they_changed(
    nodes: LocalCluster, clients: list[DynamoDBClient], eventually: Any
) -> None:
    *others, victim = nodes.nodes
    for number in range(60):
        item = order(f"customer-{number % 4}", number, f"2024-{99 - number}", "lost" if number % 3 else "sent")
        if number == 20:
            victim.kill(signal.SIGKILL)

        def put(item: dict[str, Any] = item, number: int = number) -> bool:
            try:
                clients[number % len(others)].put_item(TableName=TABLE, Item=item)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                    raise
                return False
            return True

        eventually(put)
    victim.start()
    victim.wait_until_ready()
    sent = sorted(range(0, 60, 3), reverse=True)
    for client in clients:
        for customer in range(4):
            wanted = sorted(range(customer, 60, 4), reverse=True)
            for is_consistent in True, False:
                eventually(
                    lambda: by_date(client, f"customer-{customer}", is_consistent=is_consistent) == wanted  # noqa: B023
                )
        eventually(lambda: by_status(client, "sent") == sent)  # noqa: B023


def test_an_index_is_added_while_items_change_and_taken_away_again(
    clients: list[DynamoDBClient], eventually: Any
) -> None:
    first, second, third = clients
    for number in range(30):
        first.put_item(TableName=TABLE, Item={**order("eve", number, "2024"), "region": {"S": f"r{number % 3}"}})
    told = second.update_table(
        TableName=TABLE,
        AttributeDefinitions=[
            {"AttributeName": "region", "AttributeType": "S"},
            {"AttributeName": "order", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "by-region",
                    "KeySchema": [
                        {"AttributeName": "region", "KeyType": "HASH"},
                        {"AttributeName": "order", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["placed"]},
                }
            }
        ],
    )["TableDescription"]
    assert [(one["IndexName"], one["IndexStatus"]) for one in told["GlobalSecondaryIndexes"]] == [
        ("by-status", "ACTIVE"),
        ("by-region", "CREATING"),
    ]
    for number in range(0, 30, 3):
        third.update_item(
            TableName=TABLE,
            Key={"customer": {"S": "eve"}, "order": {"N": str(number)}},
            UpdateExpression="SET #r = :r",
            ExpressionAttributeNames={"#r": "region"},
            ExpressionAttributeValues={":r": {"S": "r1"}},
        )

    def states(client: DynamoDBClient) -> dict[str, str]:
        described = client.describe_table(TableName=TABLE)["Table"]["GlobalSecondaryIndexes"]
        return {one["IndexName"]: one["IndexStatus"] for one in described}

    def by_region(client: DynamoDBClient, region: str) -> list[int]:
        found = client.query(
            TableName=TABLE,
            IndexName="by-region",
            KeyConditionExpression="#r = :r",
            ExpressionAttributeNames={"#r": "region"},
            ExpressionAttributeValues={":r": {"S": region}},
        )["Items"]
        assert all(item.keys() == {"customer", "order", "placed", "region"} for item in found)
        return [int(item["order"]["N"]) for item in found]

    for client in clients:
        eventually(lambda: states(client) == {"by-status": "ACTIVE", "by-region": "ACTIVE"})  # noqa: B023
        eventually(lambda: by_region(client, "r0") == [])  # noqa: B023
        eventually(lambda: by_region(client, "r1") == [n for n in range(30) if n % 3 < 2])  # noqa: B023
        eventually(lambda: by_region(client, "r2") == list(range(2, 30, 3)))  # noqa: B023
    first.update_table(TableName=TABLE, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-region"}}])
    for client in clients:
        eventually(lambda: states(client) == {"by-status": "ACTIVE"})  # noqa: B023
        with pytest.raises(ClientError, match="does not have the specified index: by-region"):
            by_region(client, "r1")
