"""Transactions of boto3 clients on real processes: money that moves between accounts while a node is killed."""

from __future__ import annotations

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

ACCOUNTS = [f"account-{number}" for number in range(8)]
EACH = 100


def snapshot(client: DynamoDBClient, table: str) -> list[int]:
    """Return all balances at one instant."""
    gets: Any = [{"Get": {"TableName": table, "Key": {"pk": {"S": account}}}} for account in ACCOUNTS]
    answer = client.transact_get_items(TransactItems=gets)
    return [int(one["Item"]["balance"]["N"]) for one in answer["Responses"]]


def transfer(client: DynamoDBClient, table: str, *, source: str, target: str, token: str) -> None:
    updates: Any = [
        {
            "Update": {
                "TableName": table,
                "Key": {"pk": {"S": account}},
                "UpdateExpression": "ADD balance :amount",
                "ConditionExpression": "balance > :least",
                "ExpressionAttributeValues": {":amount": {"N": amount}, ":least": {"N": "0"}},
            }
        }
        for account, amount in ((source, "-1"), (target, "1"))
    ]
    client.transact_write_items(TransactItems=updates, ClientRequestToken=token)


class Bank:
    """Clients that move money until stopped, and one that looks on."""

    def __init__(self, clients: list[DynamoDBClient], table: str) -> None:
        self.moved = 0
        self.seen: list[list[int]] = []
        self._table = table
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(len(clients) + 1)
        self._work = [self._pool.submit(self._move, number, client) for number, client in enumerate(clients)]
        self._work.append(self._pool.submit(self._look, clients[0]))

    def stop(self) -> None:
        self._is_over.set()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    def _move(self, number: int, client: DynamoDBClient) -> None:
        rng = random.Random(number)
        while not self._is_over.is_set():
            source, target = rng.sample(ACCOUNTS, 2)
            try:
                transfer(client, self._table, source=source, target=target, token=str(uuid.uuid4()))
            except (ClientError, BotoCoreError):  # cancelled, or unknown: all of it or nothing
                self._is_over.wait(0.01)
            else:
                self.moved += 1

    def _look(self, client: DynamoDBClient) -> None:
        while not self._is_over.is_set():
            try:
                self.seen.append(snapshot(client, self._table))
            except (ClientError, BotoCoreError):
                self._is_over.wait(0.01)


def test_no_money_is_made_or_lost_while_a_node_dies(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any
) -> None:
    clients = [connect(node.dynamodb_url) for node in cluster.nodes]
    table = make_table(clients[0])
    for account in ACCOUNTS:
        clients[0].put_item(TableName=table, Item={"pk": {"S": account}, "balance": {"N": str(EACH)}})
    bank = Bank(clients, table)
    eventually(lambda: bank.moved > 20)
    cluster.nodes[1].kill()
    before = bank.moved
    eventually(lambda: bank.moved > before + 20)
    cluster.nodes[1].start()
    cluster.nodes[1].wait_until_ready()
    before = bank.moved
    eventually(lambda: bank.moved > before + 20)
    bank.stop()
    assert bank.seen
    assert {sum(balances) for balances in bank.seen} == {EACH * len(ACCOUNTS)}
    eventually(lambda: sum(snapshot(clients[2], table)) == EACH * len(ACCOUNTS))


def test_a_transaction_is_cancelled_with_the_reason_of_each_item_and_done_once_per_token(
    cluster: LocalCluster, connect: Any, make_table: Any
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    put = {"TableName": table, "Item": {"pk": {"S": "a"}, "value": {"S": "first"}}}
    add: Any = {
        "TableName": table,
        "Key": {"pk": {"S": "n"}},
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    for node in cluster.nodes:
        connect(node.dynamodb_url).transact_write_items(
            TransactItems=[{"Put": put}, {"Update": add}], ClientRequestToken="once"
        )
    found = client.get_item(TableName=table, Key={"pk": {"S": "n"}}, ConsistentRead=True)["Item"]
    assert found == {"pk": {"S": "n"}, "n": {"N": "1"}}
    new = {**put, "ConditionExpression": "attribute_not_exists(pk)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    with pytest.raises(client.exceptions.TransactionCanceledException) as caught:
        client.transact_write_items(TransactItems=[{"Update": add}, {"Put": new}])
    assert caught.value.response["CancellationReasons"] == [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", "Item": put["Item"]},
    ]
    with pytest.raises(client.exceptions.IdempotentParameterMismatchException):
        client.transact_write_items(TransactItems=[{"Put": put}], ClientRequestToken="once")
    elsewhere = {**put, "TableName": make_table(client)}
    with pytest.raises(client.exceptions.IdempotentParameterMismatchException):
        client.transact_write_items(TransactItems=[{"Put": elsewhere}, {"Update": add}], ClientRequestToken="once")
    assert client.get_item(TableName=table, Key={"pk": {"S": "n"}}, ConsistentRead=True)["Item"] == found
