"""Random requests, and what a slow model of DynamoDB answers to them: results, errors, capacity and pages."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merganser.wire.dynamodb.errors import DETECTED
from query import test_evaluation, test_update_model
from query.attribute_values import NAMES, attribute_value, item_of, items, ordered
from query.test_evaluation import Tree, trees
from query.test_update_model import BOUND, PATHS, Path, actions, dotted
from wire.dynamodb import api_model
from wire.dynamodb.api_model import Done, Item, Key, Page, RefusedError, Table, named, read_units, size_of
from wire.dynamodb.fakes import Cluster

SORTS = [Decimal(text) for text in ("-10", "-1", "0", "0.5", "2", "10", "1E+20", "1E-130")]
TOTAL = {"ReturnConsumedCapacity": "TOTAL"}

keys = st.tuples(st.sampled_from("xy"), st.sampled_from(SORTS))
attributes = items | test_update_model.items
conditions = st.none() | trees
projections = st.none() | st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)
old = st.sampled_from(["NONE", "ALL_OLD"])
changes = st.lists(actions, min_size=1, max_size=3)
returns = st.sampled_from(["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
limits = st.none() | st.integers(1, 5)
COMPARISONS: dict[str, Callable[..., bool]] = {
    "s = :l": lambda sort, low, high: sort == low,
    "s < :l": lambda sort, low, high: sort < low,
    ":l >= s": lambda sort, low, high: sort <= low,
    "s > :l": lambda sort, low, high: sort > low,
    "s >= :l": lambda sort, low, high: sort >= low,
    "s BETWEEN :l AND :h": lambda sort, low, high: low <= sort <= high,
}
sort_conditions = st.none() | st.tuples(
    st.sampled_from(list(COMPARISONS)), st.lists(st.sampled_from(SORTS), min_size=2, max_size=2).map(sorted)
)

OLDER: dict[str, Callable[[Path, Any], Tree]] = {
    "EQ": lambda path, value: ("=", path, value),
    "NE": lambda path, value: ("<>", path, value),
    "LT": lambda path, value: ("<", path, value),
    "LE": lambda path, value: ("<=", path, value),
    "GT": lambda path, value: (">", path, value),
    "GE": lambda path, value: (">=", path, value),
    "IN": lambda path, value: ("IN", path, value, value),
    "BETWEEN": lambda path, value: ("BETWEEN", path, value, value),
    "CONTAINS": lambda path, value: ("contains", path, value),
    "NOT_CONTAINS": lambda path, value: ("NOT", ("contains", path, value)),
    "BEGINS_WITH": lambda path, value: ("begins_with", path, value),
    "NULL": lambda path, value: ("attribute_not_exists", path),
    "NOT_NULL": lambda path, value: ("attribute_exists", path),
}
"""The operators of the parameters before expressions, as the API reference explains them."""

older_checks = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(list(OLDER)), ordered),
    min_size=1,
    max_size=3,
    unique_by=lambda check: check[0],
)
older_changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("SET"), st.tuples(st.sampled_from(NAMES)), st.tuples(st.just("value"), st.sampled_from(list(BOUND)))
        ),
        st.tuples(st.just("REMOVE"), st.tuples(st.sampled_from(NAMES))),
        st.tuples(
            st.just("ADD"), st.tuples(st.sampled_from(NAMES)), st.sampled_from([("value", ":n"), ("value", ":e")])
        ),
        st.tuples(
            st.just("DELETE"), st.tuples(st.sampled_from(NAMES)), st.sampled_from([("value", ":t"), ("value", ":e")])
        ),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda change: change[1],
)
older_parts = st.one_of(
    st.tuples(st.just("Put"), keys, attributes),
    st.tuples(st.just("Delete"), keys),
    st.tuples(st.just("Update"), keys, older_changes),
)

puts = st.tuples(st.just("Put"), keys, attributes, conditions)
deletes = st.tuples(st.just("Delete"), keys, conditions)
updates = st.tuples(st.just("Update"), keys, changes, conditions)
checks = st.tuples(st.just("ConditionCheck"), keys, trees)
requests = st.one_of(
    st.tuples(st.just("write"), puts, old),
    st.tuples(st.just("write"), deletes, old),
    st.tuples(st.just("write"), updates, returns),
    st.tuples(st.just("get"), keys, projections, st.booleans()),
    st.tuples(st.just("query"), st.sampled_from("xy"), sort_conditions, st.booleans(), limits, conditions, projections),
    st.tuples(st.just("scan"), limits, conditions, projections),
    st.tuples(st.just("older_write"), older_parts, older_checks, st.booleans(), old),
    st.tuples(st.just("older_scan"), limits, older_checks, st.booleans(), st.none() | st.just(["a", "b"])),
    st.tuples(st.just("batch_write"), st.dictionaries(keys, st.none() | attributes, min_size=1, max_size=4)),
    st.tuples(st.just("batch_get"), st.lists(keys, min_size=1, max_size=4, unique=True), projections, st.booleans()),
    st.tuples(
        st.just("transact_write"),
        st.lists(puts | deletes | updates | checks, min_size=1, max_size=4, unique_by=lambda part: part[1]),
    ),
    st.tuples(st.just("transact_get"), st.lists(keys, min_size=1, max_size=4, unique=True), projections),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.create("tab", "S", "N")
    yield cluster
    cluster.close()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys, attributes, max_size=10), st.lists(requests, min_size=1, max_size=8), st.integers(1, 4))
def test_requests_are_answered_as_the_model_answers_them(
    shared: Cluster, stock: dict[Key, Item], chosen: list[Any], rows_max: int
) -> None:
    shared.leader_based.items.clear()
    shared.stops_after(rows_max)
    pair = Pair(shared)
    for key, content in stock.items():
        pair.write(("Put", key, content, None), "NONE")
    for name, *arguments in chosen:
        getattr(pair, name)(*arguments)
        pair.check_state()


class Pair:
    """A cluster and the model, of which each is asked the same."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.table = Table()

    def check_state(self) -> None:
        found = self.cluster.call("Scan", {"TableName": "tab"})["Items"]
        assert len(found) == len(self.table.items)
        assert {native_key(item): item for item in found} == {
            key: item_of(item) for key, item in self.table.items.items()
        }

    def write(self, part: tuple[Any, ...], returned: str) -> None:
        operation, request = written(part)
        self._write(operation, request, part, returned)

    def older_write(self, part: tuple[Any, ...], checks: list[Any], any_of: bool, returned: str) -> None:
        operation, key, *rest = part
        _, request = written((operation, key, *rest[:1], None) if operation == "Put" else ("Delete", key, None))
        if operation == "Update":
            request["AttributeUpdates"] = older_updates(rest[0])
        request["Expected"] = older_conditions(checks)
        request["ConditionalOperator"] = "OR" if any_of else "AND"
        self._write(operation, request, (*part, older_tree(checks, any_of)), returned)

    def _write(self, operation: str, request: dict[str, Any], part: tuple[Any, ...], returned: str) -> None:
        answer = self.cluster.call(f"{operation}Item", {**request, "ReturnValues": returned, **TOTAL})
        if is_unjudged(answer):
            return
        done = applied(self.table, part, returned)
        if isinstance(done, str):
            assert answer.startswith(f"{done} | "), answer
            return
        assert answer == {
            **({"Attributes": item_of(done.shown)} if done.shown else {}),
            "ConsumedCapacity": consumed(done.units),
        }

    def get(self, key: Key, paths: list[Path] | None, is_consistent: bool) -> None:
        request = {"TableName": "tab", "Key": item_of(named(key)), "ConsistentRead": is_consistent}
        answer = self.cluster.call("GetItem", {**request, **projecting(paths), **TOTAL})
        if not is_unjudged(answer):
            assert answer == {
                **self.got(key, paths),
                "ConsumedCapacity": consumed(self.units_of(key) / (1 if is_consistent else 2)),
            }

    def query(
        self,
        partition: str,
        sort: tuple[str, list[Decimal]] | None,
        is_forward: bool,
        limit: int | None,
        condition: Tree | None,
        paths: list[Path] | None,
    ) -> None:
        text, (low, high) = ("", SORTS[:2]) if sort is None else sort
        values = {":p": {"S": partition}}
        if sort is not None:
            values |= {name: attribute_value(value) for name, value in ((":l", low), (":h", high)) if name in text}
        request = {
            "TableName": "tab",
            "KeyConditionExpression": f"p = :p AND {text}" if text else "p = :p",
            "ScanIndexForward": is_forward,
            **listing(limit, condition, paths, values),
        }
        start: dict[str, Any] | None = None
        while True:
            answer = self.cluster.call("Query", starting(request, start))
            if is_unjudged(answer):
                return
            page = self.table.query(
                partition,
                lambda found: sort is None or COMPARISONS[text](found, low, high),
                is_forward=is_forward,
                start=None if start is None else Decimal(start["s"]["N"]),
                limit=limit,
                condition=condition,
                paths=paths,
            )
            assert answer == told(page)
            start = answer.get("LastEvaluatedKey")
            if start is None:
                return

    def older_scan(self, limit: int | None, checks: list[Any], any_of: bool, names: list[str] | None) -> None:
        request: dict[str, Any] = {"TableName": "tab", "ScanFilter": older_conditions(checks), **TOTAL}
        request["ConditionalOperator"] = "OR" if any_of else "AND"
        if limit is not None:
            request["Limit"] = limit
        if names is not None:
            request["AttributesToGet"] = names
        paths = None if names is None else [(name,) for name in names]
        self._scan(request, limit, older_tree(checks, any_of), paths)

    def scan(self, limit: int | None, condition: Tree | None, paths: list[Path] | None) -> None:
        request = {"TableName": "tab", **listing(limit, condition, paths, {})}
        self._scan(request, limit, condition, paths)

    def _scan(
        self, request: dict[str, Any], limit: int | None, condition: Tree | None, paths: Sequence[Path] | None
    ) -> None:
        order = [native_key(item) for item in self.cluster.call("Scan", {"TableName": "tab"})["Items"]]
        assert set(order) == set(self.table.items)
        for partition in "xy":  # the partition keys themselves have an order of their own
            places = [at for at, key in enumerate(order) if key[0] == partition]
            assert places == list(range(places[0], places[0] + len(places))) if places else True
            sorts = [order[at][1] for at in places]
            assert sorts == sorted(sorts)
        start: dict[str, Any] | None = None
        while True:
            answer = self.cluster.call("Scan", starting(request, start))
            if is_unjudged(answer):
                return
            began = 0 if start is None else order.index(native_key(start)) + 1
            assert answer == told(self.table.page(order[began:], limit, condition, paths))
            start = answer.get("LastEvaluatedKey")
            if start is None:
                return

    def batch_write(self, content: dict[Key, Item | None]) -> None:
        units = 0
        requests: list[Any] = []
        for key, item in content.items():
            if item is None:
                requests.append({"DeleteRequest": {"Key": item_of(named(key))}})
                units += self.table.delete(key, None).units
            else:
                requests.append({"PutRequest": {"Item": item_of({**item, **named(key)})}})
                units += self.table.put(key, item, None).units
        answer = self.cluster.call("BatchWriteItem", {"RequestItems": {"tab": requests}, **TOTAL})
        assert answer == {"UnprocessedItems": {}, "ConsumedCapacity": [consumed(units)]}

    def batch_get(self, chosen: list[Key], paths: list[Path] | None, is_consistent: bool) -> None:
        asked = {"Keys": [item_of(named(key)) for key in chosen], "ConsistentRead": is_consistent, **projecting(paths)}
        answer = self.cluster.call("BatchGetItem", {"RequestItems": {"tab": asked}, **TOTAL})
        if not is_unjudged(answer):
            found = [self.got(key, paths) for key in chosen]
            units = sum(map(self.units_of, chosen)) / (1 if is_consistent else 2)
            assert answer == {
                "Responses": {"tab": [one["Item"] for one in found if one]},
                "UnprocessedKeys": {},
                "ConsumedCapacity": [consumed(units)],
            }

    def transact_write(self, parts: list[tuple[Any, ...]]) -> None:
        elements = [dict([written(part)]) for part in parts]
        answer = self.cluster.call("TransactWriteItems", {"TransactItems": elements, **TOTAL})
        if is_unjudged(answer):
            return
        after = Table()
        after.items = dict(self.table.items)
        units, codes = 0, []
        for part in parts:
            done = applied(after, part, "NONE")
            if isinstance(done, str):
                codes.append({"ValidationException": "ValidationError"}.get(done, "ConditionalCheckFailed"))
            else:
                units += 2 * done.units
                codes.append("None")
        if set(codes) == {"None"}:
            self.table = after
            assert answer == {"ConsumedCapacity": [{**consumed(units), "WriteCapacityUnits": units}]}
        else:
            assert answer.startswith("TransactionCanceledException | ")
            assert answer.endswith(f"[{', '.join(codes)}]"), (answer, codes)

    def transact_get(self, chosen: list[Key], paths: list[Path] | None) -> None:
        gets = [{"Get": {"TableName": "tab", "Key": item_of(named(key)), **projecting(paths)}} for key in chosen]
        answer = self.cluster.call("TransactGetItems", {"TransactItems": gets, **TOTAL})
        if not is_unjudged(answer):
            units = 2 * sum(map(self.units_of, chosen))
            assert answer == {
                "Responses": [self.got(key, paths) for key in chosen],
                "ConsumedCapacity": [{**consumed(units), "ReadCapacityUnits": units}],
            }

    def got(self, key: Key, paths: list[Path] | None) -> dict[str, Any]:
        item = self.table.items.get(key)
        if item is None:
            return {}
        return {"Item": item_of(item if paths is None else api_model.projection(item, paths))}

    def units_of(self, key: Key) -> int:
        item = self.table.items.get(key)
        return read_units(0 if item is None else size_of(item))


def applied(table: Table, part: tuple[Any, ...], returned: str) -> Done | str:
    """Do to the model what a part of a transaction, or a write alone, does; a text is the code of an error."""
    try:
        match part:
            case ("Put", key, content, condition):
                return table.put(key, content, condition, returned)
            case ("Delete", key, condition):
                return table.delete(key, condition, returned)
            case ("Update", key, chosen, condition):
                return table.update(key, chosen, condition, returned)
        _, key, condition = part
        table.check(key, condition)
    except RefusedError as error:
        return str(error)
    item = table.items.get(key)
    return Done({}, api_model.write_units(item, item))


def written(part: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    """The operation, and its request without what only one of both forms has."""
    values: dict[str, Any] = {}
    operation, key, *rest = part
    request: dict[str, Any] = {"TableName": "tab"}
    if operation == "Put":
        request["Item"] = item_of({**rest[0], **named(key)})
    else:
        request["Key"] = item_of(named(key))
    if operation == "Update":
        request["UpdateExpression"] = text = test_update_model.written(rest[0])
        values |= {name: attribute_value(value) for name, value in BOUND.items() if re.search(rf"{name}\b", text)}
    if rest[-1] is not None:
        request["ConditionExpression"] = conditional(rest[-1], values)
    if values:
        request["ExpressionAttributeValues"] = values
    return operation, request


def conditional(condition: Tree, values: dict[str, Any]) -> str:
    bound: dict[str, Any] = {}
    text = test_evaluation.written(condition, bound)
    values |= {f":{name}": attribute_value(value) for name, value in bound.items()}
    return text


def older_tree(checks: list[Any], any_of: bool) -> Tree:
    trees = [OLDER[operator](("path", name), ("value", fitting(operator, value))) for name, operator, value in checks]
    return functools.reduce(lambda one, other: ("OR" if any_of else "AND", one, other), trees)


def older_conditions(checks: list[Any]) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    for name, operator, value in checks:
        number = {"NULL": 0, "NOT_NULL": 0, "IN": 2, "BETWEEN": 2}.get(operator, 1)
        operand = attribute_value(fitting(operator, value))
        conditions[name] = {"ComparisonOperator": operator, "AttributeValueList": [operand] * number}
    return conditions


def fitting(operator: str, value: Any) -> Any:
    """The value, or a text for what takes no numbers."""
    return str(value) if operator == "BEGINS_WITH" and isinstance(value, Decimal) else value


def older_updates(changes: list[Any]) -> dict[str, Any]:
    updates: dict[str, Any] = {}
    for keyword, (name,), *operand in changes:
        action = {"SET": "PUT", "REMOVE": "DELETE"}.get(keyword, keyword)
        value = {"Value": attribute_value(BOUND[operand[0][1]])} if operand else {}
        updates[name] = {"Action": action, **value}
    return updates


def projecting(paths: Sequence[Path] | None) -> dict[str, Any]:
    return {} if paths is None else {"ProjectionExpression": ", ".join(map(dotted, paths))}


def listing(
    limit: int | None, condition: Tree | None, paths: Sequence[Path] | None, values: dict[str, Any]
) -> dict[str, Any]:
    request: dict[str, Any] = {**projecting(paths), **TOTAL}
    if limit is not None:
        request["Limit"] = limit
    if condition is not None:
        request["FilterExpression"] = conditional(condition, values)
    if values:
        request["ExpressionAttributeValues"] = values
    return request


def starting(request: dict[str, Any], start: dict[str, Any] | None) -> dict[str, Any]:
    return request if start is None else {**request, "ExclusiveStartKey": start}


def told(page: Page) -> dict[str, Any]:
    return {
        "Count": len(page.items),
        "ScannedCount": page.scanned,
        "Items": [item_of(item) for item in page.items],
        **({} if page.last is None else {"LastEvaluatedKey": item_of(page.last)}),
        "ConsumedCapacity": consumed(page.units),
    }


def consumed(units: float) -> dict[str, Any]:
    return {"TableName": "tab", "CapacityUnits": units}


def is_unjudged(answer: Any) -> bool:
    """An expression is wrong whatever the items are: of those the model knows nothing."""
    return isinstance(answer, str) and answer.startswith(
        ("ValidationException | Invalid ", f"ValidationException | {DETECTED}Invalid ")
    )


def native_key(item: dict[str, Any]) -> Key:
    return item["p"]["S"], Decimal(item["s"]["N"])
