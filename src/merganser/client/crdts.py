"""Values that merge themselves, as the native client hands them out: typed handles, made without asking anybody.

::

    home = client.crdt("pages", "home")
    await home.counter("visits").increment()
    await home.set("readers").add("ann")
    await home.get()                              {b"readers": frozenset({b"ann"}), b"visits": 1}

Of two updates that did not know of one another the type says what becomes: docs/internals/crdts.md. An update that
counts at QUORUM, or ALL, is sent again until it is known to be made, and is made once (`client.counting`). Any other
is sent again only if nothing was done, as a put is: a second add might bring back what somebody has removed meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, Unpack, cast

import msgspec

from merganser.client.arguments import check_each, wrong_type
from merganser.client.calls import Calls, Data, level_or
from merganser.client.counting import Counting
from merganser.client.errors import SiblingsError
from merganser.client.values import as_bytes
from merganser.core.crdt import types, updates
from merganser.model import crdt
from merganser.model.client_messages import ClientGetCrdt, ClientUpdate, CrdtIs, UpdateIs
from merganser.model.consistency import Consistency
from merganser.model.crdt import Field, Operation, OperationId, Shown

Plain = int | bool | bytes | frozenset[bytes] | dict[bytes, "Plain"]
"""Of counters, `distinct`, `max` and `min` a number; of flags a truth; of a register its value; of a set and a
multi-register all there are; of a map its fields. A field that has values of several types, because clients made them
at once, is there once for each, as ``name (type)``."""
T = TypeVar("T")
_EXACT = (Consistency.QUORUM.value, Consistency.ALL.value)


class Options(TypedDict, total=False):
    """Of each request."""

    consistency: str | None
    """None: that of the key."""
    timeout_s: float | None
    """What it may take; None: that of the client."""


class Removing(Options, total=False):
    """Of a request that removes, or replaces, something."""

    context: bytes | None
    """Of a `fetch`: nothing but what that has seen is removed. None: what the node reads is."""


class Fetched(msgspec.Struct, frozen=True):
    """What a key reads as."""

    values: tuple[Shown, ...]
    """One, or none, or one of each type that clients made of the key at once."""
    context: bytes
    """To be handed to what removes, or replaces, nothing else than this has seen."""

    @property
    def plain(self) -> Plain | None:
        """The value; None if there is none.

        Raises:
            SiblingsError: there are values of several types.
        """
        if len(self.values) > 1:
            several = ", ".join(shown.type for shown in self.values)
            raise SiblingsError(f"the key has values of several types: ask for one of them ({several}), reset the rest")
        return plain(self.values[0]) if self.values else None


class At(msgspec.Struct, frozen=True):
    """A key, and how it is asked for."""

    calls: Calls
    counting: Counting
    table: str
    key: bytes
    level: str

    async def fetch(self, *, consistency: str | None = None, timeout_s: float | None = None) -> Fetched:
        """Read the key; raises as `Handle.get`."""
        level = level_or(self.level, consistency)
        told = await self.calls.read(
            self.table,
            self.key,
            lambda within_ms: ClientGetCrdt(self.table, self.key, level, within_ms),
            deadline=self.calls.deadline(timeout_s),
            kind=CrdtIs,
        )
        return Fetched(told.values, told.context)

    async def update(
        self,
        operations: Sequence[Operation],
        *,
        context: bytes | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bool:
        """Make operations, all or none; raises as `Crdt.update`."""
        deadline, level = self.calls.deadline(timeout_s), level_or(self.level, consistency)
        types.check(operations)

        async def send(update: OperationId | None) -> bool:
            told = await self.calls.write(
                self.table,
                self.key,
                lambda within_ms: ClientUpdate(
                    self.table, self.key, tuple(operations), update, context, level, within_ms
                ),
                deadline=deadline,
                kind=UpdateIs,
                is_repeatable=update is not None,
            )
            return told.has_changed

        if updates.counts(operations) and level.strip().upper() in _EXACT:
            return await self.counting.once(self.table, self.key, send, deadline=deadline)
        return await send(None)


class Handle(Generic[T]):
    """One value: that of a key, or of a field of a map."""

    type: ClassVar[str]
    """As docs/internals/crdts.md names it."""

    def __init__(self, at: At, path: tuple[bytes, ...]) -> None:
        """Be what the fields ``path`` lead to; made by `Crdt` and `Map`."""
        self._at = at
        self._path = path

    async def get(self, **options: Unpack[Options]) -> T:
        """Return the value.

        Raises:
            TableNotFoundError: there is no such table.
            UnavailableError: too few replicas could be asked in time.
            RequestError: there can be no such key, or no such consistency; or the table is of another kind.
        """
        return (await self.fetch(**options))[0]

    async def fetch(self, **options: Unpack[Options]) -> tuple[T, bytes]:
        """Return the value, and the context of what was read, for what removes nothing else; raises as `get`."""
        fetched = await self._at.fetch(**options)
        shown = _found(fetched.values, self._path, self.type)
        return cast("T", self.absent() if shown is None else plain(shown)), fetched.context

    async def reset(self, **options: Unpack[Removing]) -> bool:
        """Take away what there is; returns whether there was anything. Raises as `Crdt.update`."""
        return await self._do(types.RESET, **options)

    def absent(self) -> T | None:
        """Return what reads where there is nothing."""
        return None

    def _do(self, action: str, *given: int | Data | None, **options: Unpack[Removing]) -> Awaitable[bool]:
        kind = types.ACTIONS[self.type].get(action)
        values = [_value(one, action, kind) for one in given] or [None]
        return self._at.update([Operation(self.type, action, value, self._path) for value in values], **options)


class GrowCounter(Handle[int]):
    """A counter that counts up."""

    type = crdt.GROW_COUNTER

    async def increment(self, by: int = 1, **options: Unpack[Options]) -> bool:
        """Count ``by`` more, once, however often it has to be sent; returns True. Raises as `Crdt.update`."""
        return await self._do("increment", by, **options)

    def absent(self) -> int:
        """Return 0."""
        return 0


class Counter(GrowCounter):
    """A counter."""

    type = crdt.COUNTER

    async def decrement(self, by: int = 1, **options: Unpack[Options]) -> bool:
        """Count ``by`` less, once, as `increment`."""
        return await self._do("decrement", by, **options)


class Set(Handle[frozenset[bytes]]):
    """A set; who adds wins over who removes without having seen that."""

    type = crdt.SET

    async def add(self, *elements: Data, **options: Unpack[Options]) -> bool:
        """Add elements, all or none. Raises as `Crdt.update`."""
        return await self._do("add", *elements, **options)

    async def remove(self, *elements: Data, **options: Unpack[Removing]) -> bool:
        """Remove elements, as far as they were seen; returns whether there were any. Raises as `Crdt.update`."""
        return await self._do("remove", *elements, **options)

    def absent(self) -> frozenset[bytes]:
        """Return the empty set."""
        return frozenset()


class Register(Handle[bytes | None]):
    """One value, the one that was assigned last; None before."""

    type = crdt.REGISTER

    async def assign(self, value: Data, **options: Unpack[Options]) -> bool:
        """Assign a value. Raises as `Crdt.update`."""
        return await self._do("assign", value, **options)


class MultiRegister(Handle[frozenset[bytes]]):
    """What was assigned last, all of it where clients did not know of one another."""

    type = crdt.MULTI_REGISTER

    async def assign(self, value: Data, **options: Unpack[Removing]) -> bool:
        """Assign a value in the place of what was seen. Raises as `Crdt.update`."""
        return await self._do("assign", value, **options)

    def absent(self) -> frozenset[bytes]:
        """Return the empty set."""
        return frozenset()


class Flag(Handle[bool]):
    """A truth, False before it is set; who enables wins."""

    type = crdt.FLAG

    async def enable(self, **options: Unpack[Options]) -> bool:
        """Set it. Raises as `Crdt.update`."""
        return await self._do("enable", **options)

    async def disable(self, **options: Unpack[Removing]) -> bool:
        """Take it back, as far as it was seen. Raises as `Crdt.update`."""
        return await self._do("disable", **options)

    def absent(self) -> bool:
        """Return False."""
        return False


class DisableFlag(Flag):
    """A truth, False before it is set; who disables wins."""

    type = crdt.DISABLE_FLAG


class Distinct(Handle[int]):
    """About how many different elements were added."""

    type = crdt.DISTINCT

    async def add(self, *elements: Data, **options: Unpack[Options]) -> bool:
        """Add elements. Raises as `Crdt.update`."""
        return await self._do("add", *elements, **options)

    def absent(self) -> int:
        """Return 0."""
        return 0


class Maximum(Handle[int | None]):
    """The greatest number that it was raised to; None before."""

    type = crdt.MAXIMUM

    async def raise_to(self, number: int, **options: Unpack[Options]) -> bool:
        """Be ``number``, unless it is more; returns whether that changed it. Raises as `Crdt.update`."""
        return await self._do("raise", number, **options)


class Minimum(Handle[int | None]):
    """The least number that it was lowered to; None before."""

    type = crdt.MINIMUM

    async def lower_to(self, number: int, **options: Unpack[Options]) -> bool:
        """Be ``number``, unless it is less; returns whether that changed it. Raises as `Crdt.update`."""
        return await self._do("lower", number, **options)


class Fields:
    """Hands out what can be at a place: of a key, the value itself where no field is named; of a map, its fields."""

    _at: At
    _path: tuple[bytes, ...]

    def counter(self, *fields: Data) -> Counter:
        """Return a counter."""
        return Counter(self._at, self._to(fields))

    def grow_counter(self, *fields: Data) -> GrowCounter:
        """Return a counter that counts up."""
        return GrowCounter(self._at, self._to(fields))

    def set(self, *fields: Data) -> Set:
        """Return a set."""
        return Set(self._at, self._to(fields))

    def map(self, *fields: Data) -> Map:
        """Return a map."""
        return Map(self._at, self._to(fields))

    def register(self, *fields: Data) -> Register:
        """Return a register."""
        return Register(self._at, self._to(fields))

    def multi_register(self, *fields: Data) -> MultiRegister:
        """Return a register that keeps all that was assigned at once."""
        return MultiRegister(self._at, self._to(fields))

    def flag(self, *fields: Data) -> Flag:
        """Return a flag."""
        return Flag(self._at, self._to(fields))

    def disable_flag(self, *fields: Data) -> DisableFlag:
        """Return a flag that is off if one disables it."""
        return DisableFlag(self._at, self._to(fields))

    def distinct(self, *fields: Data) -> Distinct:
        """Return a sketch of how many are distinct."""
        return Distinct(self._at, self._to(fields))

    def maximum(self, *fields: Data) -> Maximum:
        """Return a maximum."""
        return Maximum(self._at, self._to(fields))

    def minimum(self, *fields: Data) -> Minimum:
        """Return a minimum."""
        return Minimum(self._at, self._to(fields))

    def _to(self, fields: Sequence[Data]) -> tuple[bytes, ...]:
        return (*self._path, *(as_bytes(name, "field") for name in fields))


class Map(Fields, Handle[dict[bytes, Plain]]):
    """A map; its fields are values of their own."""

    type = crdt.MAP

    async def remove(self, *names: Data, **options: Unpack[Removing]) -> bool:
        """Remove fields, of whatever type, as far as they were seen. Raises as `Crdt.update`."""
        operations = [Operation(crdt.ANY, types.RESET, path=self._to((name,))) for name in names]
        return await self._at.update(operations, **options)

    def absent(self) -> dict[bytes, Plain]:
        """Return an empty dictionary."""
        return {}


class Crdt(Fields):
    """A key of a table whose values merge themselves; made by `Client.crdt`."""

    def __init__(self, at: At) -> None:
        """Be the key that is ``at``."""
        self._at = at
        self._path = ()

    async def get(self, **options: Unpack[Options]) -> Plain | None:
        """Return the value of the key, whatever it is; None if there is none.

        Raises:
            SiblingsError: there are values of several types: see `fetch`.
            and as `Handle.get`.
        """
        return (await self.fetch(**options)).plain

    async def fetch(self, **options: Unpack[Options]) -> Fetched:
        """Return all that there is, with types and the context; raises as `Handle.get`."""
        return await self._at.fetch(**options)

    async def update(self, *operations: Operation, **options: Unpack[Removing]) -> bool:
        """Make operations, all or none; returns whether they changed anything, or had been made already.

        Raises:
            RequestError: they cannot be made of what is there, or at all; nothing was written.
            UnavailableError: too few replicas could be reached; nothing was written.
            UnknownOutcomeError: they may have been made, now or later. Those that count were sent until the end.
        """
        check_each("an operation", operations, Operation)
        return await self._at.update(operations, **options)

    async def reset(self, **options: Unpack[Removing]) -> bool:
        """Take away all that there is; returns whether there was anything. Raises as `update`."""
        return await self._at.update([Operation(crdt.ANY, types.RESET)], **options)


def plain(shown: Shown) -> Plain:
    """Return a value as programs have it."""
    value = shown.value
    if shown.type == crdt.MAP:
        fields = [field for field in cast("tuple[Any, ...]", value) if isinstance(field, Field)]
        names = [field.name for field in fields]
        return {
            field.name if names.count(field.name) == 1 else b"%b (%b)" % (field.name, field.of.type.encode()): plain(
                field.of
            )
            for field in fields
        }
    return frozenset(one for one in value if isinstance(one, bytes)) if isinstance(value, tuple) else value


def _found(values: Sequence[Shown], path: Sequence[bytes], kind: str) -> Shown | None:
    """Return the value of a type that the fields of a path lead to, None if there is none."""
    for name in path:
        fields = [one for shown in values if shown.type == crdt.MAP for one in cast("tuple[Any, ...]", shown.value)]
        values = [field.of for field in fields if isinstance(field, Field) and field.name == name]
    return next((shown for shown in values if shown.type == kind), None)


def _value(given: int | Data | None, action: str, kind: type | None) -> int | bytes | None:
    """Return ``given`` as an operation has it whose values are of ``kind``; raises a WrongTypeError if it cannot be."""
    if kind is int and type(given) is not int:
        raise wrong_type(f"what {action} is given", "a whole number", given)
    return as_bytes(given, "value") if kind is bytes else cast("int | None", given)
