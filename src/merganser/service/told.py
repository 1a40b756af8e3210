"""What a leader remembers of changes that came before; apart, as mypyc takes no such classes (docs/adr/0014)."""

from __future__ import annotations

import msgspec

from merganser.model.leader_messages import Changed


class Told(msgspec.Struct, frozen=True):
    """What was answered to a change that wrote nothing, and never will."""

    changed: Changed


class Untold(msgspec.Struct, frozen=True):
    """A write that is done, and whose answer was too large to be kept."""
