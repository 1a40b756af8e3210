"""What steps make of an item, at its leader."""

from __future__ import annotations

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Decided
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.steps import (
    DELETING,
    Action,
    ItemStep,
    Reason,
    Rejection,
    evaluate,
    payload_of,
    putting,
    rejected,
    rejection_in,
)
from merganser.wire.dynamodb.tables import TableDefinition

DEFINITION = TableDefinition(KeySchema(KeyAttribute("p", "S")), created_ms=0, throughput=None, is_protected=False)
TABLE = Table(TableId(1), "t", "dynamodb", 3, DEFINITION.encoded(), "u", "leader")
OLD = b"\x00\x00\x00\x05" + b'{"p":{"S":"old"}}'
NEW = b"\x00\x00\x00\x05" + b'{"p":{"S":"new"}}'


@pytest.mark.parametrize("current", [None, OLD])
def test_a_put_replaces_whatever_is_there(current: bytes | None) -> None:
    assert evaluate(TABLE, putting(NEW), current) == Decided(Content(NEW))
    assert evaluate(TABLE, payload_of(ItemStep(Action.PUT, NEW)), current) == Decided(Content(NEW))


def test_a_delete_leaves_nothing() -> None:
    assert evaluate(TABLE, DELETING, OLD) == Decided(EMPTY)
    assert evaluate(TABLE, payload_of(ItemStep(Action.DELETE)), OLD) == Decided(EMPTY)


def test_a_delete_of_nothing_writes_nothing() -> None:
    assert evaluate(TABLE, DELETING, None) == Decided(None)
    assert evaluate(TABLE, payload_of(ItemStep(Action.DELETE, returns="ALL_OLD")), None) == Decided(None)


def test_all_old_is_the_item_that_was_there() -> None:
    for step in (ItemStep(Action.PUT, NEW, returns="ALL_OLD"), ItemStep(Action.DELETE, returns="ALL_OLD")):
        assert evaluate(TABLE, payload_of(step), OLD).answer == b'{"p":{"S":"old"}}'
        assert evaluate(TABLE, payload_of(step), None).answer == b""


def test_a_check_writes_nothing() -> None:
    assert evaluate(TABLE, payload_of(ItemStep(Action.CHECK)), OLD) == Decided(None)


def test_a_rejection_travels_with_its_reason() -> None:
    rejection = Rejection(Reason.CONDITION, "The conditional request failed", b"{}")
    decided = rejected(rejection)
    assert decided.content is None
    assert decided.is_rejected
    assert rejection_in(decided.answer) == rejection


@pytest.mark.parametrize("payload", [b"", b"X", b"S", b"S\xc1", b"S\x91\x63"])
def test_a_payload_that_makes_no_sense_is_refused(payload: bytes) -> None:
    with pytest.raises(RequestError, match="this release"):
        evaluate(TABLE, payload, None)
