"""UpdateTable's GlobalSecondaryIndexUpdates: indexes added to a table, taken from it, or given other throughput.

Adding and taking away are changes of the cluster map, which the services then see to in the background; one at a time
of a table. Throughput is a setting of the table's definition like its own, kept by the table of the index's entries,
which no other index will ever have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from merganser.model.cluster import Index, Table
from merganser.model.errors import IndexExistsError
from merganser.model.index import IndexRequest
from merganser.wire.dynamodb.constraints import Violations, element_violations
from merganser.wire.dynamodb.errors import (
    LIMIT_EXCEEDED,
    RESOURCE_IN_USE,
    ApiError,
    NotFoundError,
    ValidationError,
)
from merganser.wire.dynamodb.index_requests import (
    GLOBAL_MAX,
    TOO_MANY_GLOBAL,
    check_all_used,
    check_global,
    check_projected,
    check_throughput,
    index_definition,
    index_name_violations,
    violations_of_index,
)
from merganser.wire.dynamodb.secondary_indexes import definition_of_index
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.table_settings import (
    INVALID,
    ON_DEMAND,
    check_warmth,
    on_demand_limits_of,
    throughput_violations,
    unchanged,
    units_of,
    warm_throughput_of,
)
from merganser.wire.dynamodb.tables import IndexSettings, TableDefinition, definition_of, key_attributes, settings_of

PARAMETER: Final = "GlobalSecondaryIndexUpdates"
_ACTIONS: Final = ("Update", "Create", "Delete")
_ONE_AT_A_TIME: Final = (
    "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"
)
_NONE: Final = (
    f"{INVALID}One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
    "GlobalSecondaryIndexUpdate.Delete must not be null"
)
_SEVERAL: Final = (
    f"{INVALID}Only one of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
    "GlobalSecondaryIndexUpdate.Delete may be specified"
)


class _Asked(NamedTuple):
    action: str
    members: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.members["IndexName"])


def find_update_violations(violations: Violations, request: Mapping[str, Any]) -> None:
    """Add what is wrong with the index updates of an UpdateTable by the API's model."""
    defined = request.get("AttributeDefinitions")
    if defined is not None:
        element_violations(violations, defined, "attributeDefinitions", "AttributeType")
    for number, update in enumerate(request.get(PARAMETER) or (), start=1):
        for action in _ACTIONS:
            index = (update or {}).get(action)
            if index is not None:
                at = f"globalSecondaryIndexUpdates.{number}.member.{action.lower()}."
                if action == "Create":
                    violations_of_index(violations, index, at)
                else:
                    index_name_violations(violations, index, at)
                    throughput_violations(violations, index.get("ProvisionedThroughput"), f"{at}provisionedThroughput.")


def check_index_updates(request: Mapping[str, Any]) -> None:
    """Check the index updates of an UpdateTable, whatever the table is.

    Raises:
        ValidationError: in DynamoDB's words and order.
        ApiError: more than one index is to come or go.
    """
    names: set[str] = set()
    for update in request.get(PARAMETER) or ():
        given = [action for action in _ACTIONS if (update or {}).get(action) is not None]
        if len(given) != 1:
            raise ValidationError(_SEVERAL if given else _NONE)
        name = update[given[0]]["IndexName"]
        if name in names:
            raise ValidationError(
                f"{INVALID}Only one global secondary index update per index is allowed simultaneously. Index: {name}"
            )
        names.add(name)
    if sum(one.action != "Update" for one in _asked(request)) > 1:
        raise ApiError(LIMIT_EXCEEDED, _ONE_AT_A_TIME)


def moves_indexes(request: Mapping[str, Any]) -> bool:
    """Tell whether an UpdateTable lets an index come or go."""
    return any(one.action != "Update" for one in _asked(request))


def added_index(request: Mapping[str, Any]) -> str | None:
    """Return the name of the index that an UpdateTable lets come."""
    return next((one.name for one in _asked(request) if one.action == "Create"), None)


def with_index_settings(
    table: Table, before: TableDefinition, after: TableDefinition, request: Mapping[str, Any], *, now_ms: int
) -> TableDefinition:
    """Return ``after`` with what index updates and a change of the billing mode make of the settings of indexes.

    Args:
        table: as it is.
        before: its definition.
        after: what the rest of a checked request makes of that.
        request: the UpdateTable.
        now_ms: milliseconds since 1970.

    Raises:
        ValidationError: an update makes no sense for this table.
        NotFoundError: there is no such index.
        ApiError: another index is about to come or go.
    """
    asked = _asked(request)
    for one in asked:
        _check(table, after, one, request.get("AttributeDefinitions") or ())
    updates = {one.name: one.members for one in asked if one.action == "Update"}
    is_on_demand = after.throughput is None
    if before.throughput is None and not is_on_demand:
        unsaid = [
            index.name
            for index in table.indexes
            if (updates.get(index.name) or {}).get("ProvisionedThroughput") is None
        ]
        if unsaid:
            raise ValidationError(f"{INVALID}ProvisionedThroughput must be specified for index: {','.join(unsaid)}")
    if not updates and (before.throughput is None) == is_on_demand:
        return after
    settings = [
        _settings(table, before, index, updates.get(index.name), is_on_demand, now_ms) for index in table.indexes
    ]
    return msgspec.structs.replace(after, index_settings=tuple(settings))


async def do_index_updates(
    session: Session, request: Mapping[str, Any], table: Table, definition: bytes, *, unique_id: str
) -> Table:
    """Give a table its new definition and, in the same step, the index that a request asks for, or take that away.

    Args:
        session: of the request.
        request: the UpdateTable.
        table: for which the request was checked.
        definition: what became of the table's by that.
        unique_id: of an index that is made.

    Returns:
        the table as it is then.

    Raises:
        ValidationError: somebody else has made an index of that name meanwhile.
        TableChangedError: the table has become another one meanwhile: nothing was done.
    """
    asked = next((one for one in _asked(request) if one.action != "Update"), None)
    if asked is None:
        return await session.remake(table, definition)
    catalog, deadline = session.catalog, session.deadline
    if asked.action == "Delete":
        return await catalog.drop_index(table, asked.name, definition=definition, deadline=deadline)
    defined = _defined(table, request.get("AttributeDefinitions") or ())
    wanted = IndexRequest(asked.name, index_definition(asked.members, defined).encoded())
    try:
        return await catalog.add_index(table, wanted, unique_id=unique_id, definition=definition, deadline=deadline)
    except IndexExistsError:
        raise _exists() from None


def _asked(request: Mapping[str, Any]) -> list[_Asked]:
    return [
        _Asked(action, update[action])
        for update in request.get(PARAMETER) or ()
        for action in _ACTIONS
        if update.get(action) is not None
    ]


def _check(table: Table, after: TableDefinition, asked: _Asked, given: Sequence[Mapping[str, str]]) -> None:
    index = next((index for index in table.indexes if index.name == asked.name), None)
    if asked.action == "Create":
        _check_create(table, after, index, asked.members, given)
        return
    if index is None:
        raise NotFoundError
    if index.state == "deleting":
        raise ApiError(
            RESOURCE_IN_USE, f"Attempt to change a resource which is still in use: Index is being deleted: {index.name}"
        )
    if asked.action == "Delete" and any(one.state != "active" for one in table.indexes if one is not index):
        raise ApiError(LIMIT_EXCEEDED, _ONE_AT_A_TIME)
    if asked.action == "Update":
        _check_update(after, asked.members)


def _check_create(
    table: Table,
    after: TableDefinition,
    existing: Index | None,
    wanted: Mapping[str, Any],
    given: Sequence[Mapping[str, str]],
) -> None:
    if not table.has_leaders:
        raise ValidationError(f"{PARAMETER} needs a table with leaders, and {table.name} is leaderless")
    if existing is not None or any(index.name == wanted["IndexName"] for index in after.local_indexes):
        raise _exists()
    if any(index.state != "active" for index in table.indexes):
        raise ApiError(LIMIT_EXCEEDED, _ONE_AT_A_TIME)
    names = [one["AttributeName"] for one in _defined(table, given)]
    check_global(wanted, names, is_on_demand=after.throughput is None)
    if len(table.indexes) >= GLOBAL_MAX:
        raise ValidationError(TOO_MANY_GLOBAL)
    known = [attribute.name for attribute in key_attributes(table)]
    added = [element["AttributeName"] for element in wanted["KeySchema"]]
    check_all_used([one["AttributeName"] for one in given], [*known, *added])
    projections = [*after.local_indexes, *(definition_of_index(index) for index in table.indexes)]
    included = len(wanted["Projection"].get("NonKeyAttributes") or ())
    check_projected([included, *(len(index.projection.names) for index in projections)])


def _check_update(after: TableDefinition, wanted: Mapping[str, Any]) -> None:
    given = ("ProvisionedThroughput", "OnDemandThroughput", "WarmThroughput")
    if all(wanted.get(name) is None for name in given):
        raise ValidationError(f"{INVALID}At least one of {', '.join(given)} must be specified for an index update")
    is_on_demand = after.throughput is None
    check_throughput(wanted, is_on_demand=is_on_demand, is_new=False)


def _defined(table: Table, given: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the definitions of all attributes of keys, and those that are given.

    Raises:
        ValidationError: one is given another type than it has.
    """
    known = {attribute.name: attribute.kind for attribute in key_attributes(table)}
    for one in given:
        kind = known.setdefault(one["AttributeName"], one["AttributeType"])
        if kind != one["AttributeType"]:
            raise ValidationError(
                f"{INVALID}Attribute {one['AttributeName']} is of type {kind}, and AttributeDefinitions says "
                f"{one['AttributeType']}"
            )
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in known.items()]


def _settings(
    table: Table,
    before: TableDefinition,
    index: Index,
    update: Mapping[str, Any] | None,
    is_on_demand: bool,
    now_ms: int,
) -> IndexSettings:
    kept = settings_of(definition_of(table), index)
    asked = update or {}
    units, throughput = units_of(asked), kept.throughput
    if is_on_demand:
        throughput = None
    elif units is not None:
        if throughput is not None and units == (throughput.read_units, throughput.write_units):
            raise unchanged(throughput, f"index {index.name}", "index")
        throughput = (throughput or ON_DEMAND).changed_to(*units, now_ms=now_ms)
    limits = on_demand_limits_of(asked, kept.on_demand_limits) if is_on_demand else None
    check_warmth(asked, f"index {index.name}", throughput=throughput, before=kept.warm)
    return IndexSettings(index.table, throughput, limits, warm_throughput_of(asked, kept.warm))


def _exists() -> ValidationError:
    return ValidationError("Attempting to create an index which already exists")
