"""YCSB's mixes are its own, and every request names items that there are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.bench.driver import count_of, last_key, type_of
from merganser.bench.floors import answer_bytes
from merganser.bench.operations import BATCH_ITEMS, COLLECTION_ITEMS, OPERATIONS, PAGE_ITEMS, Bodies
from merganser.bench.workloads import WORKLOADS, mixed

CORE = {  # Cooper 2010, table 2
    "ycsb-a": ({"get": 0.5, "put": 0.5}, "zipfian"),
    "ycsb-b": ({"get": 0.95, "put": 0.05}, "zipfian"),
    "ycsb-c": ({"get": 1.0}, "zipfian"),
    "ycsb-d": ({"get": 0.95, "insert": 0.05}, "latest"),
    "ycsb-e": ({"range": 0.95, "insert": 0.05}, "zipfian"),
    "ycsb-f": ({"get": 0.5, "read-modify-write": 0.5}, "zipfian"),
}
sizes = st.tuples(st.integers(1, 5_000), st.integers(0, 5_000)).map(lambda both: (both[0], both[1] % both[0]))


@pytest.mark.parametrize("name", list(CORE))
def test_core_workloads_are_those_of_the_paper(name: str) -> None:
    assert (WORKLOADS[name].mix, WORKLOADS[name].choice) == CORE[name]


@pytest.mark.parametrize("workload", [*WORKLOADS.values(), mixed(0.0), mixed(0.3), mixed(1.0, is_consistent=True)])
def test_the_shares_of_a_mix_are_of_known_operations_and_add_up(workload: Any) -> None:
    assert sum(workload.mix.values()) == pytest.approx(1.0)
    assert workload.mix.keys() <= OPERATIONS.keys()
    assert all(share > 0 for share in workload.mix.values())


def bodies(items: int, *, is_ranged: bool = False) -> Bodies:
    return Bodies("t", items=items, item_bytes=100, is_ranged=is_ranged)


@pytest.mark.parametrize("is_ranged", [False, True])
@given(sizes)
def test_an_item_is_the_same_wherever_it_is_named(is_ranged: bool, size: tuple[int, int]) -> None:
    items, item = size
    texts = bodies(items, is_ranged=is_ranged)
    put = json.loads(texts.put(item))["Item"]
    assert len(put["data"]["S"]) == 100
    key = {name: value for name, value in put.items() if name != "data"}
    assert key.keys() == ({"pk", "sk"} if is_ranged else {"pk"})
    assert json.loads(texts.get(item))["Key"] == json.loads(texts.consistent_get(item))["Key"] == key
    assert json.loads(texts.update(item))["Key"] == key
    assert json.loads(texts.conditional_put(item))["Item"] == put
    batch = json.loads(texts.batch_write(item))["RequestItems"]["t"]
    assert batch[0]["PutRequest"]["Item"] == put


@given(sizes)
def test_a_batch_names_no_item_twice_and_only_items_that_there_are(size: tuple[int, int]) -> None:
    items, item = size
    texts = bodies(items)
    keys = [key["pk"]["S"] for key in json.loads(texts.batch_get(item))["RequestItems"]["t"]["Keys"]]
    assert len(set(keys)) == len(keys) == min(BATCH_ITEMS, items) or items % 7_919 == 0
    assert set(keys) <= {f"item-{number}" for number in range(items)}
    for body in texts.transact_get(item), texts.transact_write(item):
        assert len(json.loads(body)["TransactItems"]) == min(3, items)


@given(sizes)
def test_a_page_is_full_wherever_its_collection_has_as_many_items(size: tuple[int, int]) -> None:
    items, item = size
    asked = json.loads(bodies(items, is_ranged=True).page(item))
    group, start = (asked["ExpressionAttributeValues"][name]["S"] for name in (":p", ":s"))
    first = int(group.removeprefix("group-")) * COLLECTION_ITEMS
    there = min(items - first, COLLECTION_ITEMS)
    assert first <= item < first + COLLECTION_ITEMS
    assert asked["Limit"] == PAGE_ITEMS
    assert there - int(start) >= min(PAGE_ITEMS, there)


@given(sizes)
def test_a_short_range_begins_at_its_item_and_has_at_most_100(size: tuple[int, int]) -> None:
    items, item = size
    texts = bodies(items, is_ranged=True)
    asked = json.loads(texts.short_range(item))
    key = json.loads(texts.get(item))["Key"]
    assert asked["ExpressionAttributeValues"] == {":p": key["pk"], ":s": key["sk"]}
    assert 1 <= asked["Limit"] <= PAGE_ITEMS


def test_lengths_of_short_ranges_are_uniform() -> None:
    texts = bodies(20_000, is_ranged=True)
    limits = [json.loads(texts.short_range(item))["Limit"] for item in range(20_000)]
    assert sum(limits) / len(limits) == pytest.approx(50.5, rel=0.02)
    assert set(limits) == set(range(1, 101))


def test_what_is_inserted_lies_in_a_collection_that_was_loaded() -> None:
    texts = bodies(2_500, is_ranged=True)
    put = [json.loads(texts.put(item))["Item"] for item in range(2_500, 2_700)]
    assert {item["pk"]["S"] for item in put} == {"group-0", "group-1", "group-2"}
    assert len({(item["pk"]["S"], item["sk"]["S"]) for item in put}) == 200


def test_what_is_in_the_items_differs() -> None:
    texts = bodies(1_000)
    assert len({texts.data(item) for item in range(1_000)}) == 1_000


def test_the_answer_of_the_echo_is_as_large_as_that_which_it_stands_for() -> None:
    assert answer_bytes(WORKLOADS["get"], 100) == answer_bytes(WORKLOADS["put"], 10_000) == 1_000
    assert answer_bytes(WORKLOADS["get"], 10_000) == 10_000
    assert answer_bytes(WORKLOADS["page"], 1_000) == 100_000
    assert answer_bytes(mixed(0.5), 10_000) == 5_000


ANSWERS = [
    b'{"Count":7,"Items":[],"LastEvaluatedKey":{"pk":{"S":"a}{"},"sk":{"N":"1"}},"ScannedCount":9}',
    b'{"Items": [], "Count": 7, "ScannedCount": 9, "LastEvaluatedKey": {"pk": {"S": "a}{"}, "sk": {"N": "1"}}}',
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_count_and_last_key_are_found_in_the_answer_of_any_server(answer: bytes) -> None:
    assert count_of(answer) == 7
    assert json.loads(last_key(answer)) == {"pk": {"S": "a}{"}, "sk": {"N": "1"}}


def test_an_answer_may_be_the_last_page() -> None:
    assert last_key(b'{"Count":0,"Items":[],"ScannedCount":0}') == b""
    assert count_of(b"{}") == 0


def test_an_error_is_counted_under_its_name_or_its_status() -> None:
    assert (
        type_of('PutItem: 400 {"__type":"com.amazonaws.dynamodb.v20120810#ValidationException"}')
        == "ValidationException"
    )
    assert type_of("PutItem: 503 what") == "503"
