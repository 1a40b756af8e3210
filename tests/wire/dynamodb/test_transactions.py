"""TransactWriteItems and TransactGetItems: what is refused, what is cancelled and how that is told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.model.errors import TransactionInProgressError
from merganser.wire.dynamodb.errors import fault_of
from wire.dynamodb.fakes import Cluster

A, B = {"S": "a"}, {"S": "b"}
ONE = {"N": "1"}
CONSTRAINT = "failed to satisfy constraint: "


def put(table: str = "str", **parameters: Any) -> dict[str, Any]:
    item = parameters.pop("item", {"p": A})
    return {"Put": {"TableName": table, "Item": item, **parameters}}


def delete(p: Any = A, **parameters: Any) -> dict[str, Any]:
    return {"Delete": {"TableName": "str", "Key": {"p": p}, **parameters}}


def update(expression: str, p: Any = A, **parameters: Any) -> dict[str, Any]:
    return {"Update": {"TableName": "str", "Key": {"p": p}, "UpdateExpression": expression, **parameters}}


def check(condition: str, p: Any = A, **parameters: Any) -> dict[str, Any]:
    return {"ConditionCheck": {"TableName": "str", "Key": {"p": p}, "ConditionExpression": condition, **parameters}}


def get(p: Any = A, table: str = "str") -> dict[str, Any]:
    return {"Get": {"TableName": table, "Key": {"p": p}}}


def write(cluster: Cluster, *items: Any, token: str | None = None) -> Any:
    request: dict[str, Any] = {"TransactItems": list(items)}
    if token is not None:
        request["ClientRequestToken"] = token
    return cluster.call("TransactWriteItems", request)


def read(cluster: Cluster, *items: Any) -> Any:
    return cluster.call("TransactGetItems", {"TransactItems": list(items)})


def reasons_of(cluster: Cluster, operation: str, *items: Any) -> list[Any]:
    """Return the reasons with which a transaction is cancelled."""
    fault = cluster.fault(operation, {"TransactItems": list(items)})
    assert fault.status == 400
    assert fault.kind == "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
    body = orjson.loads(fault.body())
    reasons: list[Any] = body["CancellationReasons"]
    codes = ", ".join(reason["Code"] for reason in reasons)
    assert body["Message"] == (
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    )
    return reasons


def test_all_of_a_transaction_is_done(cluster: Cluster) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": B}})
    items = [
        put(item={"p": A, "n": ONE}, ConditionExpression="attribute_not_exists(p)"),
        delete(B),
        update("SET n = :n", {"S": "c"}, ExpressionAttributeValues={":n": {"N": "2.0"}}),
        check("attribute_not_exists(p)", {"S": "d"}),
        put("num", item={"p": ONE}),
    ]
    assert write(cluster, *items) == {}
    assert read(cluster, get(), get(B), get({"S": "c"}), get(ONE, "num")) == {
        "Responses": [
            {"Item": {"p": A, "n": ONE}},
            {},
            {"Item": {"p": {"S": "c"}, "n": {"N": "2"}}},
            {"Item": {"p": ONE}},
        ]
    }


def test_nothing_is_done_when_one_condition_does_not_hold_and_the_answer_says_which(cluster: Cluster) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": B, "n": ONE}})
    shown = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    wrong = check("attribute_not_exists(p)", B, **shown)
    failed = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    assert reasons_of(cluster, "TransactWriteItems", put(), wrong) == [
        {"Code": "None"},
        {**failed, "Item": {"p": B, "n": ONE}},
    ]
    unshown = delete(B, ConditionExpression="n = :n", ExpressionAttributeValues={":n": {"N": "2"}})
    assert reasons_of(cluster, "TransactWriteItems", unshown, put()) == [failed, {"Code": "None"}]
    assert read(cluster, get(), get(B)) == {"Responses": [{}, {"Item": {"p": B, "n": ONE}}]}


def test_an_update_that_an_item_is_not_made_for_cancels_with_its_reason(cluster: Cluster) -> None:
    wrong = update("SET a.b = :n", ExpressionAttributeValues={":n": ONE})
    (reason,) = reasons_of(cluster, "TransactWriteItems", wrong)
    assert reason == {
        "Code": "ValidationError",
        "Message": "The document path provided in the update expression is invalid for update",
    }


def test_an_item_that_another_transaction_holds_is_a_conflict(cluster: Cluster) -> None:
    cluster.transactions.conflicts = lambda key: b"b" in key
    conflict = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
    assert reasons_of(cluster, "TransactWriteItems", delete(), delete(B)) == [{"Code": "None"}, conflict]
    assert reasons_of(cluster, "TransactGetItems", get(B), get()) == [conflict, {"Code": "None"}]


def test_a_key_that_does_not_fit_its_table_cancels(cluster: Cluster) -> None:
    schema = {"Code": "ValidationError", "Message": "The provided key element does not match the schema"}
    missing = {
        "Code": "ValidationError",
        "Message": "One or more parameter values were invalid: Missing the key p in the item",
    }
    assert reasons_of(cluster, "TransactWriteItems", put(item={"q": A}), delete(ONE), put()) == [
        missing,
        schema,
        {"Code": "None"},
    ]
    assert reasons_of(cluster, "TransactGetItems", get(ONE)) == [schema]


def test_a_repeated_request_is_done_once(cluster: Cluster) -> None:
    add = update("ADD n :n", ExpressionAttributeValues={":n": ONE})
    assert write(cluster, add, token="t") == write(cluster, add, token="t") == {}
    assert read(cluster, get()) == {"Responses": [{"Item": {"p": A, "n": ONE}}]}
    assert write(cluster, add, token="another") == {}
    other = update("ADD n :n", ExpressionAttributeValues={":n": {"N": "5"}})
    assert write(cluster, other, token="t").startswith("IdempotentParameterMismatchException | ")
    same = update("ADD n :n", ExpressionAttributeValues={":n": {"N": "1.0"}})
    assert write(cluster, same, token="t") == {}, "it is the same number"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([put("num", item={"p": ONE}), put()], id="another first table"),
        pytest.param([put("num", item={"p": ONE})], id="another table"),
        pytest.param([put(), put(item={"p": B})], id="an item more"),
        pytest.param([delete()], id="another action"),
    ],
)
def test_a_token_is_good_for_one_request_whatever_another_one_writes_to(cluster: Cluster, other: list[Any]) -> None:
    assert write(cluster, put(), token="t") == {}
    assert write(cluster, *other, token="t").startswith("IdempotentParameterMismatchException | ")
    assert read(cluster, get(B), get(ONE, "num")) == {"Responses": [{}, {}]}
    assert write(cluster, put(), token="t") == {}


def test_a_token_is_of_tables_and_not_of_their_names(cluster: Cluster) -> None:
    both = [put("num", item={"p": ONE}), put()]
    assert write(cluster, *both, token="t") == {}
    assert "TableDescription" in cluster.call("DeleteTable", {"TableName": "num"})
    cluster.create("num", "N", None)
    assert write(cluster, *both, token="t").startswith("IdempotentParameterMismatchException | ")
    assert read(cluster, get(), get(ONE, "num")) == {"Responses": [{"Item": {"p": A}}, {}]}


def test_a_token_says_nothing_of_a_table_that_was_deleted_and_made_again() -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.create("str", "S", None)
        assert write(cluster, put(), token="t") == {}
        assert read(cluster, get()) == {"Responses": [{"Item": {"p": A}}]}
        assert "TableDescription" in cluster.call("DeleteTable", {"TableName": "str"})
    cluster.close()


def test_a_request_under_way_is_told_as_such() -> None:
    fault = fault_of(TransactionInProgressError("wait"))
    assert (fault.status, fault.kind.partition("#")[2]) == (400, "TransactionInProgressException")
    assert fault.body() == (
        b'{"__type":"com.amazonaws.dynamodb.v20120810#TransactionInProgressException","Message":"wait"}'
    )


NULL = "Member must not be null"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], f"Value '[]' at 'transactItems' {CONSTRAINT}Member must have length greater than or equal to 1"),
        ([put()] * 101, f"at 'transactItems' {CONSTRAINT}Member must have length less than or equal to 100"),
        ([{"Put": {"TableName": "str"}}], f"Value null at 'transactItems.1.member.put.item' {CONSTRAINT}{NULL}"),
        (
            [put(), {"ConditionCheck": {"TableName": "str", "Key": {"p": A}}}],
            f"Value null at 'transactItems.2.member.conditionCheck.conditionExpression' {CONSTRAINT}{NULL}",
        ),
        (
            [{"Update": {"TableName": "str", "Key": {"p": A}}}],
            f"Value null at 'transactItems.1.member.update.updateExpression' {CONSTRAINT}{NULL}",
        ),
        ([{}], "TransactItems can only contain one of Check, Put, Update or Delete"),
        ([{**put(), **delete()}], "TransactItems can only contain one of Check, Put, Update or Delete"),
        ([put(), delete()], "Transaction request cannot include multiple operations on one item"),
        ([put(item={"p": {}})], "Supplied AttributeValue is empty"),
        *(
            (
                [{name: {"TableName": "nope", "Key": {"p": {"S": ""}}, **more}}],
                "cannot contain an empty string value. Key: p",
            )
            for name, more in (
                ("Delete", {}),
                ("Update", {"UpdateExpression": "REMOVE n"}),
                ("ConditionCheck", {"ConditionExpression": "attribute_exists(n)"}),
            )
        ),
        ([put(ConditionExpression="a")], "Invalid ConditionExpression: "),
        ([update("SET n = :n")], "Invalid UpdateExpression: "),
        ([update("SET n = p", ExpressionAttributeNames={"#x": "x"})], "unused in expressions: keys: {#x}"),
        ([put(ReturnValuesOnConditionCheckFailure="X")], "Member must satisfy enum value set: [ALL_OLD, NONE]"),
    ],
)
def test_a_wrong_write_is_refused_before_anything_is_done(cluster: Cluster, items: Any, message: str) -> None:
    answer = write(cluster, *items)
    assert answer.startswith("ValidationException | ")
    assert message in answer
    assert not cluster.kept


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "Member must have length greater than or equal to 1"),
        ([{}], f"Value null at 'transactItems.1.member.get' {CONSTRAINT}{NULL}"),
        ([{"Get": {"TableName": "str"}}], f"Value null at 'transactItems.1.member.get.key' {CONSTRAINT}{NULL}"),
        ([get(), get()], "Transaction request cannot include multiple operations on one item"),
        ([{"Get": {"TableName": "nope", "Key": {"p": {"B": ""}}}}], "cannot contain an empty binary value. Key: p"),
    ],
)
def test_a_wrong_read_is_refused(cluster: Cluster, items: Any, message: str) -> None:
    answer = read(cluster, *items)
    assert answer.startswith("ValidationException | ")
    assert message in answer


@pytest.mark.parametrize("token", ["", "x" * 37])
def test_a_token_has_1_to_36_characters(cluster: Cluster, token: str) -> None:
    assert f"at 'clientRequestToken' {CONSTRAINT}Member must have length" in write(cluster, put(), token=token)
    assert write(cluster, put(), token=token[:36] or "x") == {}


def test_a_transaction_holds_4_mb_at_most(cluster: Cluster) -> None:
    items = [put(item={"p": {"S": str(number)}, "x": {"S": "x" * 390_000}}) for number in range(11)]
    assert write(cluster, *items) == (
        "ValidationException | The aggregate size of the items in the transaction exceeds 4 MB"
    )
    for item in items:
        cluster.call("PutItem", item["Put"])
    gets = [get({"S": str(number)}) for number in range(11)]
    assert "exceeds 4 MB" in read(cluster, *gets)
    assert len(read(cluster, *gets[:10])["Responses"]) == 10


def test_an_unknown_table_is_not_found(cluster: Cluster) -> None:
    assert write(cluster, put("nope")) == "ResourceNotFoundException | Requested resource not found"


def test_a_leaderless_table_has_no_transactions(leaderless: Cluster) -> None:
    assert write(leaderless, put()) == (
        "ValidationException | TransactWriteItems needs a table with leaders, and str is leaderless: "
        "create a table without the tag merganser:replication = leaderless"
    )
    assert read(leaderless, get()).startswith("ValidationException | TransactGetItems needs a table with leaders")


def test_others_are_served_while_the_values_of_a_large_transaction_are_looked_into(cluster: Cluster) -> None:
    values = {":v": {"S": "x" * 100_000}}
    items = [
        update("SET v = :v", {"S": f"{at}"}, TableName="nope", ExpressionAttributeValues=values) for at in range(100)
    ]
    refused, turns = cluster.fault_beside_others("TransactWriteItems", {"TransactItems": items})
    assert "not found" in refused.message  # which is seen after the items, before the writes
    assert turns >= 100
