"""Real nodes: what several clients do to one item at once happens in some order, and pages lose nothing meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

CLIENTS = 6
ROUNDS = 10
KEY = {"p": {"S": "counter"}}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory, connect: Callable[..., DynamoDBClient]) -> Iterator[list[Any]]:
    """Yield clients of three nodes, in turn, and a table with leaders."""
    with LocalCluster(tmp_path_factory.mktemp("trio")) as running:
        found = [connect(running.nodes[number % 3].dynamodb_url) for number in range(CLIENTS)]
        found[0].create_table(
            TableName="things",
            AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        found[0].get_waiter("table_exists").wait(TableName="things")
        yield found


def at_once(clients: list[Any], work: Callable[[int, Any], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(work, range(len(clients)), clients))


def test_counter_counts_every_update_once(clients: list[Any]) -> None:
    def count(_: int, client: Any) -> list[int]:
        return [
            int(
                client.update_item(
                    TableName="things",
                    Key=KEY,
                    UpdateExpression="ADD n :one",
                    ExpressionAttributeValues={":one": {"N": "1"}},
                    ReturnValues="UPDATED_NEW",
                )["Attributes"]["n"]["N"]
            )
            for _ in range(ROUNDS)
        ]

    seen = [number for numbers in at_once(clients, count) for number in numbers]
    assert sorted(seen) == list(range(1, CLIENTS * ROUNDS + 1))
    item = clients[0].get_item(TableName="things", Key=KEY, ConsistentRead=True)["Item"]
    assert item == {**KEY, "n": {"N": str(CLIENTS * ROUNDS)}}


def test_one_of_several_puts_of_a_new_item_wins(clients: list[Any]) -> None:
    def put(number: int, client: Any) -> dict[str, Any] | None:
        try:
            client.put_item(
                TableName="things",
                Item={"p": {"S": "prize"}, "winner": {"N": str(number)}},
                ConditionExpression="attribute_not_exists(p)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except client.exceptions.ConditionalCheckFailedException as error:
            return dict(error.response["Item"])
        return None

    answers = at_once(clients, put)
    winner = answers.index(None)
    losers = answers[:winner] + answers[winner + 1 :]
    assert losers == [{"p": {"S": "prize"}, "winner": {"N": str(winner)}}] * (CLIENTS - 1)


def test_optimistic_lock_loses_no_change(clients: list[Any]) -> None:
    key = {"p": {"S": "document"}}
    clients[0].put_item(TableName="things", Item={**key, "version": {"N": "0"}, "lines": {"L": []}})

    def append(number: int, client: Any) -> None:
        line = {"S": str(number)}
        while True:
            item = client.get_item(TableName="things", Key=key)["Item"]
            try:
                client.update_item(
                    TableName="things",
                    Key=key,
                    UpdateExpression="SET #l = :l, version = version + :one",
                    ConditionExpression="version = :v AND NOT contains(#l, :line)",
                    ExpressionAttributeNames={"#l": "lines"},
                    ExpressionAttributeValues={
                        ":l": {"L": [*item["lines"]["L"], line]},
                        ":line": line,
                        ":v": item["version"],
                        ":one": {"N": "1"},
                    },
                )
            except client.exceptions.ConditionalCheckFailedException:
                continue
            return

    at_once(clients, append)
    item = clients[0].get_item(TableName="things", Key=key, ConsistentRead=True)["Item"]
    assert item["version"] == {"N": str(CLIENTS)}
    assert sorted(line["S"] for line in item["lines"]["L"]) == [str(number) for number in range(CLIENTS)]


def test_pages_tell_every_item_that_stays_while_others_come_and_go(clients: list[Any]) -> None:
    table = "collections"
    clients[0].create_table(
        TableName=table,
        AttributeDefinitions=[
            {"AttributeName": "p", "AttributeType": "S"},
            {"AttributeName": "s", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
    clients[0].get_waiter("table_exists").wait(TableName=table)
    places = [(p, s) for p in ("wide", "u", "v", "w") for s in range(60 if p == "wide" else 5)]
    stable, passing = places[::2], places[1::2]
    requests = [{"PutRequest": {"Item": item_at(place)}} for place in stable]
    for at in range(0, len(requests), 25):
        assert not clients[0].batch_write_item(RequestItems={table: requests[at : at + 25]})["UnprocessedItems"]
    readers = threading.Semaphore(0)

    def work(number: int, client: Any) -> list[tuple[str, list[tuple[str, int]]]]:
        if number < 2:
            while not readers.acquire(blocking=False):
                for place in passing[number::2]:
                    client.put_item(TableName=table, Item=item_at(place))
                for place in passing[number::2]:
                    client.delete_item(TableName=table, Key=item_at(place))
            return []
        try:
            return [read(client, table, number, is_forward) for is_forward in (True, False)]
        finally:
            if next(ended) == CLIENTS - 3:
                readers.release(2)

    ended = itertools.count()
    for found in at_once(clients, work):
        for kind, told in found:
            assert len(told) == len(set(told)), kind
            assert [place for place in sorted(told) if place in stable] == sorted(
                place for place in stable if kind == "scan" or place[0] == "wide"
            )


def item_at(place: tuple[str, int]) -> dict[str, Any]:
    return {"p": {"S": place[0]}, "s": {"N": str(place[1])}}


def read(client: Any, table: str, number: int, is_forward: bool) -> tuple[str, list[tuple[str, int]]]:
    """Read all of a table, or of its widest item collection, in pages."""
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True, "Limit": number + 2}
    kind = "scan"
    if number % 2:
        kind = "query"
        request |= {
            "KeyConditionExpression": "p = :p",
            "ExpressionAttributeValues": {":p": {"S": "wide"}},
            "ScanIndexForward": is_forward,
        }
    pages = client.get_paginator(kind).paginate(**request)
    return kind, [(item["p"]["S"], int(item["s"]["N"])) for page in pages for item in page["Items"]]
