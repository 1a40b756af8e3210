"""What boto3 sees of tables of a real cluster: settings through any node, waiters, tags, items that expire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that all tests of this file share."""
    with LocalCluster(tmp_path_factory.mktemp("tables"), zones=("zone-1", "zone-2", "zone-3")) as running:
        yield running


@pytest.fixture
def clients(trio: LocalCluster, connect: Callable[..., DynamoDBClient]) -> list[DynamoDBClient]:
    """A client of each node."""
    return [connect(node.dynamodb_url) for node in trio.nodes]


def test_an_update_through_one_node_holds_for_all(
    clients: list[DynamoDBClient], make_table: Callable[..., str], eventually: Callable[[Callable[[], object]], None]
) -> None:
    name = make_table(clients[0])
    clients[0].get_waiter("table_exists").wait(TableName=name)
    arn = clients[1].describe_table(TableName=name)["Table"]["TableArn"]
    tags: list[Any] = [{"Key": "team", "Value": "ducks"}]
    clients[1].update_table(
        TableName=arn,
        BillingMode="PROVISIONED",
        ProvisionedThroughput={"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
        DeletionProtectionEnabled=True,
    )
    for client in clients:  # at once, whether it has heard of it or not
        with pytest.raises(client.exceptions.ClientError, match="protected against deletion"):
            client.delete_table(TableName=name)
    clients[2].tag_resource(ResourceArn=arn, Tags=tags)
    for client in clients:
        client.get_waiter("table_exists").wait(TableName=name)
        eventually(lambda client=client: client.list_tags_of_resource(ResourceArn=arn)["Tags"] == tags)  # type: ignore[misc]
        table = client.describe_table(TableName=name)["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PROVISIONED"
        assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 8
    clients[2].update_table(TableName=name, DeletionProtectionEnabled=False)
    clients[0].delete_table(TableName=name)
    clients[1].get_waiter("table_not_exists").wait(TableName=name)


def test_items_expire_and_leave_their_indexes(
    clients: list[DynamoDBClient], eventually: Callable[[Callable[[], object]], None]
) -> None:
    name, now_s = "mortals", int(time.time())
    clients[0].create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in ("pk", "sk", "group")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        LocalSecondaryIndexes=[
            {
                "IndexName": "local",
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "group", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "global",
                "KeySchema": [{"AttributeName": "group", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    whole = {"pk": {"S": "p"}, "group": {"S": "g"}, "until": {"N": str(now_s - 60)}}
    stays = {**whole, "sk": {"S": "stays"}, "until": {"N": str(now_s + 3600)}}
    clients[0].put_item(TableName=name, Item={**whole, "sk": {"S": "before"}})
    clients[1].update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"})
    described = {"TimeToLiveStatus": "ENABLED", "AttributeName": "until"}
    eventually(lambda: clients[2].describe_time_to_live(TableName=name)["TimeToLiveDescription"] == described)
    clients[2].put_item(TableName=name, Item={**whole, "sk": {"S": "after"}})
    clients[2].put_item(TableName=name, Item=stays)
    eventually(lambda: clients[0].scan(TableName=name, ConsistentRead=True)["Items"] == [stays])
    local = clients[1].query(
        TableName=name,
        IndexName="local",
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": "p"}},
        ConsistentRead=True,
    )
    assert local["Items"] == [stays]
    eventually(lambda: clients[1].scan(TableName=name, IndexName="global")["Items"] == [stays])
    eventually(lambda: counted(clients[1], name) == [1, 1])
    size = len("pkpskstaysgroupguntil") + 6  # a number of ten digits
    assert clients[1].describe_table(TableName=name)["Table"]["TableSizeBytes"] == size


def counted(client: DynamoDBClient, name: str) -> list[int]:
    table = client.describe_table(TableName=name)["Table"]
    return [table["ItemCount"], table["GlobalSecondaryIndexes"][0]["ItemCount"]]
