from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from merganser.wire.dynamodb import metering
from merganser.wire.dynamodb.session import Session
from wire.dynamodb.fakes import Cluster, served

TAG = "merganser:enforce-throughput"
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/held"
EXCEEDED = (
    "ProvisionedThroughputExceededException | The level of configured provisioned throughput for the table was "
    "exceeded. Consider increasing your provisioning level with the UpdateTable API."
)
OF_INDEX = (
    "ProvisionedThroughputExceededException | The level of configured provisioned throughput for one or more global "
    "secondary indexes of the table was exceeded. Consider increasing your provisioning level for the "
    "under-provisioned global secondary indexes with the UpdateTable API"
)
ON_DEMAND = "ThrottlingException | Throughput exceeds the maximum OnDemandThroughput configured on table or index"
NODES = 3  # of the fake cluster, each of which has a third of the throughput


class Clock:
    now_s = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metering, "_now_s", lambda: clock.now_s)
    return clock


def make(cluster: Cluster, *, tag: str | None = "true", read: int = 2, write: int = 2, **others: Any) -> Any:
    billing = others or {
        "ProvisionedThroughput": {"ReadCapacityUnits": read * NODES, "WriteCapacityUnits": write * NODES}
    }
    return cluster.call(
        "CreateTable",
        {
            "TableName": "held",
            "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
            "Tags": [] if tag is None else [{"Key": TAG, "Value": tag}],
            **billing,
        },
    )


@pytest.fixture
def held(cluster: Cluster, clock: Clock) -> Cluster:
    """A cluster with a table that may take two units a second of each kind through this node."""
    assert isinstance(make(cluster), dict)
    return cluster


def put(cluster: Cluster, name: str = "a", size: int = 0, **others: Any) -> Any:
    item = {"p": {"S": name}, "q": {"S": "x" * size}}
    return cluster.call("PutItem", {"TableName": "held", "Item": item, **others})


def get(cluster: Cluster, **others: Any) -> Any:
    return cluster.call("GetItem", {"TableName": "held", "Key": {"p": {"S": "a"}}, **others})


@pytest.mark.parametrize("tag", [None, "false"])
def test_throughput_is_not_enforced_unless_a_table_asks(cluster: Cluster, clock: Clock, tag: str | None) -> None:
    make(cluster, tag=tag, read=1, write=1)
    assert {str(put(cluster)) for _ in range(50)} == {"{}"}


def test_writes_beyond_the_throughput_are_refused_until_time_has_passed(held: Cluster, clock: Clock) -> None:
    assert [put(held) for _ in range(3)] == [{}, {}, EXCEEDED]
    clock.now_s += 1
    assert [put(held) for _ in range(3)] == [{}, {}, EXCEEDED]
    assert isinstance(get(held), dict)  # reads are counted apart
    assert held.call("PutItem", {"TableName": "str", "Item": {"p": {"S": "a"}}}) == {}


def test_a_large_write_is_done_and_paid_for_afterwards(held: Cluster, clock: Clock) -> None:
    assert put(held, size=9 * 1024) == {}
    clock.now_s += 3.9
    assert put(held) == EXCEEDED
    clock.now_s += 0.2
    assert put(held) == {}


def test_an_update_takes_what_its_item_was_or_becomes(held: Cluster, clock: Clock) -> None:
    put(held, size=3 * 1024)
    clock.now_s += 2
    change = {
        "TableName": "held",
        "Key": {"p": {"S": "a"}},
        "UpdateExpression": "SET q = :q",
        "ExpressionAttributeValues": {":q": {"S": "y"}},
        "ReturnValues": "UPDATED_NEW",
    }
    assert held.call("UpdateItem", change) == {"Attributes": {"q": {"S": "y"}}}
    assert held.call("UpdateItem", change) == EXCEEDED


def test_a_condition_that_does_not_hold_takes_a_unit(held: Cluster, clock: Clock) -> None:
    refused = put(held, ConditionExpression="attribute_exists(p)")
    assert refused.startswith("ConditionalCheckFailedException")
    put(held)
    assert put(held) == EXCEEDED


def test_a_condition_that_does_not_hold_takes_what_its_item_would(held: Cluster, clock: Clock) -> None:
    put(held, size=3 * 1024)
    clock.now_s += 2
    assert put(held, ConditionExpression="attribute_not_exists(p)").startswith("ConditionalCheckFailedException")
    clock.now_s += 0.9
    assert put(held) == EXCEEDED
    clock.now_s += 0.2
    assert put(held) == {}


def test_reads_take_half_unless_they_are_consistent(held: Cluster, clock: Clock) -> None:
    assert [get(held) for _ in range(5)] == [{}, {}, {}, {}, EXCEEDED]
    clock.now_s += 1
    assert [get(held, ConsistentRead=True) for _ in range(3)] == [{}, {}, EXCEEDED]


def test_a_scan_is_let_in_once_and_pays_for_all(held: Cluster, clock: Clock) -> None:
    for number in range(12):
        clock.now_s += 2
        put(held, f"k{number}", size=2 * 1024)
    clock.now_s += 1000
    held.stops_after(3)
    assert held.call("Scan", {"TableName": "held", "ConsistentRead": True})["Count"] == 12
    for _ in range(300 * 2 - 8):
        assert get(held, ConsistentRead=True) == {}
    assert [get(held, ConsistentRead=True) for _ in range(3)][-1] == EXCEEDED


def test_what_a_batch_cannot_write_is_unprocessed(held: Cluster, clock: Clock) -> None:
    requests = [{"PutRequest": {"Item": {"p": {"S": f"k{number}"}}}} for number in range(4)]
    batch = {"RequestItems": {"held": requests}}
    assert len(held.call("BatchWriteItem", batch)["UnprocessedItems"]["held"]) == 2
    assert held.call("BatchWriteItem", batch) == EXCEEDED


def test_a_transaction_takes_twice_as_much(held: Cluster, clock: Clock) -> None:
    write = {"TransactItems": [{"Put": {"TableName": "held", "Item": {"p": {"S": "a"}}}}]}
    assert [held.call("TransactWriteItems", write) for _ in range(2)] == [{}, EXCEEDED]
    read = {"TransactItems": [{"Get": {"TableName": "held", "Key": {"p": {"S": "a"}}}}]}
    assert held.call("TransactGetItems", read) == {"Responses": [{"Item": {"p": {"S": "a"}}}]}
    assert held.call("TransactGetItems", read) == EXCEEDED


KIB = 1024
KEY = {"TableName": "held", "Key": {"p": {"S": "a"}}}
UPDATE = {"Update": {**KEY, "UpdateExpression": "SET r = :r", "ExpressionAttributeValues": {":r": {"S": "r"}}}}
DELETE = {"Delete": KEY}
CHECK = {"ConditionCheck": {**KEY, "ConditionExpression": "attribute_exists(p)"}}
WRONG = {"ConditionCheck": {**KEY, "ConditionExpression": "attribute_not_exists(p)"}}


def put_of(size: int, name: str = "b") -> Any:
    return {"Put": {"TableName": "held", "Item": {"p": {"S": name}, "q": {"S": "x" * size}}}}


def transact(cluster: Cluster, *items: Any, **others: Any) -> Any:
    return cluster.call("TransactWriteItems", {"TransactItems": list(items), **others})


def units_taken(cluster: Cluster, clock: Clock, ask: Callable[[], Any], *, are_of_writes: bool = True) -> float:
    """Return how many units of one kind ``ask`` takes of the table."""
    clock.now_s += 1000.0
    get(cluster)  # from the first request on the table is known
    meters = cluster.dynamodb._meters._meters
    (meter,) = (meter for (_, is_of_writes), meter in meters.items() if is_of_writes == are_of_writes)
    meter.admit()
    before = meter._bucket._left
    ask()
    return before - meter._bucket._left


@pytest.mark.parametrize(
    ("write", "units"),
    [
        pytest.param(UPDATE, 8, id="update"),
        pytest.param(DELETE, 8, id="delete"),
        pytest.param(CHECK, 8, id="check"),
        pytest.param(put_of(4 * KIB), 10, id="put"),
        pytest.param(put_of(1, "a"), 8, id="put in place of a larger one"),
    ],
)
def test_a_transaction_takes_twice_what_its_item_was_or_becomes(
    held: Cluster, clock: Clock, write: Any, units: int
) -> None:
    put(held, size=3 * KIB)
    assert units_taken(held, clock, lambda: transact(held, write)) == units


@pytest.mark.parametrize(
    ("also", "units"),
    [
        pytest.param(put_of(4 * KIB), 10, id="a put that would have been done"),
        pytest.param({"Update": {**UPDATE["Update"], "Key": {"p": {"S": "c"}}}}, 2, id="an update of nothing"),
    ],
)
def test_a_cancelled_transaction_takes_what_it_would_have_taken(
    held: Cluster, clock: Clock, also: Any, units: int
) -> None:
    put(held, size=3 * KIB)

    def write() -> None:
        assert transact(held, WRONG, also).startswith("TransactionCanceledException")

    assert units_taken(held, clock, write) == 8 + units


def test_a_conflict_takes_as_much_as_is_known_of_its_items(held: Cluster, clock: Clock) -> None:
    held.transactions.conflicts = lambda key: b"b" in key

    def write() -> None:
        assert transact(held, put_of(4 * KIB)).startswith("TransactionCanceledException")

    assert units_taken(held, clock, write) == 10
    get_b = {"TransactItems": [{"Get": {**KEY, "Key": {"p": {"S": "b"}}}}]}
    taken = units_taken(held, clock, lambda: held.call("TransactGetItems", get_b), are_of_writes=False)
    assert taken == 2


@pytest.mark.parametrize("asked", [{}, {"ReturnConsumedCapacity": "TOTAL"}], ids=["silently", "and told"])
def test_a_repeated_transaction_takes_what_reading_its_items_takes(held: Cluster, clock: Clock, asked: Any) -> None:
    def write() -> Any:
        return transact(held, put_of(9 * KIB), ClientRequestToken="t", **asked)

    assert units_taken(held, clock, write) == 20
    assert units_taken(held, clock, write) == 0
    assert units_taken(held, clock, write, are_of_writes=False) == 6
    if asked:
        units = {"CapacityUnits": 6.0, "ReadCapacityUnits": 6.0}
        assert write() == {"ConsumedCapacity": [{"TableName": "held", **units}]}


def test_what_a_transaction_asks_back_is_told_of_tables_that_are_held_as_of_others(held: Cluster, clock: Clock) -> None:
    told = [
        transact(held, {"Put": {"TableName": table, "Item": {"p": {"S": "a"}}}}, ReturnConsumedCapacity="INDEXES")
        for table in ("held", "str")
    ]
    assert str(told[0]).replace("held", "str") == str(told[1])


def test_an_update_of_the_table_and_of_its_tags_hold_at_once(held: Cluster, clock: Clock) -> None:
    while put(held) == {}:
        pass
    units = {"ReadCapacityUnits": 300, "WriteCapacityUnits": 300}
    held.call("UpdateTable", {"TableName": "held", "ProvisionedThroughput": units})
    assert put(held) == EXCEEDED
    clock.now_s += 0.2
    assert [put(held) for _ in range(10)] == [{}] * 10
    while put(held) == {}:
        pass
    held.run(
        served(
            held.dynamodb,
            "TagResource",
            b'{"ResourceArn":"%b","Tags":[{"Key":"%b","Value":"false"}]}' % (ARN.encode(), TAG.encode()),
        )
    )
    assert put(held) == {}


def test_limits_of_a_table_on_demand_are_enforced_where_there_are_any(cluster: Cluster, clock: Clock) -> None:
    make(cluster, BillingMode="PAY_PER_REQUEST", OnDemandThroughput={"MaxWriteRequestUnits": NODES})
    assert [put(cluster) for _ in range(2)] == [{}, ON_DEMAND]
    assert [get(cluster) for _ in range(20)] == [{"Item": {"p": {"S": "a"}, "q": {"S": ""}}}] * 20


def test_leaderless_tables_are_held_to_it_as_well(cluster: Cluster, clock: Clock) -> None:
    tags = [{"Key": TAG, "Value": "true"}, {"Key": "merganser:replication", "Value": "leaderless"}]
    make(cluster, Tags=tags, ProvisionedThroughput={"ReadCapacityUnits": NODES, "WriteCapacityUnits": NODES})
    assert [put(cluster) for _ in range(2)] == [{}, EXCEEDED]
    assert [get(cluster, ConsistentRead=True) for _ in range(2)][-1] == EXCEEDED


def test_a_global_index_has_throughput_of_its_own(cluster: Cluster, clock: Clock) -> None:
    keys = [{"AttributeName": "g", "KeyType": "HASH"}]
    wide, narrow = ({"ReadCapacityUnits": n * NODES, "WriteCapacityUnits": n * NODES} for n in (100, 1))
    index = {"IndexName": "byG", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
    kinds = [{"AttributeName": name, "AttributeType": "S"} for name in "pg"]
    made = make(
        cluster,
        AttributeDefinitions=kinds,
        ProvisionedThroughput=wide,
        GlobalSecondaryIndexes=[{**index, "ProvisionedThroughput": narrow}],
    )
    assert isinstance(made, dict), made
    assert [put(cluster) for _ in range(5)] == [{}] * 5  # which the index knows nothing of
    item = {"p": {"S": "a"}, "g": {"S": "g"}}
    write = {"TableName": "held", "Item": item}
    assert [cluster.call("PutItem", write), cluster.call("PutItem", write), put(cluster)] == [{}, OF_INDEX, OF_INDEX]
    ask = {
        "TableName": "held",
        "IndexName": "byG",
        "KeyConditionExpression": "g = :g",
        "ExpressionAttributeValues": {":g": {"S": "g"}},
    }
    assert [cluster.call("Query", ask) for _ in range(3)][-1] == OF_INDEX
    assert isinstance(get(cluster), dict)
    clock.now_s += 1
    change = [{"Update": {"IndexName": "byG", "ProvisionedThroughput": wide}}]
    cluster.call("UpdateTable", {"TableName": "held", "GlobalSecondaryIndexUpdates": change})
    assert [cluster.call("PutItem", write) for _ in range(5)] == [{}] * 5


def test_another_value_of_the_tag_is_refused(cluster: Cluster) -> None:
    assert make(cluster, tag="yes") == (
        f"ValidationException | One or more parameter values were invalid: The tag {TAG} is 'yes', and can be true, or "
        "false, which it is without the tag"
    )


def test_sessions_are_not_metered_while_no_table_asks(cluster: Cluster, clock: Clock) -> None:
    meters = cluster.dynamodb._meters
    assert type(meters.session(levels=None, deadline=0.0)) is Session  # type: ignore[arg-type]
    make(cluster)
    assert type(meters.session(levels=None, deadline=0.0)) is not Session  # type: ignore[arg-type]
