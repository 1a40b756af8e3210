"""DynamoDB's limits to the byte: what is just within them is taken, and one more is not."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from wire.dynamodb.fakes import Cluster

ITEM, MEBIBYTE = 400 * 1024, 1024 * 1024
A = {"S": "a"}
TOO_LARGE_TO_UPDATE = "ValidationException | Item size to update has exceeded the maximum allowed size"
NESTED = (
    "ValidationException | Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)


def item(p: str, size: int) -> dict[str, Any]:
    """An item of so many bytes."""
    return {"p": {"S": p}, "v": {"S": "x" * (size - 2 - len(p))}}


def key(p: str = "a") -> dict[str, Any]:
    return {"TableName": "str", "Key": {"p": {"S": p}}}


def nested(levels: int) -> dict[str, Any]:
    """A value of so many levels."""
    value: dict[str, Any] = A
    for _ in range(levels - 1):
        value = {"M": {"m": value}}
    return value


def update(text: str, **values: Any) -> dict[str, Any]:
    return {
        **key(),
        "UpdateExpression": text,
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
    }


def test_an_update_makes_an_item_of_400_kb_and_no_larger_one(cluster: Cluster) -> None:
    assert cluster.call("UpdateItem", update("SET v = :v", v={"S": "x" * (ITEM - 3)})) == {}
    assert cluster.call("UpdateItem", update("SET w = :w", w={"S": ""})) == TOO_LARGE_TO_UPDATE
    put = {**key(), "AttributeUpdates": {"w": {"Value": {"S": ""}}}}
    assert cluster.call("UpdateItem", put) == TOO_LARGE_TO_UPDATE
    shorter = update("SET v = :v, w = :w", v={"S": "x" * (ITEM - 4)}, w={"S": ""})
    assert cluster.call("UpdateItem", shorter) == {}


def binary(size: int) -> dict[str, str]:
    return {"B": base64.b64encode(bytes(size)).decode()}


@pytest.mark.parametrize(
    ("table", "sort", "within", "beyond"),
    [
        ("str", None, {"S": "é" * 1024}, {"S": "é" * 1024 + "a"}),
        ("bin", None, binary(2048), binary(2049)),
        ("num", None, {"N": "-" + "9" * 38 + "0" * 88}, {"N": "-" + "9" * 38 + "0" * 89}),
        ("num", None, {"N": "0." + "0" * 129 + "1"}, {"N": "0." + "0" * 130 + "1"}),
        ("tss", "s", {"S": "é" * 512}, {"S": "é" * 512 + "a"}),
        ("tsb", "s", binary(1024), binary(1025)),
    ],
)
def test_keys_have_so_many_bytes(cluster: Cluster, table: str, sort: str | None, within: Any, beyond: Any) -> None:
    def put(value: Any) -> Any:
        keyed = {"p": value} if sort is None else {"p": A, sort: value}
        return cluster.call("PutItem", {"TableName": table, "Item": keyed})

    assert put(within) == {}
    assert put(beyond).startswith("ValidationException | ")


def test_what_an_update_makes_has_at_most_32_levels(cluster: Cluster) -> None:
    assert cluster.call("UpdateItem", update("SET d = :d", d=nested(32))) == {}
    assert cluster.call("UpdateItem", update("SET e = :e", e=nested(33))).endswith(": " + NESTED[22:])
    assert cluster.call("UpdateItem", update("SET d.m = :d", d=nested(31))) == {}
    assert cluster.call("UpdateItem", update("SET d.m = :d", d=nested(32))) == NESTED


def test_a_path_has_at_most_32_elements(cluster: Cluster) -> None:
    get = {**key(), "ProjectionExpression": "a" + ".b" * 31}
    assert cluster.call("GetItem", get) == {}
    assert cluster.call("GetItem", {**get, "ProjectionExpression": "a" + ".b" * 32}) == (
        "ValidationException | Invalid ProjectionExpression: The document path has too many nesting elements; "
        "nesting levels: 33"
    )


def test_an_index_fits_into_31_bits(cluster: Cluster) -> None:
    get = {**key(), "ProjectionExpression": f"a[{2**31 - 1}]"}
    assert cluster.call("GetItem", get) == {}
    assert cluster.call("GetItem", {**get, "ProjectionExpression": f"a[{2**31}]"}) == (
        "ValidationException | Invalid ProjectionExpression: List index is not within the allowable range; "
        "index: [2147483648]"
    )


def test_a_batch_writes_25_items_and_no_more(cluster: Cluster) -> None:
    puts = [{"PutRequest": {"Item": item(str(number), 20)}} for number in range(26)]
    assert cluster.call("BatchWriteItem", {"RequestItems": {"str": puts[:25]}}) == {"UnprocessedItems": {}}
    refused = cluster.call("BatchWriteItem", {"RequestItems": {"str": puts}})
    assert "[Member must have length less than or equal to 25, " in refused
    split = {"str": puts[:25], "num": [{"PutRequest": {"Item": {"p": {"N": "1"}}}}]}
    assert cluster.call("BatchWriteItem", {"RequestItems": split}).endswith("for the BatchWriteItem call")


def test_a_batch_gets_100_items_and_no_more(cluster: Cluster) -> None:
    keys = [{"p": {"S": str(number)}} for number in range(101)]
    assert isinstance(cluster.call("BatchGetItem", {"RequestItems": {"str": {"Keys": keys[:100]}}}), dict)
    refused = cluster.call("BatchGetItem", {"RequestItems": {"str": {"Keys": keys}}})
    assert refused.endswith(
        "'requestItems.str.member.keys' failed to satisfy constraint: Member must have length less than or equal to 100"
    )


def test_a_transaction_has_100_items_and_no_more(cluster: Cluster) -> None:
    puts = [{"Put": {"TableName": "str", "Item": item(str(number), 20)}} for number in range(101)]
    assert cluster.call("TransactWriteItems", {"TransactItems": puts[:100]}) == {}
    refused = cluster.call("TransactWriteItems", {"TransactItems": puts})
    assert refused.endswith(
        "'transactItems' failed to satisfy constraint: Member must have length less than or equal to 100"
    )


def test_a_transaction_writes_and_reads_4_mb_and_no_more(cluster: Cluster) -> None:
    sizes = [ITEM] * 10 + [4 * MEBIBYTE - 10 * ITEM]
    puts = [{"Put": {"TableName": "str", "Item": item(chr(97 + at), size)}} for at, size in enumerate(sizes)]
    assert cluster.call("TransactWriteItems", {"TransactItems": puts}) == {}
    gets = [{"Get": key(chr(97 + at))} for at in range(len(sizes))]
    assert len(cluster.call("TransactGetItems", {"TransactItems": gets})["Responses"]) == 11
    cluster.call("PutItem", {"TableName": "str", "Item": item("k", sizes[-1] + 1)})
    assert "exceeds 4 MB" in cluster.call("TransactGetItems", {"TransactItems": gets})
    puts[-1]["Put"]["Item"] = item("k", sizes[-1] + 1)
    assert "exceeds 4 MB" in cluster.call("TransactWriteItems", {"TransactItems": puts})


def test_a_page_ends_with_the_byte_that_makes_it_1_mb(cluster: Cluster) -> None:
    def page_of(last: int) -> Any:
        for number, size in enumerate([ITEM, ITEM, last, 20]):
            content = {"p": A, "s": {"N": str(number)}}
            used = 1 + 1 + 1 + (2 if number else 1) + 1
            cluster.call("PutItem", {"TableName": "tsn", "Item": {**content, "v": {"S": "x" * (size - used)}}})
        page = cluster.call("Scan", {"TableName": "tsn", "ReturnConsumedCapacity": "TOTAL", "ConsistentRead": True})
        return page["Count"], page["ConsumedCapacity"]["CapacityUnits"], "LastEvaluatedKey" in page

    assert page_of(MEBIBYTE - 2 * ITEM) == (3, 256, True)
    assert page_of(MEBIBYTE - 2 * ITEM - 1) == (4, 257, True)
    assert page_of(MEBIBYTE - 2 * ITEM - 20) == (4, 256, True)
    assert page_of(MEBIBYTE - 2 * ITEM - 21) == (4, 256, False)


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("SS", ["b", "a"], ["a", "b"]),
        ("NS", ["2", "1.0", "-0.0"], ["0", "1", "2e0"]),
        ("BS", ["Yg==", ""], ["", "Yg=="]),
    ],
)
def test_sets_have_no_order(cluster: Cluster, kind: str, one: list[str], two: list[str]) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": A, "s": {"L": [{kind: one}]}}})
    same = {"ConditionExpression": "s = :s", "ExpressionAttributeValues": {":s": {"L": [{kind: two}]}}}
    assert cluster.call("DeleteItem", {**key(), **same}) == {}
