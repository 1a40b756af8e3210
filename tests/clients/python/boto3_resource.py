"""The scenarios of `expected` through boto3's resource: tables and conditions as objects, batch writer, decimals."""

from __future__ import annotations

import base64
import json
import sys
from decimal import Decimal
from typing import Any

import boto3
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer
from boto3_client import SECOND, TRIES
from botocore.exceptions import ClientError


def error_of(call: Any, *kinds: Any, **arguments: Any) -> Any:
    try:
        call(**arguments)
    except kinds as error:
        return error
    raise AssertionError("it was not refused")


def name_of(error: Any) -> str:
    return str(error.response["Error"]["Code"])


def key(seen: int) -> dict[str, Any]:
    return {"species": "merganser", "seen": seen}


def tables(dynamodb: Any, name: str) -> dict[str, Any]:
    exceptions = dynamodb.meta.client.exceptions
    schema = {
        "TableName": name,
        "AttributeDefinitions": [
            {"AttributeName": "species", "AttributeType": "S"},
            {"AttributeName": "seen", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "species", "KeyType": "HASH"},
            {"AttributeName": "seen", "KeyType": "RANGE"},
        ],
        "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    }
    table = dynamodb.create_table(**schema)
    table.wait_until_exists()
    table.reload()  # what it knows is what CreateTable answered
    return {
        "made": [table.table_status, *(one["AttributeName"] for one in table.key_schema)],
        "again": name_of(error_of(dynamodb.create_table, exceptions.ResourceInUseException, **schema)),
        "missing": name_of(error_of(dynamodb.Table("missing").load, exceptions.ResourceNotFoundException)),
    }


def batches(dynamodb: Any, table: Any) -> dict[str, Any]:
    with table.batch_writer() as batch:
        for i in range(1, 26):
            batch.put_item(Item={**key(i), "size": i})
    wanted: Any = {table.name: {"Keys": [key(i) for i in range(1, 26)], "ConsistentRead": True}}
    read = 0
    while wanted:
        answer = dynamodb.batch_get_item(RequestItems=wanted)
        read += len(answer["Responses"][table.name])
        wanted = answer["UnprocessedKeys"]
    puts = [{"PutRequest": {"Item": key(i)}} for i in range(26)]
    too_many = error_of(dynamodb.batch_write_item, ClientError, RequestItems={table.name: puts})
    written = table.scan(Select="COUNT", ConsistentRead=True)["Count"]
    return {"written": written, "read": read, "too_many": name_of(too_many)}


def listed(method: Any, **arguments: Any) -> list[dict[str, Any]]:
    found = [method(**arguments)]
    while "LastEvaluatedKey" in found[-1]:
        found.append(method(**arguments, ExclusiveStartKey=found[-1]["LastEvaluatedKey"]))
    return found


def pages(table: Any) -> dict[str, Any]:
    asked: Any = {"KeyConditionExpression": Key("species").eq("merganser") & Key("seen").gt(0), "ConsistentRead": True}
    found = listed(table.query, **asked, Limit=10)
    backwards = table.query(**asked, ScanIndexForward=False, Limit=3)
    filtered = table.query(**asked, FilterExpression=Attr("size").gt(20))
    scanned = listed(table.scan, ConsistentRead=True, Limit=7)
    segments = [listed(table.scan, ConsistentRead=True, Segment=i, TotalSegments=2) for i in (0, 1)]
    return {
        "query": [page["Count"] for page in found],
        "seen": [int(item["seen"]) for page in found for item in page["Items"]],
        "backwards": [int(item["seen"]) for item in backwards["Items"]],
        "filtered": [int(item["seen"]) for item in filtered["Items"]],
        "scan": [page["Count"] for page in scanned],
        "segments": sum(page["Count"] for segment in segments for page in segment),
    }


def items(dynamodb: Any, table: Any) -> dict[str, Any]:
    table.put_item(Item={**key(1758), "genus": "Mergus"})
    read = table.get_item(Key=key(1758), ConsistentRead=True)["Item"]["genus"]
    absent = "Item" not in table.get_item(Key=key(9999), ConsistentRead=True)
    for _ in range(2):
        updated = table.update_item(
            Key=key(1758),
            UpdateExpression="ADD #count :one",
            ExpressionAttributeNames={"#count": "count"},
            ExpressionAttributeValues={":one": 1},
            ReturnValues="UPDATED_NEW",
        )
    refused = error_of(
        table.put_item,
        dynamodb.meta.client.exceptions.ConditionalCheckFailedException,
        Item=key(1758),
        ConditionExpression=Attr("species").not_exists() | Attr("genus").begins_with("X"),
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    deleted = table.delete_item(Key=key(1758), ReturnValues="ALL_OLD")
    return {
        "read": read,
        "absent": absent,
        "counted": str(updated["Attributes"]["count"]),
        "refused": [name_of(refused), refused.response["Item"]["genus"]["S"]],
        "deleted": deleted["Attributes"]["genus"],
    }


def types(table: Any, item: dict[str, Any]) -> dict[str, Any]:
    """The number ``small`` has 38 digits, which is all that boto3's context for decimals lets through."""
    python = {name: TypeDeserializer().deserialize(from_json(value)) for name, value in item.items()}
    table.put_item(Item=python)
    found = table.get_item(Key={"species": python["species"], "seen": python["seen"]}, ConsistentRead=True)["Item"]
    assert found["whole"] == Decimal(item["whole"]["N"])
    assert isinstance(found["bytes"], Binary)
    return {name: to_json(TypeSerializer().serialize(value)) for name, value in found.items()}


def from_json(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    if kind == "B":
        return {"B": base64.b64decode(content)}
    return {"BS": [base64.b64decode(one) for one in content]} if kind == "BS" else value


def to_json(value: dict[str, Any]) -> dict[str, Any]:
    """Python's sets have no order, and exponents are boto3's own way to print a decimal."""
    ((kind, content),) = value.items()
    if kind == "N":
        return {"N": f"{Decimal(content):f}"}
    if kind in ("SS", "NS"):
        return {kind: sorted(content, key=lambda one: (len(one), one) if kind == "NS" else (0, one))}
    if kind == "B":
        return {"B": base64.b64encode(content).decode()}
    return {"BS": [base64.b64encode(one).decode() for one in sorted(content)]} if kind == "BS" else value


def transactions(dynamodb: Any, table: Any) -> dict[str, Any]:
    """Transactions are the client's that the resource carries, which also takes plain values."""
    client = dynamodb.meta.client
    places = [{"species": "pair", "seen": i} for i in (1, 2)]
    named = zip(places, ("one", "two"), strict=True)
    puts = [{"Put": {"TableName": table.name, "Item": {**place, "name": name}}} for place, name in named]
    for _ in range(2):
        client.transact_write_items(TransactItems=puts, ClientRequestToken=f"token of {table.name}"[:36])
    check = {"TableName": table.name, "Key": places[1], "ConditionExpression": "attribute_not_exists(species)"}
    cancelled = error_of(
        client.transact_write_items,
        client.exceptions.TransactionCanceledException,
        TransactItems=[{"Delete": {"TableName": table.name, "Key": places[0]}}, {"ConditionCheck": check}],
    )
    gets = [{"Get": {"TableName": table.name, "Key": place}} for place in places]
    read = client.transact_get_items(TransactItems=gets)["Responses"]
    reasons = [reason["Code"] for reason in cancelled.response["CancellationReasons"]]
    return {"read": [answer["Item"]["name"] for answer in read], "cancelled": [name_of(cancelled), reasons]}


def indexes(dynamodb: Any, name: str) -> dict[str, Any]:
    table = dynamodb.create_table(TableName=name, **SECOND)
    table.wait_until_exists()
    table.reload()
    with table.batch_writer() as batch:
        for seen in (1, 2, 3):
            more = {"genus": "Mergus"} if seen < 3 else {}
            batch.put_item(Item={**key(seen), "size": 10 - seen, "name": str(seen), "other": "x", **more})
    local = table.query(
        IndexName="by-size", KeyConditionExpression=Key("species").eq("merganser"), ConsistentRead=True
    )["Items"]
    by_genus: Any = {"IndexName": "by-genus", "KeyConditionExpression": Key("genus").eq("Mergus")}
    for _ in range(TRIES):
        found = table.query(**by_genus)["Items"]
        if len(found) == 2:
            break
    (of_genus,) = table.global_secondary_indexes
    names = [index["IndexName"] for index in table.local_secondary_indexes]
    return {
        "described": [of_genus["IndexName"], of_genus["IndexStatus"], *names],
        "local": [int(item["seen"]) for item in local],
        "global": [int(item["seen"]) for item in found],
        "projected": sorted(found[0]),
        "consistent": name_of(error_of(table.query, ClientError, **by_genus, ConsistentRead=True)),
    }


def settings(dynamodb: Any, table: Any) -> dict[str, Any]:
    """Time to live and tags are the client's that the resource carries."""
    client = dynamodb.meta.client
    expiry = {"Enabled": True, "AttributeName": "expires"}
    client.update_time_to_live(TableName=table.name, TimeToLiveSpecification=expiry)
    expires = client.describe_time_to_live(TableName=table.name)["TimeToLiveDescription"]
    client.tag_resource(ResourceArn=table.table_arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    client.untag_resource(ResourceArn=table.table_arn, TagKeys=["a"])
    tags = client.list_tags_of_resource(ResourceArn=table.table_arn)["Tags"]
    table.update(DeletionProtectionEnabled=True)
    table.wait_until_exists()
    protected = error_of(table.delete, ClientError)
    table.update(DeletionProtectionEnabled=False)
    table.wait_until_exists()
    return {
        "expiry": [expires["TimeToLiveStatus"], expires["AttributeName"]],
        "tags": [[tag["Key"], tag["Value"]] for tag in tags],
        "protected": name_of(protected),
    }


def legacy(dynamodb: Any, table: Any) -> dict[str, Any]:
    refused = error_of(
        table.put_item,
        dynamodb.meta.client.exceptions.ConditionalCheckFailedException,
        Item=key(1),
        Expected={"species": {"Exists": False}},
    )
    found = table.query(
        KeyConditions={"species": {"AttributeValueList": ["merganser"], "ComparisonOperator": "EQ"}},
        QueryFilter={"size": {"AttributeValueList": [8], "ComparisonOperator": "GE"}},
        AttributesToGet=["seen"],
    )
    return {"refused": name_of(refused), "seen": [int(item["seen"]) for item in found["Items"]]}


def dropped(dynamodb: Any, table: Any, second: Any) -> dict[str, Any]:
    for one in (table, second):
        one.delete()
        one.wait_until_not_exists()
    gone = error_of(table.load, dynamodb.meta.client.exceptions.ResourceNotFoundException)
    names = {one.name for one in dynamodb.tables.all()}
    return {"gone": name_of(gone), "is_listed": bool(names & {table.name, second.name})}


def main() -> None:
    name, item = sys.argv[1], json.loads(sys.argv[2])
    dynamodb = boto3.resource("dynamodb")
    table, second = dynamodb.Table(name), dynamodb.Table(f"{name}-2")
    seen = {
        "tables": tables(dynamodb, name),
        "batches": batches(dynamodb, table),
        "pages": pages(table),
        "items": items(dynamodb, table),
        "types": types(table, item),
        "transactions": transactions(dynamodb, table),
        "indexes": indexes(dynamodb, second.name),
        "settings": settings(dynamodb, second),
        "legacy": legacy(dynamodb, second),
        "dropped": dropped(dynamodb, table, second),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
