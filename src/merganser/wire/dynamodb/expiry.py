"""Time to live: UpdateTimeToLive, DescribeTimeToLive, and when an item expires.

The attribute is a number of seconds since 1970; an item without it, or with anything else in it, stays. Items are
removed by `service.expirer`, within a minute; until then they are read like any others, as with DynamoDB.
"""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import orjson

from merganser.core.expiry import TIME_S_MAX
from merganser.model.cluster import Table
from merganser.service.expiry_index import Expiring
from merganser.wire.dynamodb.arns import name_of
from merganser.wire.dynamodb.constraints import Violations, require_table_name
from merganser.wire.dynamodb.errors import NotFoundError, ValidationError
from merganser.wire.dynamodb.items import json_of
from merganser.wire.dynamodb.session import Session, require_leaders
from merganser.wire.dynamodb.table_settings import TimeToLive, TimeToLiveChange
from merganser.wire.dynamodb.tables import TableDefinition, definition_of

_NAME_LENGTH_MAX = 255
_TIME_DIGITS_MAX = len(str(TIME_S_MAX))


class Expiries:
    """The operations on when items of a table expire."""

    def __init__(self, *, rng: random.Random, delay_ms: int = 0) -> None:
        """Take the dice, and how long a change is described as under way."""
        self._rng = rng
        self._delay_ms = delay_ms

    async def update_time_to_live(self, session: Session, request: dict[str, Any]) -> bytes:
        """Let items of a table expire from now on, or not any more."""
        _check_update(request)
        name, asked = name_of(request["TableName"]), request["TimeToLiveSpecification"]
        table = await session.table_in_any_state(name, _not_found(name).message)
        require_leaders(table, "UpdateTimeToLive")
        attribute = asked["AttributeName"]
        begun = TimeToLive(attribute, str(uuid.UUID(int=self._rng.getrandbits(128), version=4)))

        def change(table: Table) -> TableDefinition:
            before, now_ms = definition_of(table), session.now_ms
            after = _switched(before, attribute, begun if asked["Enabled"] else None, now_ms)
            if not self._delay_ms or after == before:
                return after
            status: Literal["ENABLING", "DISABLING"] = "ENABLING" if asked["Enabled"] else "DISABLING"
            under_way = TimeToLiveChange(status, attribute, now_ms + self._delay_ms)
            return msgspec.structs.replace(after, time_to_live_change=under_way)

        await session.redefine(name, change, _not_found(name))
        return orjson.dumps({"TimeToLiveSpecification": {"Enabled": asked["Enabled"], "AttributeName": attribute}})

    async def describe_time_to_live(self, session: Session, request: dict[str, Any]) -> bytes:
        """Tell by which attribute items of a table expire."""
        _check_name(request).settle()
        name = name_of(request["TableName"])
        definition = definition_of(await session.table_in_any_state(name, _not_found(name).message))
        time_to_live, change = definition.time_to_live, definition.time_to_live_change
        description = {"TimeToLiveStatus": "DISABLED"}
        if change is not None and change.until_ms > session.now_ms:
            description = {"TimeToLiveStatus": change.status, "AttributeName": change.attribute}
        elif time_to_live is not None:
            description = {"TimeToLiveStatus": "ENABLED", "AttributeName": time_to_live.attribute}
        return orjson.dumps({"TimeToLiveDescription": description})


@functools.lru_cache(maxsize=4096)
def expiring(table: Table) -> Expiring | None:
    """Return how items of a table expire; the `service.expiry_index.Expiry` of this wire."""
    time_to_live = definition_of(table).time_to_live
    if time_to_live is None:
        return None
    return Expiring(time_to_live.unique_id.encode(), _expires_at(time_to_live.attribute))


def _expires_at(attribute: str) -> Callable[[bytes], int | None]:
    mention = orjson.dumps(attribute) + b":"

    def expires_at(item: bytes) -> int | None:
        if mention not in item:  # nearly as good as reading it, in a hundredth of the time
            return None
        try:
            return _seconds_in(orjson.loads(json_of(item))[attribute]["N"])
        except (ValueError, KeyError, TypeError, AttributeError):  # of another type, mentioned elsewhere, or damaged
            return None

    return expires_at


def _seconds_in(number: str) -> int | None:
    """Return the whole seconds in a number in normal form, None if it is no time."""
    seconds = number.partition(".")[0]
    if not seconds.isdecimal() or len(seconds) > _TIME_DIGITS_MAX:
        return None
    return at_s if 0 < (at_s := int(seconds)) <= TIME_S_MAX else None


def _switched(definition: TableDefinition, attribute: str, begun: TimeToLive | None, now_ms: int) -> TableDefinition:
    """Return the definition with another time to live; None: with none.

    Raises:
        ValidationError: it is as asked, or by another attribute, or the last change is still under way.
    """
    before = definition.time_to_live
    if before is None and begun is None:
        raise ValidationError("TimeToLive is already disabled")
    if before is not None and before.attribute != attribute:
        raise ValidationError(
            f"TimeToLive is active on a different AttributeName: current AttributeName is {before.attribute}"
        )
    if before is not None and begun is not None:
        if before == begun:  # this very request, whose first attempt came into force
            return definition
        raise ValidationError("TimeToLive is already enabled")
    change = definition.time_to_live_change
    if change is not None and change.until_ms > now_ms:
        raise ValidationError("Time to live has been modified multiple times within a fixed interval")
    return msgspec.structs.replace(definition, time_to_live=begun)


def _check_update(request: Mapping[str, Any]) -> None:
    violations = _check_name(request)
    if violations.required(request, "TimeToLiveSpecification"):
        asked, prefix = request["TimeToLiveSpecification"], "timeToLiveSpecification."
        violations.required(asked, "Enabled", prefix)
        if violations.required(asked, "AttributeName", prefix):
            name = asked["AttributeName"]
            violations.length(name, len(name), f"{prefix}attributeName", least=1, most=_NAME_LENGTH_MAX)
    violations.settle()


def _check_name(request: Mapping[str, Any]) -> Violations:
    require_table_name(request)
    violations = Violations()
    violations.table_pattern(request)
    return violations


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"Requested resource not found: Table: {name} not found")
