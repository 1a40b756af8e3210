"""What clients ask nodes for: part of `model.messages`, and all that a client may ask (`CLIENT_REQUESTS`).

Tables go by name and keys as the client knows them, so that a client needs to know nothing of how nodes store rows, and
a table that was dropped and made again is found. Levels are as `core.levels.asked_for` reads them; the node
may take ``timeout_ms``, and the client waits somewhat longer for its answer. Answers tell the epoch of the node's
cluster map: a client that knows an older one asks for it (`FetchRing`).

Fields are added at the end, with a default that means what their absence meant (`model.versions`).
"""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from merganser.model.cluster import Conflicts
from merganser.model.contents import Tag, TaggedKey
from merganser.model.crdt import Operation, OperationId, Session, Shown

NOT_FOR_CLIENTS: Final = "not_for_clients"
"""Code of the refusal of what only nodes may ask."""


class FetchRing(msgspec.Struct, frozen=True, array_like=True, tag=70):
    """The part of the cluster map that clients need: nodes, owners, key-value tables. Answered by `messages.MapIs`."""

    known_epoch: int


class ClientGet(msgspec.Struct, frozen=True, array_like=True, tag=71):
    """The values of a key. Answered by `ValuesAre`."""

    table: str
    key: bytes
    level: str
    timeout_ms: int


class ClientPut(msgspec.Struct, frozen=True, array_like=True, tag=72):
    """Put a value in the place of what ``context`` has seen. Answered by `PutIs`."""

    table: str
    key: bytes
    value: bytes | None
    """None: delete."""
    context: bytes
    level: str
    timeout_ms: int
    ttl_s: int | None = None
    """After how long the value reads as absent, by the clock of the node."""
    only_if: str = ""
    """Of `contents.Condition`; empty: whatever there is."""
    content_type: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[Tag, ...] = ()
    client: str = ""
    """Who writes it, by its own account."""


class AskKeys(msgspec.Struct, frozen=True, array_like=True, tag=73):
    """A page of the keys that can be read, in the order of the ring. Answered by `KeysAre`."""

    table: str
    start: bytes | None
    """Where the page before ended; None: at the beginning."""
    limit: int
    level: str
    timeout_ms: int
    prefix: bytes = b""
    """Of the keys; others are left out."""


class MakeTable(msgspec.Struct, frozen=True, array_like=True, tag=74):
    """Make a key-value table; once, however often it is asked. Answered by `TableIs`."""

    name: str
    n: int
    conflicts: Conflicts
    unique_id: str
    """Drawn by the client: a repeated request makes no second table."""
    timeout_ms: int
    replicas: str = ""
    """By data centre, as `core.policies.parsed` reads it; empty: ``n``."""
    data_centers: str = ""
    zones: str = ""


class DropTable(msgspec.Struct, frozen=True, array_like=True, tag=75):
    """Drop a key-value table and all it holds. Answered by `TableIs`, as it was."""

    name: str
    timeout_ms: int


class FindTable(msgspec.Struct, frozen=True, array_like=True, tag=76):
    """Look for a key-value table, at the voters of the map if need be. Answered by `TableIs`."""

    name: str
    timeout_ms: int


class ClientGetCrdt(msgspec.Struct, frozen=True, array_like=True, tag=77):
    """What a key of a table whose values merge themselves reads as. Answered by `CrdtIs`."""

    table: str
    key: bytes
    level: str
    timeout_ms: int


class ClientUpdate(msgspec.Struct, frozen=True, array_like=True, tag=78):
    """Make operations of a key, all or none. Answered by `UpdateIs`."""

    table: str
    key: bytes
    operations: tuple[Operation, ...]
    update: OperationId | None
    """Under which it is made once, however often it is asked for."""
    context: bytes | None
    """Nothing but what it has seen is removed; an empty one has seen nothing. None: what the node reads is removed."""
    level: str
    timeout_ms: int


class AskSession(msgspec.Struct, frozen=True, array_like=True, tag=79):
    """Open a session to number updates of any keys under. Answered by `SessionIs`."""

    table: str
    """One whose values merge themselves."""
    life_s: int
    timeout_ms: int


class AskTagged(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """A page of the keys whose values have a tag, in its order. Answered by `TaggedKeysAre`."""

    table: str
    tag: str
    low: int | bytes | None
    """None: no bound; both bounds are included."""
    high: int | bytes | None
    is_integer: bool
    """Which of the two indexes of that name is meant."""
    resume: bytes | None
    """Of the page before; None: from the beginning."""
    limit: int
    level: str
    timeout_ms: int


class ChangePolicy(msgspec.Struct, frozen=True, array_like=True, tag=81):
    """Have a key-value table be elsewhere; begun once, however often it is asked. Answered by `TableIs`, as it will be.

    Parts are as `core.policies.parsed` reads them; None: as now.
    """

    name: str
    timeout_ms: int
    replicas: str | None = None
    data_centers: str | None = None
    zones: str | None = None
    is_forced: bool = False
    """Whatever speaks against it."""


class ValueIs(msgspec.Struct, frozen=True, array_like=True):
    """One value of a key."""

    value: bytes
    written_at_us: int
    """Microseconds since 1970, as the node had it that took the put."""
    by_node: int
    """Number of that node."""
    expires_at_s: int | None = None
    """Seconds since 1970."""
    content_type: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[Tag, ...] = ()
    by_client: str = ""
    """Who wrote it, by its own account; empty: it did not say."""


class ValuesAre(msgspec.Struct, frozen=True, array_like=True, tag=170):
    """What a key reads as, the oldest first."""

    values: tuple[ValueIs, ...]
    context: bytes
    """To be sent along with the put that replaces all of them."""
    map_epoch: int


class PutIs(msgspec.Struct, frozen=True, array_like=True, tag=171):
    """The put is acknowledged."""

    context: bytes
    """To put with next."""
    map_epoch: int


class KeysAre(msgspec.Struct, frozen=True, array_like=True, tag=172):
    """A page of keys, which may be empty and not the last."""

    keys: tuple[bytes, ...]
    resume: bytes | None
    """Where the next page starts; None: there is none."""
    map_epoch: int


class TableIs(msgspec.Struct, frozen=True, array_like=True, tag=173):
    """A key-value table."""

    name: str
    n: int
    conflicts: Conflicts
    map_epoch: int
    policy: str = ""
    """Where its replicas are, in words; empty: wherever they may be."""


class CrdtIs(msgspec.Struct, frozen=True, array_like=True, tag=174):
    """What a key reads as."""

    values: tuple[Shown, ...]
    """One, or none, or one of each type that clients made of the key at once."""
    context: bytes
    """What this read has seen."""
    map_epoch: int


class UpdateIs(msgspec.Struct, frozen=True, array_like=True, tag=175):
    """The update is made."""

    has_changed: bool
    """False: there was nothing to change."""
    map_epoch: int


class SessionIs(msgspec.Struct, frozen=True, array_like=True, tag=176):
    """A session, which has been opened for who asked."""

    session: Session
    map_epoch: int


class TaggedKeysAre(msgspec.Struct, frozen=True, array_like=True, tag=177):
    """A page of keys, which may be empty and not the last."""

    found: tuple[TaggedKey, ...]
    resume: bytes | None
    """What to go on with; None: there is no more."""
    map_epoch: int


ClientRequest = (
    FetchRing
    | ClientGet
    | ClientPut
    | AskKeys
    | MakeTable
    | DropTable
    | FindTable
    | ClientGetCrdt
    | ClientUpdate
    | AskSession
    | AskTagged
    | ChangePolicy
)
ClientReply = ValuesAre | PutIs | KeysAre | TableIs | CrdtIs | UpdateIs | SessionIs | TaggedKeysAre
CLIENT_REQUESTS: Final[frozenset[type]] = frozenset(get_args(ClientRequest))
