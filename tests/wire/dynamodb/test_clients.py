"""The real client, over real sockets: boto3 checks checksums, signs, retries and parses."""

from __future__ import annotations

import asyncio
import gzip
import random
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

import boto3
import orjson
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from merganser.net.http import HttpServer
from merganser.wire.dynamodb.http import DynamoDBApplication, body_bound, too_large
from merganser.wire.dynamodb.signature import Verifier
from wire.dynamodb.fakes import Cluster


def serve(cluster: Cluster, work: Callable[[Any], None]) -> None:
    """Run ``work`` with a client of ``cluster`` in a thread."""

    async def served() -> None:
        errors: list[BaseException] = []
        loop = asyncio.get_running_loop()
        application = DynamoDBApplication(
            cluster.dynamodb,
            Verifier({}, wall_us=cluster.coordinator.wall_us),
            rng=random.Random(3),
            report=errors.append,
        )
        server = HttpServer(application, on_error=errors.append, body_bound=body_bound, too_large=too_large)
        port = await server.listen("127.0.0.1", 0)
        try:
            await asyncio.wait_for(loop.run_in_executor(None, work, client_of(port)), timeout=30)
        finally:
            await server.close(1.0)
        assert not errors

    cluster.run(served())


def client_of(port: int) -> Any:
    return boto3.client(
        "dynamodb",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"max_attempts": 0}),
    )


def test_boto3_puts_gets_scans_queries_and_deletes(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        for number in range(5):
            item = {"p": {"S": "é"}, "s": {"N": str(number)}, "b": {"B": b"\x00\xff"}}
            client.put_item(TableName="tsn", Item=item)
        key = {"p": {"S": "é"}, "s": {"N": "3"}}
        assert client.get_item(TableName="tsn", Key=key)["Item"]["b"] == {"B": b"\x00\xff"}
        pages = client.get_paginator("scan").paginate(TableName="tsn", PaginationConfig={"PageSize": 2})
        assert [page["Count"] for page in pages] == [2, 2, 1]
        client.delete_item(TableName="tsn", Key=key)
        found = client.query(
            TableName="tsn",
            KeyConditionExpression="p = :p AND s >= :s",
            ExpressionAttributeValues={":p": {"S": "é"}, ":s": {"N": "2"}},
        )
        assert [item["s"]["N"] for item in found["Items"]] == ["2", "4"]

    serve(cluster, work)


def test_boto3_updates_on_conditions(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        key = {"p": {"S": "é"}, "s": {"N": "1"}}
        add: dict[str, Any] = {
            "TableName": "tsn",
            "Key": key,
            "UpdateExpression": "ADD n :v SET l = list_append(if_not_exists(l, :e), :l)",
            "ExpressionAttributeValues": {":v": {"N": "1"}, ":e": {"L": []}, ":l": {"L": [{"B": b"\xff"}]}},
            "ReturnValues": "ALL_NEW",
        }
        client.update_item(**add)
        assert client.update_item(**add)["Attributes"] == {
            **key,
            "n": {"N": "2"},
            "l": {"L": [{"B": b"\xff"}, {"B": b"\xff"}]},
        }
        with pytest.raises(client.exceptions.ConditionalCheckFailedException, match="conditional request") as caught:
            client.delete_item(
                TableName="tsn",
                Key=key,
                ConditionExpression="size(l) > n",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        assert caught.value.response["Item"]["n"] == {"N": "2"}
        assert client.delete_item(TableName="tsn", Key=key, ConditionExpression="size(l) = n", ReturnValues="ALL_OLD")[
            "Attributes"
        ]["n"] == {"N": "2"}

    serve(cluster, work)


def test_boto3_makes_waits_for_and_drops_a_table(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        client.create_table(
            TableName="new",
            AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        client.get_waiter("table_exists").wait(TableName="new")
        assert "new" in client.list_tables()["TableNames"]
        with pytest.raises(client.exceptions.ResourceInUseException):
            client.create_table(
                TableName="new",
                AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        client.delete_table(TableName="new")
        client.get_waiter("table_not_exists").wait(TableName="new")

    serve(cluster, work)


def test_boto3_changes_tags_and_describes_a_table(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        client.update_table(TableName="str", TableClass="STANDARD_INFREQUENT_ACCESS", DeletionProtectionEnabled=True)
        client.get_waiter("table_exists").wait(TableName="str")
        table = client.describe_table(TableName="str")["Table"]
        assert table["TableClassSummary"]["LastUpdateDateTime"] == table["CreationDateTime"]
        client.tag_resource(ResourceArn=table["TableArn"], Tags=[{"Key": "a", "Value": "b"}, {"Key": "c", "Value": ""}])
        client.untag_resource(ResourceArn=table["TableArn"], TagKeys=["c"])
        pages = client.get_paginator("list_tags_of_resource").paginate(ResourceArn=table["TableArn"])
        assert [page["Tags"] for page in pages] == [[{"Key": "a", "Value": "b"}]]
        assert client.describe_endpoints()["Endpoints"][0]["CachePeriodInMinutes"] == 1440
        names = client.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
        assert [name for page in names for name in page["TableNames"]] == ["bin", "num", "str", "tsb", "tsn", "tss"]

    serve(cluster, work)


def test_boto3_understands_our_errors(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        with pytest.raises(client.exceptions.ResourceNotFoundException, match="Requested resource not found"):
            client.get_item(TableName="nope", Key={"p": {"S": "a"}})
        with pytest.raises(
            ClientError, match=r"ValidationException.*The provided key element does not match the schema"
        ):
            client.get_item(TableName="str", Key={"q": {"S": "a"}})
        with pytest.raises(ClientError, match="UnknownOperationException"):
            client.list_backups()

    serve(cluster, work)


@pytest.mark.parametrize("size", [401 * 1024, 5 * 1024 * 1024])
def test_boto3_is_told_that_an_item_is_too_large_however_large(cluster: Cluster, size: int) -> None:
    def work(client: Any) -> None:
        with pytest.raises(ClientError) as caught:
            client.put_item(TableName="str", Item={"p": {"S": "a"}, "large": {"S": "x" * size}})
        assert caught.value.response["Error"] == {
            "Code": "ValidationException",
            "Message": "Item size has exceeded the maximum allowed size",
        }

    serve(cluster, work)


def test_a_compressed_request_gets_a_compressed_page_with_the_checksum_of_its_bytes(cluster: Cluster) -> None:
    def work(client: Any) -> None:
        for number in range(50):
            client.put_item(TableName="tsn", Item={"p": {"S": "a"}, "s": {"N": str(number)}, "text": {"S": "x" * 50}})
        request = urllib.request.Request(
            client.meta.endpoint_url,
            data=gzip.compress(b'{"TableName":"tsn"}'),
            headers={
                "X-Amz-Target": "DynamoDB_20120810.Scan",
                "Content-Type": "application/x-amz-json-1.0",
                "Content-Encoding": "gzip",
                "Accept-Encoding": "gzip",
                "X-Amz-Date": "20260921T133320Z",
                "Authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0",
            },
        )
        with urllib.request.urlopen(request) as response:
            body = response.read()
            assert response.headers["Content-Encoding"] == "gzip"
            assert int(response.headers["x-amz-crc32"]) == zlib.crc32(body)
            assert len(orjson.loads(gzip.decompress(body))["Items"]) == 50

    serve(cluster, work)
