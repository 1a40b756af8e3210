"""What boto3 sees of tables of a real cluster: settings through any node, waiters, tags, items that expire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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


def test_an_update_through_one_node_is_seen_through_all(
    clients: list[DynamoDBClient], make_table: Callable[..., str]
) -> None:
    name = make_table(clients[0])
    clients[0].get_waiter("table_exists").wait(TableName=name)
    arn = clients[1].describe_table(TableName=name)["Table"]["TableArn"]
    clients[1].update_table(
        TableName=arn,
        BillingMode="PROVISIONED",
        ProvisionedThroughput={"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
        DeletionProtectionEnabled=True,
    )
    clients[2].tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "ducks"}])
    for client in clients:
        client.get_waiter("table_exists").wait(TableName=name)
        table = client.describe_table(TableName=name)["Table"]
        assert table["BillingModeSummary"]["BillingMode"] == "PROVISIONED"
        assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 8
        assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "ducks"}]
        with pytest.raises(client.exceptions.ClientError, match="protected against deletion"):
            client.delete_table(TableName=name)
    clients[2].update_table(TableName=name, DeletionProtectionEnabled=False)
    clients[0].delete_table(TableName=name)
    clients[1].get_waiter("table_not_exists").wait(TableName=name)


def test_items_expire(
    clients: list[DynamoDBClient], make_table: Callable[..., str], eventually: Callable[[Callable[[], object]], None]
) -> None:
    name, now_s = make_table(clients[0]), int(time.time())
    over = {"pk": {"S": "before"}, "until": {"N": str(now_s - 60)}}
    clients[0].put_item(TableName=name, Item=over)
    clients[1].update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"})
    assert clients[2].describe_time_to_live(TableName=name)["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "until",
    }
    clients[2].put_item(TableName=name, Item={**over, "pk": {"S": "after"}})
    stays = {"pk": {"S": "stays"}, "until": {"N": str(now_s + 3600)}}
    clients[2].put_item(TableName=name, Item=stays)
    eventually(lambda: clients[1].describe_table(TableName=name)["Table"].get("ItemCount") in (1, 2, 3))
    eventually(lambda: clients[0].scan(TableName=name, ConsistentRead=True)["Items"] == [stays])
    eventually(lambda: clients[1].describe_table(TableName=name)["Table"]["ItemCount"] == 1)
    size = len("pkstaysuntil") + 6  # a number of ten digits
    assert clients[1].describe_table(TableName=name)["Table"]["TableSizeBytes"] == size
