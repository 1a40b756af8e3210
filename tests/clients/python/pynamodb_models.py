"""The scenarios of `expected` through PynamoDB: models, conditions, batches, transactions, retries of its own.

It shows neither pages nor the item that a failed condition met. Its numbers are Python's, so the one of 38 digits below
zero is left out, as is NULL, which it takes for an attribute that is not there.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from pynamodb import attributes
from pynamodb.connection import Connection
from pynamodb.exceptions import (
    DeleteError,
    DoesNotExist,
    PutError,
    QueryError,
    TableDoesNotExist,
    TableError,
    TransactWriteError,
)
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection, KeysOnlyProjection, LocalSecondaryIndex
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite

HOST, REGION = os.environ["AWS_ENDPOINT_URL_DYNAMODB"], os.environ["AWS_REGION"]


class Duck(Model):
    class Meta:
        table_name = sys.argv[1]
        host = HOST
        region = REGION
        billing_mode = "PAY_PER_REQUEST"

    species = attributes.UnicodeAttribute(hash_key=True)
    seen = attributes.NumberAttribute(range_key=True)
    size = attributes.NumberAttribute(null=True)
    counted = attributes.NumberAttribute(attr_name="count", null=True)
    genus = attributes.UnicodeAttribute(null=True)
    name = attributes.UnicodeAttribute(null=True)


class BySize(LocalSecondaryIndex[Any]):
    class Meta:
        index_name = "by-size"
        projection = KeysOnlyProjection()

    species = attributes.UnicodeAttribute(hash_key=True)
    size = attributes.NumberAttribute(range_key=True)


class ByGenus(GlobalSecondaryIndex[Any]):
    class Meta:
        index_name = "by-genus"
        projection = IncludeProjection(["name"])

    genus = attributes.UnicodeAttribute(hash_key=True)
    seen = attributes.NumberAttribute(range_key=True)


class Indexed(Model):
    class Meta:
        table_name = f"{sys.argv[1]}-2"
        host = HOST
        region = REGION
        billing_mode = "PAY_PER_REQUEST"
        tags = {"b": "2"}  # noqa: RUF012

    species = attributes.UnicodeAttribute(hash_key=True)
    seen = attributes.NumberAttribute(range_key=True)
    size = attributes.NumberAttribute()
    genus = attributes.UnicodeAttribute(null=True)
    name = attributes.UnicodeAttribute()
    expires = attributes.TTLAttribute(null=True)
    by_size = BySize()
    by_genus = ByGenus()


class EveryType(Model):
    class Meta(Duck.Meta):
        pass

    species = attributes.UnicodeAttribute(hash_key=True)
    seen = attributes.NumberAttribute(range_key=True)
    empty = attributes.UnicodeAttribute()
    text = attributes.UnicodeAttribute()
    whole = attributes.NumberAttribute()
    bytes = attributes.BinaryAttribute(legacy_encoding=False)
    is_duck = attributes.BooleanAttribute()
    names = attributes.UnicodeSetAttribute()
    years = attributes.NumberSetAttribute()
    blobs = attributes.BinarySetAttribute(legacy_encoding=False)
    list = attributes.ListAttribute()
    map = attributes.MapAttribute()


def error_of(call: Any, kind: Any, *arguments: Any, **options: Any) -> Any:
    try:
        call(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError("it was not refused")


def tables() -> dict[str, Any]:
    Duck.create_table(wait=True)
    described = Duck.describe_table()
    again = error_of(
        Connection(region=REGION, host=HOST).create_table,
        TableError,
        Duck.Meta.table_name,
        attribute_definitions=[{"attribute_name": "species", "attribute_type": "S"}],
        key_schema=[{"attribute_name": "species", "key_type": "HASH"}],
        billing_mode="PAY_PER_REQUEST",
    )
    missing = error_of(Connection(region=REGION, host=HOST).describe_table, TableDoesNotExist, "missing")
    assert "missing" in str(missing)
    return {
        "made": [described["TableStatus"], *(one["AttributeName"] for one in described["KeySchema"])],
        "again": again.cause_response_code,
        "missing": "ResourceNotFoundException",
    }


def batches() -> dict[str, Any]:
    with Duck.batch_write() as batch:
        for i in range(1, 26):
            batch.save(Duck("merganser", i, size=i))
    read = list(Duck.batch_get([("merganser", i) for i in range(1, 26)], consistent_read=True))
    return {"written": Duck.count("merganser", consistent_read=True), "read": len(read)}


def pages() -> dict[str, Any]:
    found = Duck.query("merganser", Duck.seen > 0, consistent_read=True, page_size=10)
    query = [item.seen for item in found]
    scan = list(Duck.scan(page_size=7, consistent_read=True))
    backwards = Duck.query("merganser", scan_index_forward=False, limit=3, consistent_read=True)
    filtered = Duck.query("merganser", filter_condition=Duck.size > 20, consistent_read=True)
    segments = [Duck.scan(segment=i, total_segments=2, consistent_read=True) for i in (0, 1)]
    return {
        "query": found.total_count,
        "seen": query,
        "backwards": [item.seen for item in backwards],
        "filtered": [item.seen for item in filtered],
        "scan": len(scan),
        "segments": sum(len(list(segment)) for segment in segments),
    }


def items() -> dict[str, Any]:
    duck = Duck("merganser", 1758, genus="Mergus")
    duck.save()
    read = Duck.get("merganser", 1758, consistent_read=True).genus
    absent = error_of(Duck.get, DoesNotExist, "merganser", 9999, consistent_read=True)
    for _ in range(2):
        duck.update(actions=[Duck.counted.add(1)])
    refused = error_of(Duck("merganser", 1758).save, PutError, condition=Duck.species.does_not_exist())
    kept = error_of(duck.delete, DeleteError, condition=Duck.genus == "Anas")
    assert kept.cause_response_code == "ConditionalCheckFailedException"
    duck.delete(condition=(Duck.genus == "Mergus") & Duck.counted.exists())
    error_of(duck.refresh, DoesNotExist, consistent_read=True)
    return {
        "read": read,
        "absent": isinstance(absent, DoesNotExist),
        "counted": str(duck.counted),
        "refused": refused.cause_response_code,
    }


def types(item: dict[str, Any]) -> dict[str, Any]:
    every = EveryType()
    every.from_dynamodb_dict({name: value for name, value in item.items() if name not in ("small", "nothing")})
    every.save()
    found = EveryType.get(item["species"]["S"], int(item["seen"]["N"]), consistent_read=True)
    assert found.whole == int(item["whole"]["N"])
    return {name: in_order(value) for name, value in found.to_dynamodb_dict().items()}


def in_order(value: dict[str, Any]) -> dict[str, Any]:
    """Return a value with what Python has as a set in order."""
    ((kind, content),) = value.items()
    if kind == "NS":
        return {kind: sorted(content, key=int)}
    if kind == "BS":
        return {kind: sorted(content, key=base64.b64decode)}
    return {kind: sorted(content)} if kind == "SS" else value


def transactions() -> dict[str, Any]:
    connection = Connection(region=REGION, host=HOST)
    token = str(uuid.uuid4())
    for _ in range(2):
        with TransactWrite(connection=connection, client_request_token=token) as transaction:
            transaction.save(Duck("pair", 1, name="one"))
            transaction.save(Duck("pair", 2, name="two"))

    def cancelled() -> None:
        with TransactWrite(connection=connection) as transaction:
            transaction.delete(Duck("pair", 1))
            transaction.condition_check(Duck, "pair", 2, condition=Duck.species.does_not_exist())

    error = error_of(cancelled, TransactWriteError)
    with TransactGet(connection=connection) as transaction:
        read = [transaction.get(Duck, "pair", i) for i in (1, 2)]
    reasons = ["None" if reason is None else reason.code for reason in error.cancellation_reasons]
    return {"read": [one.get().name for one in read], "cancelled": [error.cause_response_code, reasons]}


def indexes() -> dict[str, Any]:
    """It asks for no states of indexes, so only that the model's indexes are usable is told."""
    Indexed.create_table(wait=True)
    for seen in (1, 2, 3):
        Indexed("merganser", seen, size=10 - seen, name=str(seen), genus="Mergus" if seen < 3 else None).save()
    for _ in range(1000):
        found = list(Indexed.by_genus.query("Mergus"))
        if len(found) == 2:
            break
    consistent = error_of(lambda: list(Indexed.by_genus.query("Mergus", consistent_read=True)), QueryError)
    return {
        "local": [item.seen for item in Indexed.by_size.query("merganser", consistent_read=True)],
        "global": [item.seen for item in found],
        "projected": sorted(name for name, value in found[0].attribute_values.items() if value is not None),
        "consistent": consistent.cause_response_code,
    }


def settings() -> dict[str, Any]:
    """Time to live was asked for when the table was made; asked for again, it says so."""
    again = error_of(Indexed.update_ttl, TableError, ignore_update_ttl_errors=False)
    assert "TimeToLive is already enabled" in str(again)
    item = Indexed("merganser", 4, size=1, name="4", expires=timedelta(days=1))
    item.save()
    item.refresh(consistent_read=True)
    assert item.expires > datetime.now(UTC)
    return {"expires_in_days": round((item.expires - datetime.now(UTC)) / timedelta(days=1))}


def dropped() -> dict[str, Any]:
    Indexed.delete_table()
    Duck.delete_table()
    gone = error_of(Connection(region=REGION, host=HOST).describe_table, TableDoesNotExist, Duck.Meta.table_name)
    names = Connection(region=REGION, host=HOST).list_tables()["TableNames"]
    return {
        "gone": "ResourceNotFoundException" if isinstance(gone, TableDoesNotExist) else gone,
        "is_listed": Duck.exists() or Duck.Meta.table_name in names,
    }


def main() -> None:
    item = json.loads(sys.argv[2])
    seen = {
        "tables": tables(),
        "batches": batches(),
        "pages": pages(),
        "items": items(),
        "types": types(item),
        "transactions": transactions(),
        "indexes": indexes(),
        "settings": settings(),
        "dropped": dropped(),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
