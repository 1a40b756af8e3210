"""The scenarios of `expected` through a boto3 client: paginators, waiters, typed exceptions."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import boto3

SPECIES = {"S": "merganser"}
LARGE_ITEMS, LARGE_BYTES = 44, 399_000
TRIES = 1000
"""To find in a global index what was just written: it comes soon, and no later than the client has asked so often."""


def error_of(call: Any, *kinds: Any, **arguments: Any) -> Any:
    try:
        call(**arguments)
    except kinds as error:
        return error
    raise AssertionError("it was not refused")


def name_of(error: Any) -> str:
    return str(error.response["Error"]["Code"])


def key(seen: int) -> dict[str, Any]:
    return {"species": SPECIES, "seen": {"N": str(seen)}}


def tables(client: Any, table: str) -> dict[str, Any]:
    schema = {
        "TableName": table,
        "AttributeDefinitions": [
            {"AttributeName": "species", "AttributeType": "S"},
            {"AttributeName": "seen", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "species", "KeyType": "HASH"},
            {"AttributeName": "seen", "KeyType": "RANGE"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }
    client.create_table(**schema)
    client.get_waiter("table_exists").wait(TableName=table)
    described = client.describe_table(TableName=table)["Table"]
    return {
        "made": [described["TableStatus"], *(one["AttributeName"] for one in described["KeySchema"])],
        "again": name_of(error_of(client.create_table, client.exceptions.ResourceInUseException, **schema)),
        "missing": name_of(
            error_of(client.describe_table, client.exceptions.ResourceNotFoundException, TableName="missing")
        ),
    }


def batches(client: Any, table: str) -> dict[str, Any]:
    puts = [{"PutRequest": {"Item": {**key(i), "size": {"N": str(i)}}}} for i in range(1, 27)]
    left, written = {table: puts[:25]}, 0
    while left:
        before = len(left[table])
        left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
        written += before - len(left.get(table, []))
    wanted: Any = {table: {"Keys": [key(i) for i in range(1, 26)], "ConsistentRead": True}}
    read = 0
    while wanted:
        answer = client.batch_get_item(RequestItems=wanted)
        read += len(answer["Responses"][table])
        wanted = answer["UnprocessedKeys"]
    too_many = error_of(client.batch_write_item, client.exceptions.ClientError, RequestItems={table: puts})
    return {"written": written, "read": read, "too_many": name_of(too_many)}


def pages(client: Any, table: str) -> dict[str, Any]:
    asked = {
        "TableName": table,
        "KeyConditionExpression": "species = :s",
        "ExpressionAttributeValues": {":s": SPECIES},
        "ConsistentRead": True,
    }
    found = list(client.get_paginator("query").paginate(**asked, PaginationConfig={"PageSize": 10}))
    backwards = client.query(**asked, ScanIndexForward=False, Limit=3)
    asked["ExpressionAttributeValues"] = {":s": SPECIES, ":size": {"N": "20"}}
    filtered = client.query(**asked, FilterExpression="#size > :size", ExpressionAttributeNames={"#size": "size"})
    scan = client.get_paginator("scan")
    scanned = scan.paginate(TableName=table, ConsistentRead=True, PaginationConfig={"PageSize": 7})
    segments = [scan.paginate(TableName=table, ConsistentRead=True, Segment=i, TotalSegments=2) for i in (0, 1)]
    return {
        "query": [page["Count"] for page in found],
        "seen": [int(item["seen"]["N"]) for page in found for item in page["Items"]],
        "backwards": [int(item["seen"]["N"]) for item in backwards["Items"]],
        "filtered": [int(item["seen"]["N"]) for item in filtered["Items"]],
        "scan": [page["Count"] for page in scanned],
        "segments": sum(page["Count"] for segment in segments for page in segment),
    }


def unprocessed(client: Any, table: str) -> dict[str, Any]:
    """Ask for more than the 16 MB that one answer holds."""
    keys = [{"species": {"S": "large"}, "seen": {"N": str(i)}} for i in range(LARGE_ITEMS)]
    puts = [{"PutRequest": {"Item": {**one, "text": {"S": "x" * LARGE_BYTES}}}} for one in keys]
    for half in (puts[::2], puts[1::2]):
        left = {table: half}
        while left:
            left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
    wanted: Any = {table: {"Keys": keys, "ConsistentRead": True, "ProjectionExpression": "seen"}}
    found: list[list[int]] = []
    while wanted:
        answer = client.batch_get_item(RequestItems=wanted)
        found.append(sorted(int(item["seen"]["N"]) for item in answer["Responses"][table]))
        wanted = answer["UnprocessedKeys"]
    for half in (keys[::2], keys[1::2]):
        client.batch_write_item(RequestItems={table: [{"DeleteRequest": {"Key": one}} for one in half]})
    return {
        "answers": len(found),
        "found": sorted(seen for answer in found for seen in answer) == list(range(LARGE_ITEMS)),
    }


def items(client: Any, table: str) -> dict[str, Any]:
    client.put_item(TableName=table, Item={**key(1758), "genus": {"S": "Mergus"}})
    read = client.get_item(TableName=table, Key=key(1758), ConsistentRead=True)["Item"]["genus"]["S"]
    absent = "Item" not in client.get_item(TableName=table, Key=key(9999), ConsistentRead=True)
    for _ in range(2):
        updated = client.update_item(
            TableName=table,
            Key=key(1758),
            UpdateExpression="SET #count = if_not_exists(#count, :zero) + :one",
            ExpressionAttributeNames={"#count": "count"},
            ExpressionAttributeValues={":zero": {"N": "0"}, ":one": {"N": "1"}},
            ReturnValues="UPDATED_NEW",
        )
    refused = error_of(
        client.put_item,
        client.exceptions.ConditionalCheckFailedException,
        TableName=table,
        Item=key(1758),
        ConditionExpression="attribute_not_exists(species)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    deleted = client.delete_item(TableName=table, Key=key(1758), ReturnValues="ALL_OLD")
    return {
        "read": read,
        "absent": absent,
        "counted": updated["Attributes"]["count"]["N"],
        "refused": [name_of(refused), refused.response["Item"]["genus"]["S"]],
        "deleted": deleted["Attributes"]["genus"]["S"],
    }


def types(client: Any, table: str, item: dict[str, Any]) -> dict[str, Any]:
    client.put_item(TableName=table, Item={name: from_json(value) for name, value in item.items()})
    wanted = {name: from_json(item[name]) for name in ("species", "seen")}
    found = client.get_item(TableName=table, Key=wanted, ConsistentRead=True)["Item"]
    return {name: to_json(value) for name, value in found.items()}


def from_json(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    if kind == "B":
        return {"B": base64.b64decode(content)}
    return {"BS": [base64.b64decode(one) for one in content]} if kind == "BS" else value


def to_json(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    if kind == "B":
        return {"B": base64.b64encode(content).decode()}
    return {"BS": [base64.b64encode(one).decode() for one in content]} if kind == "BS" else value


def transactions(client: Any, table: str) -> dict[str, Any]:
    places = [{"species": {"S": "pair"}, "seen": {"N": str(i)}} for i in (1, 2)]
    puts = [
        {"Put": {"TableName": table, "Item": {**place, "name": {"S": name}}}}
        for place, name in zip(places, ("one", "two"), strict=True)
    ]
    for _ in range(2):
        client.transact_write_items(TransactItems=puts, ClientRequestToken=f"token of {table}"[:36])
    check = {"TableName": table, "Key": places[1], "ConditionExpression": "attribute_not_exists(species)"}
    cancelled = error_of(
        client.transact_write_items,
        client.exceptions.TransactionCanceledException,
        TransactItems=[{"Delete": {"TableName": table, "Key": places[0]}}, {"ConditionCheck": check}],
    )
    gets = [{"Get": {"TableName": table, "Key": place}} for place in places]
    read = client.transact_get_items(TransactItems=gets)["Responses"]
    reasons = [reason["Code"] for reason in cancelled.response["CancellationReasons"]]
    return {
        "read": [answer["Item"]["name"]["S"] for answer in read],
        "cancelled": [name_of(cancelled), reasons],
    }


SECOND = {
    "AttributeDefinitions": [
        {"AttributeName": "species", "AttributeType": "S"},
        {"AttributeName": "seen", "AttributeType": "N"},
        {"AttributeName": "size", "AttributeType": "N"},
        {"AttributeName": "genus", "AttributeType": "S"},
    ],
    "KeySchema": [{"AttributeName": "species", "KeyType": "HASH"}, {"AttributeName": "seen", "KeyType": "RANGE"}],
    "LocalSecondaryIndexes": [
        {
            "IndexName": "by-size",
            "KeySchema": [
                {"AttributeName": "species", "KeyType": "HASH"},
                {"AttributeName": "size", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-genus",
            "KeySchema": [{"AttributeName": "genus", "KeyType": "HASH"}, {"AttributeName": "seen", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["name"]},
        }
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


def indexed(seen: int) -> dict[str, Any]:
    more = {"genus": {"S": "Mergus"}} if seen < 3 else {}
    return {**key(seen), "size": {"N": str(10 - seen)}, "name": {"S": str(seen)}, "other": {"S": "x"}, **more}


def indexes(client: Any, table: str) -> dict[str, Any]:
    client.create_table(TableName=table, **SECOND)
    client.get_waiter("table_exists").wait(TableName=table)
    for seen in (1, 2, 3):
        client.put_item(TableName=table, Item=indexed(seen))
    by_size = {"TableName": table, "IndexName": "by-size", "KeyConditionExpression": "species = :s"}
    local = client.query(**by_size, ExpressionAttributeValues={":s": SPECIES}, ConsistentRead=True)["Items"]
    by_genus = {
        "TableName": table,
        "IndexName": "by-genus",
        "KeyConditionExpression": "genus = :g",
        "ExpressionAttributeValues": {":g": {"S": "Mergus"}},
    }
    for _ in range(TRIES):
        found = client.query(**by_genus)["Items"]
        if len(found) == 2:
            break
    described = client.describe_table(TableName=table)["Table"]
    (of_genus,) = described["GlobalSecondaryIndexes"]
    return {
        "described": [
            *(of_genus["IndexName"], of_genus["IndexStatus"]),
            *(index["IndexName"] for index in described["LocalSecondaryIndexes"]),
        ],
        "local": [int(item["seen"]["N"]) for item in local],
        "global": [int(item["seen"]["N"]) for item in found],
        "projected": sorted(found[0]),
        "consistent": name_of(error_of(client.query, client.exceptions.ClientError, **by_genus, ConsistentRead=True)),
    }


def measures(client: Any, table: str) -> dict[str, Any]:
    """A new item is written to the table and both indexes; less than 4 KB are read, eventually consistent, from one."""
    wrote = client.put_item(
        TableName=table,
        Item={**indexed(1), **key(9)},
        ReturnConsumedCapacity="INDEXES",
        ReturnItemCollectionMetrics="SIZE",
    )
    read = client.query(
        TableName=table,
        IndexName="by-genus",
        KeyConditionExpression="genus = :g",
        ExpressionAttributeValues={":g": {"S": "Mergus"}},
        ReturnConsumedCapacity="TOTAL",
    )
    client.delete_item(TableName=table, Key=key(9))
    capacity = wrote["ConsumedCapacity"]
    return {
        "wrote": [
            capacity["CapacityUnits"],
            capacity["Table"]["CapacityUnits"],
            capacity["LocalSecondaryIndexes"]["by-size"]["CapacityUnits"],
            capacity["GlobalSecondaryIndexes"]["by-genus"]["CapacityUnits"],
        ],
        "read": read["ConsumedCapacity"]["CapacityUnits"],
        "collection": wrote["ItemCollectionMetrics"]["ItemCollectionKey"],
    }


def index_changes(client: Any, table: str) -> dict[str, Any]:
    """Add an index to a table with items, wait for it, read it, drop it."""
    added = {
        "IndexName": "by-name",
        "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    became = client.update_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": added}],
    )["TableDescription"]
    until(lambda: states_of(client, table).get("by-name") == "ACTIVE")
    found = client.query(
        TableName=table,
        IndexName="by-name",
        KeyConditionExpression="#n = :n",
        ExpressionAttributeNames={"#n": "name"},
        ExpressionAttributeValues={":n": {"S": "3"}},
    )["Items"]
    client.update_table(TableName=table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-name"}}])
    until(lambda: "by-name" not in states_of(client, table))
    return {
        "became": [one["IndexStatus"] for one in became["GlobalSecondaryIndexes"] if one["IndexName"] == "by-name"],
        "found": found == [indexed(3)],
        "left": states_of(client, table),
    }


def states_of(client: Any, table: str) -> dict[str, str]:
    described = client.describe_table(TableName=table)["Table"]
    return {index["IndexName"]: index["IndexStatus"] for index in described["GlobalSecondaryIndexes"]}


def until(condition: Any) -> None:
    """There is no waiter for indexes: clients look again and again."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def settings(client: Any, table: str) -> dict[str, Any]:
    expiry = {"Enabled": True, "AttributeName": "expires"}
    client.update_time_to_live(TableName=table, TimeToLiveSpecification=expiry)
    expires = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    arn = client.describe_table(TableName=table)["Table"]["TableArn"]
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    client.untag_resource(ResourceArn=arn, TagKeys=["a"])
    tags = client.list_tags_of_resource(ResourceArn=arn)["Tags"]
    client.update_table(TableName=table, DeletionProtectionEnabled=True)
    client.get_waiter("table_exists").wait(TableName=table)
    protected = error_of(client.delete_table, client.exceptions.ClientError, TableName=table)
    client.update_table(TableName=table, DeletionProtectionEnabled=False)
    client.get_waiter("table_exists").wait(TableName=table)
    return {
        "expiry": [expires["TimeToLiveStatus"], expires["AttributeName"]],
        "tags": [[tag["Key"], tag["Value"]] for tag in tags],
        "protected": name_of(protected),
    }


def legacy(client: Any, table: str) -> dict[str, Any]:
    refused = error_of(
        client.put_item,
        client.exceptions.ConditionalCheckFailedException,
        TableName=table,
        Item=key(1),
        Expected={"species": {"Exists": False}},
    )
    found = client.query(
        TableName=table,
        KeyConditions={"species": {"AttributeValueList": [SPECIES], "ComparisonOperator": "EQ"}},
        QueryFilter={"size": {"AttributeValueList": [{"N": "8"}], "ComparisonOperator": "GE"}},
        AttributesToGet=["seen"],
    )
    return {"refused": name_of(refused), "seen": [int(item["seen"]["N"]) for item in found["Items"]]}


def dropped(client: Any, table: str, second: str) -> dict[str, Any]:
    for name in (table, second):
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name)
    gone = error_of(client.describe_table, client.exceptions.ResourceNotFoundException, TableName=table)
    names = [name for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]]
    return {"gone": name_of(gone), "is_listed": table in names or second in names}


def main() -> None:
    table, item = sys.argv[1], json.loads(sys.argv[2])
    client = boto3.client("dynamodb")
    seen = {
        "tables": tables(client, table),
        "batches": batches(client, table),
        "pages": pages(client, table),
        "unprocessed": unprocessed(client, table),
        "items": items(client, table),
        "types": types(client, table, item),
        "transactions": transactions(client, table),
        "indexes": indexes(client, f"{table}-2"),
        "measures": measures(client, f"{table}-2"),
        "index_changes": index_changes(client, f"{table}-2"),
        "settings": settings(client, f"{table}-2"),
        "legacy": legacy(client, f"{table}-2"),
        "dropped": dropped(client, table, f"{table}-2"),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
