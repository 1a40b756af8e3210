"""The scenarios of `expected` through the AWS CLI: a process for each step; it knows errors by their text.

It pages by itself.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from boto3_client import SECOND, indexed

AWS = [sys.executable, str(Path(sys.executable).with_name("aws")), "dynamodb"]
TABLE, TWO, ITEM = sys.argv[1], f"{sys.argv[1]}-2", json.loads(sys.argv[2])
ERROR = re.compile(r"An error occurred \((\w+)\) when calling the (\w+) operation: (.*)")


def aws(operation: str, *flags: str, **options: object) -> Any:
    """Run a command; returns its answer, or the code of its error and the text after that."""
    given = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value))
    ]
    done = subprocess.run([*AWS, operation, *flags, *given], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout) if done.stdout else None
    found = ERROR.search(done.stderr)
    assert found is not None, done.stderr
    return found[1], found[3]


def key(seen: int) -> dict[str, Any]:
    return {"species": {"S": "merganser"}, "seen": {"N": str(seen)}}


def tables() -> dict[str, Any]:
    schema: dict[str, Any] = {
        "table_name": TABLE,
        "attribute_definitions": [
            {"AttributeName": "species", "AttributeType": "S"},
            {"AttributeName": "seen", "AttributeType": "N"},
        ],
        "key_schema": [
            {"AttributeName": "species", "KeyType": "HASH"},
            {"AttributeName": "seen", "KeyType": "RANGE"},
        ],
        "billing_mode": "PAY_PER_REQUEST",
    }
    aws("create-table", **schema)
    aws("wait", "table-exists", table_name=TABLE)
    described = aws("describe-table", table_name=TABLE)["Table"]
    return {
        "made": [described["TableStatus"], *(one["AttributeName"] for one in described["KeySchema"])],
        "again": aws("create-table", **schema)[0],
        "missing": aws("describe-table", table_name="missing")[0],
    }


def batches() -> dict[str, Any]:
    puts = [{"PutRequest": {"Item": {**key(i), "size": {"N": str(i)}}}} for i in range(1, 27)]
    wrote = aws("batch-write-item", request_items={TABLE: puts[:25]})
    keys = {TABLE: {"Keys": [key(i) for i in range(1, 26)], "ConsistentRead": True}}
    read = aws("batch-get-item", request_items=keys)
    return {
        "written": 25 - len(wrote["UnprocessedItems"].get(TABLE, [])),
        "read": len(read["Responses"][TABLE]),
        "too_many": aws("batch-write-item", request_items={TABLE: puts})[0],
    }


def seen_of(answer: Any) -> list[int]:
    return [int(item["seen"]["N"]) for item in answer["Items"]]


def pages() -> dict[str, Any]:
    asked: dict[str, Any] = {"table_name": TABLE, "key_condition_expression": "species = :s"}
    asked["expression_attribute_values"] = {":s": {"S": "merganser"}}
    query = aws("query", "--consistent-read", page_size="10", **asked)
    backwards = aws("query", "--consistent-read", "--no-scan-index-forward", max_items="3", **asked)
    asked["expression_attribute_values"][":size"] = {"N": "20"}
    size = {"filter_expression": "#size > :size", "expression_attribute_names": {"#size": "size"}}
    segments = [
        aws("scan", "--consistent-read", table_name=TABLE, segment=str(i), total_segments="2") for i in range(2)
    ]
    return {
        "query": query["Count"],
        "seen": seen_of(query),
        "backwards": seen_of(backwards),
        "filtered": seen_of(aws("query", "--consistent-read", **asked, **size)),
        "scan": aws("scan", "--consistent-read", table_name=TABLE, page_size="7")["Count"],
        "segments": sum(segment["Count"] for segment in segments),
    }


def items() -> dict[str, Any]:
    aws("put-item", table_name=TABLE, item={**key(1758), "genus": {"S": "Mergus"}})
    read = aws("get-item", "--consistent-read", table_name=TABLE, key=key(1758))
    absent = aws("get-item", "--consistent-read", table_name=TABLE, key=key(9999))
    for _ in range(2):
        updated = aws(
            "update-item",
            table_name=TABLE,
            key=key(1758),
            update_expression="SET #count = if_not_exists(#count, :zero) + :one",
            expression_attribute_names={"#count": "count"},
            expression_attribute_values={":zero": {"N": "0"}, ":one": {"N": "1"}},
            return_values="UPDATED_NEW",
        )
    refused = aws("put-item", table_name=TABLE, item=key(1758), condition_expression="attribute_not_exists(species)")
    assert refused[1] == "The conditional request failed"
    deleted = aws("delete-item", table_name=TABLE, key=key(1758), return_values="ALL_OLD")
    return {
        "read": read["Item"]["genus"]["S"],
        "absent": absent is None,
        "counted": updated["Attributes"]["count"]["N"],
        "refused": refused[0],
        "deleted": deleted["Attributes"]["genus"]["S"],
    }


def types() -> dict[str, Any]:
    aws("put-item", table_name=TABLE, item=ITEM)
    found = aws("get-item", "--consistent-read", table_name=TABLE, key={k: ITEM[k] for k in ("species", "seen")})
    return {name: as_given(value) for name, value in found["Item"].items()}


def as_given(value: dict[str, Any]) -> dict[str, Any]:
    """Return what was written: version 1 takes binaries as text, and prints them in base64."""
    ((kind, content),) = value.items()
    if kind == "B":
        return {"B": base64.b64decode(content).decode()}
    return {"BS": sorted(base64.b64decode(one).decode() for one in content)[::-1]} if kind == "BS" else value


def transactions() -> dict[str, Any]:
    places = [{"species": {"S": "pair"}, "seen": {"N": str(i)}} for i in (1, 2)]
    puts = [
        {"Put": {"TableName": TABLE, "Item": {**place, "name": {"S": name}}}}
        for place, name in zip(places, ("one", "two"), strict=True)
    ]
    for _ in range(2):
        aws("transact-write-items", transact_items=puts, client_request_token=f"token of {TABLE}"[:36])
    check = {"TableName": TABLE, "Key": places[1], "ConditionExpression": "attribute_not_exists(species)"}
    cancelled = aws(
        "transact-write-items",
        transact_items=[{"Delete": {"TableName": TABLE, "Key": places[0]}}, {"ConditionCheck": check}],
    )
    gets = [{"Get": {"TableName": TABLE, "Key": place}} for place in places]
    read = aws("transact-get-items", transact_items=gets)["Responses"]
    reasons = re.search(r"specific reasons \[(.*)\]", cancelled[1])
    assert reasons is not None, cancelled
    return {
        "read": [answer["Item"]["name"]["S"] for answer in read],
        "cancelled": [cancelled[0], reasons[1].split(", ")],
    }


def indexes() -> dict[str, Any]:
    given: dict[str, Any] = {
        "attribute_definitions": SECOND["AttributeDefinitions"],
        "key_schema": SECOND["KeySchema"],
        "local_secondary_indexes": SECOND["LocalSecondaryIndexes"],
        "global_secondary_indexes": SECOND["GlobalSecondaryIndexes"],
        "billing_mode": "PAY_PER_REQUEST",
    }
    aws("create-table", table_name=TWO, **given)
    aws("wait", "table-exists", table_name=TWO)
    aws("batch-write-item", request_items={TWO: [{"PutRequest": {"Item": indexed(seen)}} for seen in (1, 2, 3)]})
    by_size: dict[str, Any] = {"index_name": "by-size", "key_condition_expression": "species = :s"}
    by_size["expression_attribute_values"] = {":s": {"S": "merganser"}}
    by_genus: dict[str, Any] = {"index_name": "by-genus", "key_condition_expression": "genus = :g"}
    by_genus["expression_attribute_values"] = {":g": {"S": "Mergus"}}
    for _ in range(10):
        found = aws("query", table_name=TWO, **by_genus)
        if found["Count"] == 2:
            break
    described = aws("describe-table", table_name=TWO)["Table"]
    (of_genus,) = described["GlobalSecondaryIndexes"]
    return {
        "described": [
            *(of_genus["IndexName"], of_genus["IndexStatus"]),
            *(index["IndexName"] for index in described["LocalSecondaryIndexes"]),
        ],
        "local": seen_of(aws("query", "--consistent-read", table_name=TWO, **by_size)),
        "global": seen_of(found),
        "projected": sorted(found["Items"][0]),
        "consistent": aws("query", "--consistent-read", table_name=TWO, **by_genus)[0],
    }


def settings() -> dict[str, Any]:
    aws("update-time-to-live", table_name=TWO, time_to_live_specification="Enabled=true,AttributeName=expires")
    expires = aws("describe-time-to-live", table_name=TWO)["TimeToLiveDescription"]
    arn = aws("describe-table", table_name=TWO)["Table"]["TableArn"]
    aws("tag-resource", resource_arn=arn, tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    aws("untag-resource", resource_arn=arn, tag_keys="a")
    tags = aws("list-tags-of-resource", resource_arn=arn)["Tags"]
    aws("update-table", "--deletion-protection-enabled", table_name=TWO)
    protected = aws("delete-table", table_name=TWO)[0]
    aws("update-table", "--no-deletion-protection-enabled", table_name=TWO)
    return {
        "expiry": [expires["TimeToLiveStatus"], expires["AttributeName"]],
        "tags": [[tag["Key"], tag["Value"]] for tag in tags],
        "protected": protected,
    }


def legacy() -> dict[str, Any]:
    refused = aws("put-item", table_name=TWO, item=key(1), expected={"species": {"Exists": False}})
    species = {"AttributeValueList": [{"S": "merganser"}], "ComparisonOperator": "EQ"}
    size = {"AttributeValueList": [{"N": "8"}], "ComparisonOperator": "GE"}
    conditions = {"key_conditions": {"species": species}, "query_filter": {"size": size}}
    return {
        "refused": refused[0],
        "seen": seen_of(aws("query", table_name=TWO, attributes_to_get="seen", **conditions)),
    }


def dropped() -> dict[str, Any]:
    for name in (TABLE, TWO):
        aws("delete-table", table_name=name)
        aws("wait", "table-not-exists", table_name=name)
    return {
        "gone": aws("describe-table", table_name=TABLE)[0],
        "is_listed": bool({TABLE, TWO} & set(aws("list-tables")["TableNames"])),
    }


SCENARIOS = (tables, batches, pages, items, types, transactions, indexes, settings, legacy, dropped)

if __name__ == "__main__":
    json.dump({scenario.__name__: scenario() for scenario in SCENARIOS}, sys.stdout)
