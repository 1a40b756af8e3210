"""TagResource, UntagResource, ListTagsOfResource."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import orjson

from merganser.model.cluster import Table
from merganser.model.errors import RequestError, TableChangedError, TableNotFoundError
from merganser.wire.dynamodb.arns import is_resource, table_in
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ACCESS_DENIED, RESOURCE_IN_USE, ApiError, NotFoundError, ValidationError
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.table_settings import INVALID
from merganser.wire.dynamodb.tables import TableDefinition, definition_of
from merganser.wire.dynamodb.tags import (
    KEY_LENGTH_MAX,
    Tags,
    check_tags,
    described_tags,
    find_tag_violations,
    policy_of,
    tagged,
    tags_of,
    telling,
    untagged,
)


async def tag_resource(session: Session, request: dict[str, Any]) -> bytes:
    """Give a table tags, or other values of tags that it has."""
    arn = _resource(request, "TagResource")
    violations = Violations()
    if violations.required(request, "Tags"):
        find_tag_violations(violations, request["Tags"])
    violations.settle()
    name = _table_in(arn)
    if not request["Tags"]:
        raise ValidationError("Atleast one Tag needs to be provided as Input.")  # sic
    check_tags(request["Tags"])
    added = tags_of(request)

    def change(table: Table) -> TableDefinition:
        return msgspec.structs.replace(definition_of(table), tags=tagged(_told(session, table), added))

    await session.redefine(name, change, _not_found(arn), partial(_made, session))
    return b""


async def untag_resource(session: Session, request: dict[str, Any]) -> bytes:
    """Take tags from a table."""
    arn = _resource(request, "UntagResource")
    violations = Violations()
    if violations.required(request, "TagKeys"):
        for number, key in enumerate(request["TagKeys"], start=1):
            violations.length(key, len(key or ""), f"tagKeys.{number}.member", least=1, most=KEY_LENGTH_MAX)
    violations.settle()
    name = _table_in(arn)
    if not request["TagKeys"]:
        raise ValidationError("Atleast one Tag Key needs to be provided as Input.")  # sic

    def change(table: Table) -> TableDefinition:
        return msgspec.structs.replace(definition_of(table), tags=untagged(_told(session, table), request["TagKeys"]))

    await session.redefine(name, change, NotFoundError(), partial(_made, session))
    return b""


async def list_tags_of_resource(session: Session, request: dict[str, Any]) -> bytes:
    """List the tags of a table: all of them, as there are never more than a page."""
    arn = _resource(request, "ListTagsOfResource")
    name = _table_in(arn)
    if request.get("NextToken") is not None:  # none was ever given out
        raise ValidationError("The provided NextToken is invalid")
    table = await session.table_in_any_state(name, _not_found(arn).message)
    return orjson.dumps({"Tags": described_tags(_told(session, table))})


def _told(session: Session, table: Table) -> Tags:
    """Return the tags of a table, which tell where it will be."""
    return telling(definition_of(table).tags, session.catalog.policy_to_be(table))


async def _made(session: Session, table: Table, definition: bytes) -> Table:
    """Give a table another definition, and begin to move its replicas if it is to be elsewhere by that.

    Raises:
        ApiError: another operation is under way, or there are no such places; as `Session.remake`.
    """
    policy = policy_of(definition_of(msgspec.structs.replace(table, definition=definition)).tags)
    if policy == session.catalog.policy_to_be(table):
        return await session.remake(table, definition)
    busy = session.catalog.current.operation
    try:
        return await session.catalog.change_policy(
            table, policy, definition=definition, now_us=1000 * session.now_ms, deadline=session.deadline
        )
    except (TableNotFoundError, TableChangedError):
        raise
    except RequestError as error:
        if busy is not None:
            raise ApiError(RESOURCE_IN_USE, str(error)) from None
        raise ValidationError(f"{INVALID}{error}") from None


def _resource(request: Mapping[str, Any], operation: str) -> str:
    """Return the ARN in a request.

    Raises:
        ApiError: there is none.
    """
    arn = request.get("ResourceArn")
    if arn is None:
        raise ValidationError("Invalid TableArn")
    if not is_resource(arn):
        raise ApiError(
            ACCESS_DENIED,
            f"User: arn:aws:iam::000000000000:root is not authorized to perform: dynamodb:{operation} on resource: "
            f"{arn or '*'}",
        )
    return str(arn)


def _table_in(arn: str) -> str:
    name = table_in(arn)
    if name is None:
        raise ValidationError(f"Invalid TableArn: Invalid ResourceArn provided as input {arn}")
    return name


def _not_found(arn: str) -> NotFoundError:
    return NotFoundError(f"Requested resource not found: ResourcArn: {arn} not found")  # sic
