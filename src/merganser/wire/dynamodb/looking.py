"""What a Query or Scan of an index shows of items, and whether the index is enough for it.

::

                    nothing said, or            ALL_ATTRIBUTES    names that the index shows    other names
                    ALL_PROJECTED_ATTRIBUTES
    local index     what it shows               whole, fetched    these                         these, fetched
    global index    what it shows               only if it is     these                         refused
                                                complete

What is fetched comes from the table: it costs more, and is what a local index points to anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from merganser.query.legacy import paths_of
from merganser.query.mentions import paths_in
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.index_items import projected
from merganser.wire.dynamodb.items import attributes_of
from merganser.wire.dynamodb.sources import Source
from merganser.wire.dynamodb.views import View


class Looking(NamedTuple):
    """How the items of a `Source` come to be what the reader sees."""

    view: View
    fetches: bool
    """The view is of whole items, though the index shows less."""
    source: Source

    @property
    def decodes(self) -> bool:
        """Tell whether each item is looked into to know what the index shows of it."""
        index = self.source.index
        return index is not None and not self.source.is_global and not index.shows_all

    @property
    def is_as_stored(self) -> bool:
        """Tell whether the reader sees every item, and all of it."""
        return not (self.fetches or self.decodes or self.view.paths or self.view.filter is not None)

    def entry_of(self, item: bytes) -> bytes:
        """Return what the source shows of an item, in stored form."""
        if not self.decodes or self.source.index is None:
            return item
        return projected(self.source.index, self.source.schema, attributes_of(item))


def looking_at(source: Source, request: Mapping[str, Any], view: View) -> Looking:
    """Return how the items of ``source`` are looked at.

    Raises:
        ValidationError: a global index does not show what is asked for.
    """
    index = source.index
    if index is None or index.shows_all:
        return Looking(view, False, source)
    shown = index.shown(source.schema)
    missing = list(dict.fromkeys(str(path.parts[0]) for path in view.paths if path.parts[0] not in shown))
    wants_all = request.get("Select") == "ALL_ATTRIBUTES"
    if source.is_global:
        if wants_all:
            raise ValidationError(
                "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global "
                f"secondary index {index.name} because its projection type is not ALL"
            )
        if missing:
            raise ValidationError(
                f"One or more parameter values were invalid: Global secondary index {index.name} does not project "
                f"[{', '.join(missing)}]"
            )
        return Looking(view, False, source)
    filtered = () if view.filter is None else paths_in(view.filter)
    if wants_all or missing or any(path.parts[0] not in shown for path in filtered):
        if not wants_all and not view.paths:
            view = msgspec.structs.replace(view, paths=paths_of(sorted(shown)))
        return Looking(view, True, source)
    return Looking(view, False, source)
