"""The scenarios of `expected` through aiobotocore: as boto3's client, on asyncio and aiohttp, many requests at once."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiobotocore.session import get_session
from boto3_client import SECOND, TRIES, from_json, indexed, key, name_of, to_json

SPECIES = {"S": "merganser"}


async def error_of(call: Any, kind: Any, **arguments: Any) -> Any:
    try:
        await call(**arguments)
    except kind as error:
        return error
    raise AssertionError("it was not refused")


async def tables(client: Any, table: str) -> dict[str, Any]:
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
    await client.create_table(**schema)
    await client.get_waiter("table_exists").wait(TableName=table)
    described = (await client.describe_table(TableName=table))["Table"]
    again = await error_of(client.create_table, client.exceptions.ResourceInUseException, **schema)
    missing = await error_of(client.describe_table, client.exceptions.ResourceNotFoundException, TableName="missing")
    return {
        "made": [described["TableStatus"], *(one["AttributeName"] for one in described["KeySchema"])],
        "again": name_of(again),
        "missing": name_of(missing),
    }


async def batches(client: Any, table: str) -> dict[str, Any]:
    puts = [{"PutRequest": {"Item": {**key(i), "size": {"N": str(i)}}}} for i in range(1, 27)]
    left, written = {table: puts[:25]}, 0
    while left:
        before = len(left[table])
        left = (await client.batch_write_item(RequestItems=left))["UnprocessedItems"]
        written += before - len(left.get(table, []))
    wanted: Any = {table: {"Keys": [key(i) for i in range(1, 26)], "ConsistentRead": True}}
    read = 0
    while wanted:
        answer = await client.batch_get_item(RequestItems=wanted)
        read += len(answer["Responses"][table])
        wanted = answer["UnprocessedKeys"]
    too_many = await error_of(client.batch_write_item, client.exceptions.ClientError, RequestItems={table: puts})
    return {"written": written, "read": read, "too_many": name_of(too_many)}


async def pages(client: Any, table: str) -> dict[str, Any]:
    asked = {
        "TableName": table,
        "KeyConditionExpression": "species = :s",
        "ExpressionAttributeValues": {":s": SPECIES},
        "ConsistentRead": True,
    }
    query = client.get_paginator("query").paginate(**asked, PaginationConfig={"PageSize": 10})
    found = [page async for page in query]
    backwards = await client.query(**asked, ScanIndexForward=False, Limit=3)
    asked["ExpressionAttributeValues"] = {":s": SPECIES, ":size": {"N": "20"}}
    filtered = await client.query(**asked, FilterExpression="#size > :size", ExpressionAttributeNames={"#size": "size"})
    scan = client.get_paginator("scan")

    async def counts(**options: Any) -> list[int]:
        return [page["Count"] async for page in scan.paginate(TableName=table, ConsistentRead=True, **options)]

    segments = await asyncio.gather(*(counts(Segment=i, TotalSegments=2) for i in (0, 1)))
    return {
        "query": [page["Count"] for page in found],
        "seen": [int(item["seen"]["N"]) for page in found for item in page["Items"]],
        "backwards": [int(item["seen"]["N"]) for item in backwards["Items"]],
        "filtered": [int(item["seen"]["N"]) for item in filtered["Items"]],
        "scan": await counts(PaginationConfig={"PageSize": 7}),
        "segments": sum(map(sum, segments)),
    }


async def items(client: Any, table: str) -> dict[str, Any]:
    await client.put_item(TableName=table, Item={**key(1758), "genus": {"S": "Mergus"}})
    read, absent = await asyncio.gather(
        *(client.get_item(TableName=table, Key=key(seen), ConsistentRead=True) for seen in (1758, 9999))
    )

    async def count() -> int:
        updated = await client.update_item(
            TableName=table,
            Key=key(1758),
            UpdateExpression="SET #count = if_not_exists(#count, :zero) + :one",
            ExpressionAttributeNames={"#count": "count"},
            ExpressionAttributeValues={":zero": {"N": "0"}, ":one": {"N": "1"}},
            ReturnValues="UPDATED_NEW",
        )
        return int(updated["Attributes"]["count"]["N"])

    counts = await asyncio.gather(count(), count())
    assert sorted(counts) == [1, 2]
    refused = await error_of(
        client.put_item,
        client.exceptions.ConditionalCheckFailedException,
        TableName=table,
        Item=key(1758),
        ConditionExpression="attribute_not_exists(species)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    deleted = await client.delete_item(TableName=table, Key=key(1758), ReturnValues="ALL_OLD")
    return {
        "read": read["Item"]["genus"]["S"],
        "absent": "Item" not in absent,
        "counted": str(max(counts)),
        "refused": [name_of(refused), refused.response["Item"]["genus"]["S"]],
        "deleted": deleted["Attributes"]["genus"]["S"],
    }


async def types(client: Any, table: str, item: dict[str, Any]) -> dict[str, Any]:
    await client.put_item(TableName=table, Item={name: from_json(value) for name, value in item.items()})
    wanted = {name: from_json(item[name]) for name in ("species", "seen")}
    found = (await client.get_item(TableName=table, Key=wanted, ConsistentRead=True))["Item"]
    return {name: to_json(value) for name, value in found.items()}


async def transactions(client: Any, table: str) -> dict[str, Any]:
    places = [{"species": {"S": "pair"}, "seen": {"N": str(i)}} for i in (1, 2)]
    puts = [
        {"Put": {"TableName": table, "Item": {**place, "name": {"S": name}}}}
        for place, name in zip(places, ("one", "two"), strict=True)
    ]
    for _ in range(2):
        await client.transact_write_items(TransactItems=puts, ClientRequestToken=f"token of {table}"[:36])
    check = {"TableName": table, "Key": places[1], "ConditionExpression": "attribute_not_exists(species)"}
    cancelled = await error_of(
        client.transact_write_items,
        client.exceptions.TransactionCanceledException,
        TransactItems=[{"Delete": {"TableName": table, "Key": places[0]}}, {"ConditionCheck": check}],
    )
    gets = [{"Get": {"TableName": table, "Key": place}} for place in places]
    read = (await client.transact_get_items(TransactItems=gets))["Responses"]
    reasons = [reason["Code"] for reason in cancelled.response["CancellationReasons"]]
    return {"read": [answer["Item"]["name"]["S"] for answer in read], "cancelled": [name_of(cancelled), reasons]}


async def indexes(client: Any, table: str) -> dict[str, Any]:
    await client.create_table(TableName=table, **SECOND)
    await client.get_waiter("table_exists").wait(TableName=table)
    await asyncio.gather(*(client.put_item(TableName=table, Item=indexed(seen)) for seen in (1, 2, 3)))
    by_size = {"TableName": table, "IndexName": "by-size", "KeyConditionExpression": "species = :s"}
    local = await client.query(**by_size, ExpressionAttributeValues={":s": SPECIES}, ConsistentRead=True)
    by_genus = {
        "TableName": table,
        "IndexName": "by-genus",
        "KeyConditionExpression": "genus = :g",
        "ExpressionAttributeValues": {":g": {"S": "Mergus"}},
    }
    for _ in range(TRIES):
        found = (await client.query(**by_genus))["Items"]
        if len(found) == 2:
            break
    described = (await client.describe_table(TableName=table))["Table"]
    (of_genus,) = described["GlobalSecondaryIndexes"]
    names = [index["IndexName"] for index in described["LocalSecondaryIndexes"]]
    consistent = await error_of(client.query, client.exceptions.ClientError, **by_genus, ConsistentRead=True)
    return {
        "described": [of_genus["IndexName"], of_genus["IndexStatus"], *names],
        "local": [int(item["seen"]["N"]) for item in local["Items"]],
        "global": [int(item["seen"]["N"]) for item in found],
        "projected": sorted(found[0]),
        "consistent": name_of(consistent),
    }


async def settings(client: Any, table: str) -> dict[str, Any]:
    expiry = {"Enabled": True, "AttributeName": "expires"}
    await client.update_time_to_live(TableName=table, TimeToLiveSpecification=expiry)
    expires = (await client.describe_time_to_live(TableName=table))["TimeToLiveDescription"]
    arn = (await client.describe_table(TableName=table))["Table"]["TableArn"]
    await client.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    await client.untag_resource(ResourceArn=arn, TagKeys=["a"])
    tags = (await client.list_tags_of_resource(ResourceArn=arn))["Tags"]
    await client.update_table(TableName=table, DeletionProtectionEnabled=True)
    await client.get_waiter("table_exists").wait(TableName=table)
    protected = await error_of(client.delete_table, client.exceptions.ClientError, TableName=table)
    await client.update_table(TableName=table, DeletionProtectionEnabled=False)
    await client.get_waiter("table_exists").wait(TableName=table)
    return {
        "expiry": [expires["TimeToLiveStatus"], expires["AttributeName"]],
        "tags": [[tag["Key"], tag["Value"]] for tag in tags],
        "protected": name_of(protected),
    }


async def legacy(client: Any, table: str) -> dict[str, Any]:
    refused = await error_of(
        client.put_item,
        client.exceptions.ConditionalCheckFailedException,
        TableName=table,
        Item=key(1),
        Expected={"species": {"Exists": False}},
    )
    found = await client.query(
        TableName=table,
        KeyConditions={"species": {"AttributeValueList": [SPECIES], "ComparisonOperator": "EQ"}},
        QueryFilter={"size": {"AttributeValueList": [{"N": "8"}], "ComparisonOperator": "GE"}},
        AttributesToGet=["seen"],
    )
    return {"refused": name_of(refused), "seen": [int(item["seen"]["N"]) for item in found["Items"]]}


async def dropped(client: Any, table: str, second: str) -> dict[str, Any]:
    for name in (table, second):
        await client.delete_table(TableName=name)
        await client.get_waiter("table_not_exists").wait(TableName=name)
    gone = await error_of(client.describe_table, client.exceptions.ResourceNotFoundException, TableName=table)
    names = [name async for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]]
    return {"gone": name_of(gone), "is_listed": table in names or second in names}


async def main() -> None:
    table, item = sys.argv[1], json.loads(sys.argv[2])
    async with get_session().create_client("dynamodb") as client:
        seen = {
            "tables": await tables(client, table),
            "batches": await batches(client, table),
            "pages": await pages(client, table),
            "items": await items(client, table),
            "types": await types(client, table, item),
            "transactions": await transactions(client, table),
            "indexes": await indexes(client, f"{table}-2"),
            "settings": await settings(client, f"{table}-2"),
            "legacy": await legacy(client, f"{table}-2"),
            "dropped": await dropped(client, table, f"{table}-2"),
        }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
