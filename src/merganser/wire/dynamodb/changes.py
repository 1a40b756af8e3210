"""What a request wants done to an item: its expressions, checked as far as that is possible without the item.

Shared by PutItem, DeleteItem, UpdateItem and whatever else carries their parameters. The order is DynamoDB's: the
update is read before the condition, then names and values that nobody used are found, and last, when the table is
known, attributes of the key that would change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.model.cluster import Table
from merganser.query import expressions
from merganser.query.legacy import Change, Check
from merganser.query.syntax import Assignment, Update, Value
from merganser.wire.dynamodb.attributes import AttributeMap
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import placeholders_of
from merganser.wire.dynamodb.index_items import indexes_of, type_mismatch
from merganser.wire.dynamodb.legacy import is_any
from merganser.wire.dynamodb.steps import Action, ItemStep
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.views import refuse_inside_keys


def read_expressions(request: Mapping[str, Any]) -> Update | None:
    """Read UpdateExpression and ConditionExpression, and return the update if there is one.

    Args:
        request: its names and values are checked (`expressions.check_placeholders`).

    Raises:
        ExpressionError: one of them is wrong whatever the item is, or a name or value is not used.
    """
    update_text, condition_text = request.get("UpdateExpression"), request.get("ConditionExpression")
    if update_text is None and condition_text is None:
        return None
    placeholders = placeholders_of(request)
    update = None if update_text is None else expressions.update(update_text, placeholders)
    if condition_text is not None:
        expressions.condition(condition_text, placeholders)
    placeholders.check_all_used()
    return update


def check_key_changes(table: Table, update: Update) -> None:
    """Refuse an update of attributes of the primary key, of what would be inside of keys, and of wrong index keys.

    Raises:
        ValidationError: there is one.
    """
    changed = {str(action.path.parts[0]): action for action in update.actions}
    for attribute in definition_of(table).schema.attributes:
        if attribute.name in changed:
            raise ValidationError(
                f"One or more parameter values were invalid: Cannot update attribute {attribute.name}. "
                "This attribute is part of the key"
            )
    for definition in indexes_of(table):
        for attribute in definition.attributes:
            action = changed.get(attribute.name)
            if isinstance(action, Assignment) and len(action.path.parts) == 1 and isinstance(action.value, Value):
                kind = next(iter(action.value.content))
                if kind != attribute.kind:
                    raise type_mismatch(definition, attribute, kind)
    refuse_inside_keys(table, [action.path for action in update.actions])


def step_of(
    request: Mapping[str, Any],
    action: Action,
    *,
    item: bytes = b"",
    key: AttributeMap | None = None,
    checks: tuple[Check, ...] = (),
    changes: tuple[Change, ...] = (),
    measures: bool = False,
) -> ItemStep:
    """Return the step that a checked request asks for.

    Args:
        request: its values are in normal form.
        action: what it does.
        item: to be put, in stored form.
        key: of the item to be updated, in normal form.
        checks: Expected.
        changes: AttributeUpdates.
        measures: what it takes is to be told.
    """
    return ItemStep(
        action,
        item,
        returns=request.get("ReturnValues") or "NONE",
        key=key or {},
        update=request.get("UpdateExpression") or "",
        condition=request.get("ConditionExpression") or "",
        names=request.get("ExpressionAttributeNames") or {},
        values=request.get("ExpressionAttributeValues") or {},
        shows_failed=request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD",
        measures=measures,
        checks=checks,
        any_of=is_any(request),
        changes=changes,
    )
