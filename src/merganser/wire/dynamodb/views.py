"""What a reader wants to see: FilterExpression chooses items, ProjectionExpression parts of them.

Whoever wants whole items gets their stored bytes; only a filter or a projection decodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from merganser.model.cluster import Table
from merganser.query import expressions
from merganser.query.binding import Placeholders
from merganser.query.documents import projected
from merganser.query.evaluation import holds
from merganser.query.legacy import condition_of, paths_of
from merganser.query.mentions import paths_in
from merganser.query.syntax import Condition, Path
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import placeholders_of
from merganser.wire.dynamodb.items import attributes_of, json_of
from merganser.wire.dynamodb.key_schemas import KeyAttribute
from merganser.wire.dynamodb.legacy import check_operator, checks_in, is_any, names_in
from merganser.wire.dynamodb.tables import definition_of, key_attributes


class View(msgspec.Struct, frozen=True):
    """How items look to a reader."""

    filter: Condition | None = None
    """None: every item is to be seen."""
    paths: tuple[Path, ...] = ()
    """Empty: all of it."""
    filter_name: str = "Filter Expression"
    """What messages call the filter."""

    def of(self, item: bytes) -> bytes | None:
        """Return the JSON of an item in stored form as the reader sees it, None if he does not.

        Raises:
            CorruptionError: the item has to be looked into, and is not JSON.
        """
        if self.filter is None and not self.paths:
            return json_of(item)
        attributes = attributes_of(item)
        if self.filter is not None and not holds(self.filter, attributes):
            return None
        return orjson.dumps(projected(attributes, self.paths)) if self.paths else json_of(item)

    def check_keys(self, table: Table, *, unfiltered: Iterable[KeyAttribute] = ()) -> None:
        """Check what is said of key attributes.

        Args:
            table: that is read.
            unfiltered: key attributes that the filter may not look at; in a Scan it may look at all.

        Raises:
            ValidationError: they are taken for lists or maps, or looked at where they may not be.
        """
        filtered = () if self.filter is None else tuple(paths_in(self.filter))
        refuse_inside_keys(table, self.paths)
        for attribute in unfiltered:
            if any(path.parts[0] == attribute.name for path in filtered):
                raise ValidationError(
                    f"{self.filter_name} can only contain non-primary key attributes: "
                    f"Primary key attribute: {attribute.name}"
                )
        refuse_inside_keys(table, filtered)


WHOLE: Final = View()
"""Every item, and all of it."""


def view_of(request: Mapping[str, Any], placeholders: Placeholders) -> View:
    """Return what ProjectionExpression and FilterExpression ask for, read in that order.

    Args:
        request: or the part of it that holds the expressions.
        placeholders: its own; who calls checks that all are used.

    Raises:
        ExpressionError: one of the expressions is wrong.
    """
    projection, chosen = request.get("ProjectionExpression"), request.get("FilterExpression")
    if projection is None and chosen is None:
        return WHOLE
    paths = () if projection is None else expressions.projection(projection, placeholders)
    if chosen is None:
        return View(None, paths)
    return View(expressions.condition(chosen, placeholders, parameter="FilterExpression"), paths)


def legacy_view_of(request: Mapping[str, Any], filter_name: str) -> View:
    """Return what AttributesToGet and QueryFilter or ScanFilter ask for, with ConditionalOperator.

    Args:
        request: its constraints are checked.
        filter_name: of the two.

    Raises:
        ValidationError: one of them makes no sense.
    """
    checks = checks_in(request, filter_name)
    check_operator(request, checks)
    paths = paths_of(names_in(request))
    if not checks:
        return View(None, paths) if paths else WHOLE
    return View(condition_of(checks, any_of=is_any(request)), paths, filter_name)


def projection_of(request: Mapping[str, Any]) -> View:
    """Return what a request asks for that has no filter: ProjectionExpression or AttributesToGet.

    Raises:
        ExpressionError: it is wrong, or a name is not used.
        ValidationError: a name is there twice.
    """
    if request.get("ProjectionExpression") is None:
        if request.get("AttributesToGet") is not None:
            return View(None, paths_of(names_in(request)))
        return WHOLE
    placeholders = placeholders_of(request, has_values=False)
    view = view_of(request, placeholders)
    placeholders.check_all_used()
    return view


def refuse_inside_keys(table: Table, paths: Iterable[Path]) -> None:
    """Refuse paths that lead into an attribute of the primary key, or of the key of an index.

    Raises:
        ValidationError: there is one.
    """
    inside = [path.parts[0] for path in paths if len(path.parts) > 1]
    if not inside:
        return
    primary = definition_of(table).schema.attributes
    for attribute in key_attributes(table):
        if attribute.name in inside:
            raise ValidationError(
                "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
                f"{'Key' if attribute in primary else 'IndexKey'}: {attribute.name}"
            )
