"""Random items and queries of indexes of both kinds, and what a slow model answers: sorted lists of whole items."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wire.dynamodb.fakes import Cluster
from wire.dynamodb.test_index_tables import global_, keyed, local, table

Value = dict[str, str]
Item = dict[str, Value]

TEXTS = ["a", "a\x00", "a\x00\x01", "ab", "é"]
NUMBERS = ["-10", "-0.5", "0", "1", "1E-130", "9E+125"]
BINARIES = [b"\x00", b"\x00\x00", b"\x00\x01", b"\x00\xff", b"\xff"]
KINDS = {"p": "S", "s": "N", "t": "S", "n": "N", "b": "B"}
INDEXES: dict[str, tuple[str, str, set[str] | None]] = {
    "lt": ("p", "t", None),
    "ln": ("p", "n", {"p", "s", "n"}),
    "lb": ("p", "b", {"p", "s", "b", "x"}),
    "gt": ("t", "", None),
    "gn": ("n", "t", {"p", "s", "n", "t"}),
    "gb": ("b", "n", {"p", "s", "b", "n", "x"}),
    "gm": ("tn", "bs", None),
    "gq": ("b", "ntp", {"p", "s", "b", "n", "t"}),
}
"""Attributes of the partition key, of the sort key, and what is shown, None for all."""

texts, numbers = st.sampled_from(TEXTS).map(lambda text: {"S": text}), st.sampled_from(NUMBERS)
values: dict[str, st.SearchStrategy[Value]] = {
    "p": st.sampled_from("pq").map(lambda text: {"S": text}),
    "s": st.integers(0, 11).map(lambda number: {"N": str(number)}),
    "t": texts,
    "n": numbers.map(lambda number: {"N": number}),
    "b": st.sampled_from(BINARIES).map(lambda data: {"B": base64.b64encode(data).decode()}),
    "x": texts,
}
stocks = st.lists(
    st.fixed_dictionaries({}, optional={name: values[name] for name in "tnbx"}), min_size=6, max_size=12
).map(
    lambda listed: [
        {"p": {"S": "pq"[number % 2]}, "s": {"N": str(number)}, **others} for number, others in enumerate(listed)
    ]
)


def order(value: Value) -> Any:
    ((kind, content),) = value.items()
    if kind == "N":
        return Decimal(content)
    return content.encode() if kind == "S" else base64.b64decode(content)


CONDITIONS: dict[str, Callable[[Any, Any, Any], bool]] = {
    "{} = :l": lambda value, low, _high: bool(value == low),
    "{} < :l": lambda value, low, _high: bool(value < low),
    "{} <= :l": lambda value, low, _high: bool(value <= low),
    "{} > :l": lambda value, low, _high: bool(value > low),
    "{} >= :l": lambda value, low, _high: bool(value >= low),
    "{} BETWEEN :l AND :h": lambda value, low, high: bool(low <= value <= high),
    "begins_with({}, :l)": lambda value, low, _high: bool(value.startswith(low)),
}


def plain(item: Item) -> dict[str, Any]:
    return {name: order(value) for name, value in item.items()}


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    cluster = Cluster()
    described = {name: {"Projection": _projection(shown)} for name, (_, _, shown) in INDEXES.items()}
    request = table(
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in KINDS.items()],
        LocalSecondaryIndexes=[
            local(f"{name}-index", partition, sort, **described[name])
            for name, (partition, sort, _) in INDEXES.items()
            if name.startswith("l")
        ],
        GlobalSecondaryIndexes=[
            global_(f"{name}-index", KeySchema=keyed(partition, sort), **described[name])
            for name, (partition, sort, _) in INDEXES.items()
            if name.startswith("g")
        ],
    )
    assert "TableDescription" in cluster.call("CreateTable", request)
    yield cluster
    cluster.close()


def _projection(shown: set[str] | None) -> dict[str, Any]:
    if shown is None:
        return {"ProjectionType": "ALL"}
    if "x" in shown:
        return {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"]}
    return {"ProjectionType": "KEYS_ONLY"}


def paged(cluster: Cluster, operation: str, request: dict[str, Any], limit: int) -> list[Item]:
    found: list[Item] = []
    start: dict[str, Any] = {}
    while True:
        page = cluster.call(operation, {**request, "Limit": limit, **start})
        assert isinstance(page, dict), page
        found += page["Items"]
        if "LastEvaluatedKey" not in page:
            return found
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def shown_of(item: Item, shown: set[str] | None) -> dict[str, Any]:
    return {name: value for name, value in plain(item).items() if shown is None or name in shown}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stocks, st.sampled_from(sorted(INDEXES)), st.data(), st.integers(1, 4))
def test_indexes_are_queried_and_scanned_as_the_model_says(
    shared: Cluster, stock: list[Item], index: str, data: st.DataObject, rows_max: int
) -> None:
    shared.leader_based.items.clear()
    shared.stops_after(rows_max)
    for item in stock:
        assert shared.call("PutItem", {"TableName": "ind", "Item": item}) == {}
    partition, sort, shown = INDEXES[index]
    standing = [item for item in stock if set(partition + sort) <= item.keys()]
    whole = paged(shared, "Scan", {"TableName": "ind", "IndexName": f"{index}-index"}, data.draw(st.integers(1, 5)))
    assert sorted((shown_of(item, shown) for item in standing), key=repr) == sorted(map(plain, whole), key=repr)

    asked = [data.draw(values[name], label=name) for name in partition]
    is_there: bool = data.draw(st.booleans(), label="of one that is there")
    if standing and is_there:
        chosen = data.draw(st.sampled_from(standing))
        asked = [chosen[name] for name in partition]
    equal = data.draw(st.integers(0, max(0, len(sort) - 1)), label="equal sort attributes")
    conditions = [f"{name} = :{name}" for name in partition]
    given_ = {f":{name}": value for name, value in zip(partition, asked, strict=True)}
    wanted = [item for item in standing if [order(item[name]) for name in partition] == list(map(order, asked))]
    for name in sort[:equal]:
        value = data.draw(values[name], label=name)
        conditions.append(f"{name} = :{name}")
        given_[f":{name}"] = value
        wanted = [item for item in wanted if order(item[name]) == order(value)]
    if len(sort) > equal and data.draw(st.booleans(), label="with a range"):
        name = sort[equal]
        texts_of = [text for text in CONDITIONS if KINDS[name] != "N" or "begins_with" not in text]
        text = data.draw(st.sampled_from(texts_of), label="condition")
        low, high = sorted((data.draw(values[name]), data.draw(values[name])), key=order)
        conditions.append(text.format(name))
        given_[":l"] = low
        if ":h" in text:
            given_[":h"] = high
        wanted = [item for item in wanted if CONDITIONS[text](order(item[name]), order(low), order(high))]
    request = {
        "TableName": "ind",
        "IndexName": f"{index}-index",
        "KeyConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeValues": given_,
    }
    found = paged(shared, "Query", request, data.draw(st.integers(1, 5)))
    backwards = paged(shared, "Query", {**request, "ScanIndexForward": False}, data.draw(st.integers(1, 5)))
    assert backwards == found[::-1]
    keys = [[order(item[name]) for name in sort] for item in found]
    assert keys == sorted(keys)
    assert sorted((shown_of(item, shown) for item in wanted), key=repr) == sorted(map(plain, found), key=repr)
