"""boto3 clients that compare and set, count, and move money, and write down what they saw and when.

Judged by the simulator's checkers: each item must have been one register on which operations happened one at a time
(`sim.checkers.linearizable`), and the accounts must always add up to what was there in the beginning.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from merganser.sim.checkers.linearizable import Action, Add, CompareAndSet, Operation, Put, Read, flaws
from namespaces.load import Load, client_of, create_table
from namespaces.network import Network

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE, BANKS = "items", ("bank-0", "bank-1")
KEYS = tuple(f"key-{i}" for i in range(6))
COUNTERS = tuple(f"counter-{i}" for i in range(3))
ACCOUNTS = tuple((bank, f"account-{i}") for i in range(2) for bank in BANKS)
DEPOSIT = 100
CERTAINLY_UNDONE = frozenset(
    (
        "ServiceUnavailable",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionCanceledException",
        "ConditionalCheckFailedException",
    )
)


class Items(Load):
    """Each request goes to a node drawn at random."""

    def __init__(self, network: Network, urls: Sequence[str], *, seed: int = 0) -> None:
        """Prepare clients of the nodes at ``urls``; ``seed`` decides what they choose."""
        super().__init__(network, urls, seed=seed)
        self.operations: list[Operation] = []
        self.looks: list[tuple[float, list[int]]] = []
        """When a look at all accounts began, and what was on them."""
        self.transfers: list[float] = []
        """When those began that were acknowledged."""
        self.unknown = self.undone = 0
        self._numbers = itertools.count()

    def prepare(self, client: DynamoDBClient) -> None:
        """Create the tables, and put money on the accounts."""
        for table in (TABLE, *BANKS):
            create_table(client, table)
        for bank, account in ACCOUNTS:
            while not self._is_over.is_set():
                try:
                    client.put_item(TableName=bank, Item={"pk": {"S": account}, "balance": {"N": str(DEPOSIT)}})
                    break
                except (BotoCoreError, ClientError):  # leaders have yet to be elected
                    self.rest()

    def has_progressed(self, began_s: float, count: int) -> bool:
        """As `Load.has_progressed`; some transfers and looks at the accounts among them."""
        ended = [one for one in list(self.operations) if one.began_s > began_s and one.ended_s < inf]
        reads = sum(isinstance(one.action, Read) for one in ended)
        some = max(1, count // 20)
        return (
            min(reads, len(ended) - reads) >= count
            and sum(began > began_s for began in list(self.transfers)) >= some
            and sum(began > began_s for began, _ in list(self.looks)) >= some
        )

    def step(self, rng: random.Random) -> None:
        """Do one of everything that can be done."""
        client = rng.choice(self._clients)
        (action,) = rng.choices(
            (self._read, self._put, self._delete, self._compare_and_set, self._count, self._transfer, self._look),
            (30, 15, 5, 25, 15, 15, 10),
        )
        if not action(client, rng):
            self.rest()

    def final_state(self) -> list[str]:
        """Read every item consistently through every node, as part of the history; returns what differs."""
        told = []
        clients = [client_of(url) for url in self._urls]
        for key in (*KEYS, *COUNTERS):
            found = [self._pool.submit(self._value, client, key).result() for client in clients]
            if len(set(found)) > 1:
                told.append(f"{key!r} is {found}, node by node")
        for client in clients:
            self._pool.submit(self._look, client).result()
            client.close()
        return told

    def violations(self) -> list[str]:
        """Return what the history holds that cannot be."""
        total = DEPOSIT * len(ACCOUNTS)
        wrong = [f"all accounts hold {balances}, not {total} together" for _, balances in self.looks]
        wrong = [told for told, (_, balances) in zip(wrong, self.looks, strict=True) if sum(balances) != total]
        overdrawn = [f"overdrawn: {balances}" for _, balances in self.looks if min(balances) < 0]
        return [*flaws(self.operations), *wrong, *overdrawn]

    def summary(self) -> str:
        """Return the counts in a line."""
        return (
            f"{len(self.operations)} operations, {self.unknown} requests of unknown outcome, {self.undone} not done, "
            f"{len(self.transfers)} transfers, {len(self.looks)} looks at all accounts"
        )

    # What clients do; true if it was answered.

    def _read(self, client: DynamoDBClient, rng: random.Random) -> bool:
        try:
            self._value(client, rng.choice((*KEYS, *COUNTERS)))
        except (BotoCoreError, ClientError):
            return False
        return True

    def _put(self, client: DynamoDBClient, rng: random.Random) -> bool:
        key, value = rng.choice(KEYS), self._new_value()

        def put() -> Action:
            client.put_item(TableName=TABLE, Item={"pk": {"S": key}, "v": {"S": value}})
            return Put(value.encode())

        return self._write(key, Put(value.encode()), put)

    def _delete(self, client: DynamoDBClient, rng: random.Random) -> bool:
        key = rng.choice(KEYS)

        def delete() -> Action:
            client.delete_item(TableName=TABLE, Key={"pk": {"S": key}})
            return Put(None)

        return self._write(key, Put(None), delete)

    def _compare_and_set(self, client: DynamoDBClient, rng: random.Random) -> bool:
        key, value = rng.choice(KEYS), self._new_value()
        try:
            seen = self._value(client, key)
        except (BotoCoreError, ClientError):
            return False
        wanted = CompareAndSet(seen, value.encode())

        def compare_and_set() -> Action:
            item = {"pk": {"S": key}, "v": {"S": value}}
            try:
                if seen is None:
                    client.put_item(TableName=TABLE, Item=item, ConditionExpression="attribute_not_exists(pk)")
                else:
                    client.put_item(
                        TableName=TABLE,
                        Item=item,
                        ConditionExpression="v = :seen",
                        ExpressionAttributeValues={":seen": {"S": seen.decode()}},
                        ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    )
            except client.exceptions.ConditionalCheckFailedException as error:
                if seen is None:
                    raise
                found: Any = error.response.get("Item")
                return Read(found["v"]["S"].encode() if found else None)
            return wanted

        return self._write(key, wanted, compare_and_set)

    def _count(self, client: DynamoDBClient, rng: random.Random) -> bool:
        key = rng.choice(COUNTERS)

        def count() -> Action:
            answer = client.update_item(
                TableName=TABLE,
                Key={"pk": {"S": key}},
                UpdateExpression="ADD v :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
                ReturnValues="UPDATED_NEW",
            )
            return Add(1, int(answer["Attributes"]["v"]["N"]))

        return self._write(key, Add(1), count)

    def _transfer(self, client: DynamoDBClient, rng: random.Random) -> bool:
        (bank, payer), (other_bank, payee) = rng.sample(ACCOUNTS, 2)
        amount, began_s = {":amount": {"N": str(rng.randint(1, DEPOSIT))}}, time.monotonic()
        try:
            client.transact_write_items(
                TransactItems=[
                    {
                        "Update": {
                            "TableName": bank,
                            "Key": {"pk": {"S": payer}},
                            "UpdateExpression": "SET balance = balance - :amount",
                            "ConditionExpression": "balance >= :amount",
                            "ExpressionAttributeValues": amount,
                        }
                    },
                    {
                        "Update": {
                            "TableName": other_bank,
                            "Key": {"pk": {"S": payee}},
                            "UpdateExpression": "SET balance = balance + :amount",
                            "ExpressionAttributeValues": amount,
                        }
                    },
                ]
            )
        except (BotoCoreError, ClientError) as error:
            self._note(error)
            return False
        self.transfers.append(began_s)
        return True

    def _look(self, client: DynamoDBClient, _rng: random.Random | None = None) -> bool:
        began_s = time.monotonic()
        try:
            found = client.transact_get_items(
                TransactItems=[{"Get": {"TableName": bank, "Key": {"pk": {"S": one}}}} for bank, one in ACCOUNTS]
            )["Responses"]
        except (BotoCoreError, ClientError):
            return False
        self.looks.append((began_s, [int(one["Item"]["balance"]["N"]) for one in found]))
        return True

    def _value(self, client: DynamoDBClient, key: str) -> bytes | None:
        began_s = time.monotonic()
        item = client.get_item(TableName=TABLE, Key={"pk": {"S": key}}, ConsistentRead=True).get("Item")
        kind = "N" if key in COUNTERS else "S"
        value = str(item["v"][kind]).encode() if item else None  # type: ignore[literal-required]
        self.operations.append(Operation(key.encode(), Read(value), began_s, time.monotonic()))
        return value

    def _write(self, key: str, wanted: Action, request: Callable[[], Action]) -> bool:
        began_s = time.monotonic()
        try:
            action = request()
        except (BotoCoreError, ClientError) as error:
            if self._note(error):
                self.operations.append(Operation(key.encode(), wanted, began_s))
            return False
        self.operations.append(Operation(key.encode(), action, began_s, time.monotonic()))
        return True

    def _note(self, error: BotoCoreError | ClientError) -> bool:
        """Count how a write failed; true if it may be done all the same."""
        is_undone = isinstance(error, EndpointConnectionError | ConnectTimeoutError) or (
            isinstance(error, ClientError) and error.response["Error"]["Code"] in CERTAINLY_UNDONE
        )
        self.undone += is_undone
        self.unknown += not is_undone
        return not is_undone

    def _new_value(self) -> str:
        return f"value-{next(self._numbers)}"
