"""The native client without asyncio: `SyncClient` runs a `Client` on an event loop in a thread of its own.

Any thread may use it, several at once. Merge and change functions are called on that thread. What the methods take,
return and raise is what those of the asynchronous classes do (`client.blocking`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, cast

from merganser.client.blocking import Blocking, Runner, handing_out, one_by_one, waiting, waiting_for_one
from merganser.client.client import Client
from merganser.client.crdts import (
    Counter,
    Crdt,
    Distinct,
    Fields,
    Flag,
    GrowCounter,
    Handle,
    Map,
    Maximum,
    Minimum,
    MultiRegister,
    Options,
    Plain,
    Register,
    Set,
)
from merganser.client.tables import ValueTable

F_co = TypeVar("F_co", bound=Fields, covariant=True)
H_co = TypeVar("H_co", bound=Handle[Any], covariant=True)
P = ParamSpec("P")
T = TypeVar("T")


class SyncValueTable(Blocking[ValueTable]):
    """A key-value table; made by `SyncClient.table`. See `ValueTable`."""

    @property
    def name(self) -> str:
        """Of the table."""
        return self._of.name

    get = waiting(ValueTable.get)
    put = waiting(ValueTable.put)
    delete = waiting(ValueTable.delete)
    update = waiting(ValueTable.update)
    keys = one_by_one(ValueTable.keys)
    find = one_by_one(ValueTable.find)


class SyncHandle(Blocking[H_co], Generic[H_co, T]):
    """One value; see `Handle`."""

    def get(self, **options: Unpack[Options]) -> T:
        """Return the value; see `Handle.get`."""
        return cast("T", self._runner.run(lambda: self._of.get(**options)))

    def fetch(self, **options: Unpack[Options]) -> tuple[T, bytes]:
        """Return the value, and the context of what was read, for what removes nothing else; see `Handle.fetch`."""
        return self._runner.run(lambda: self._of.fetch(**options))

    reset = waiting(Handle.reset)


class SyncGrowCounter(SyncHandle[GrowCounter, int]):
    """See `GrowCounter`."""

    increment = waiting(GrowCounter.increment)


class SyncCounter(SyncHandle[Counter, int]):
    """See `Counter`."""

    increment = waiting(Counter.increment)
    decrement = waiting(Counter.decrement)


class SyncSet(SyncHandle[Set, frozenset[bytes]]):
    """See `Set`."""

    add = waiting(Set.add)
    remove = waiting(Set.remove)


class SyncRegister(SyncHandle[Register, bytes | None]):
    """See `Register`."""

    assign = waiting(Register.assign)


class SyncMultiRegister(SyncHandle[MultiRegister, frozenset[bytes]]):
    """See `MultiRegister`."""

    assign = waiting(MultiRegister.assign)


class SyncFlag(SyncHandle[Flag, bool]):
    """See `Flag`, and `DisableFlag`."""

    enable = waiting(Flag.enable)
    disable = waiting(Flag.disable)


class SyncDistinct(SyncHandle[Distinct, int]):
    """See `Distinct`."""

    add = waiting(Distinct.add)


class SyncMaximum(SyncHandle[Maximum, int | None]):
    """See `Maximum`."""

    raise_to = waiting(Maximum.raise_to)


class SyncMinimum(SyncHandle[Minimum, int | None]):
    """See `Minimum`."""

    lower_to = waiting(Minimum.lower_to)


def _map(runner: Runner, of: Map) -> SyncMap:
    return SyncMap(runner, of)


class SyncFields(Blocking[F_co], Generic[F_co]):
    """See `Fields`."""

    counter = handing_out(Fields.counter, SyncCounter)
    grow_counter = handing_out(Fields.grow_counter, SyncGrowCounter)
    set = handing_out(Fields.set, SyncSet)
    map = handing_out(Fields.map, _map)
    register = handing_out(Fields.register, SyncRegister)
    multi_register = handing_out(Fields.multi_register, SyncMultiRegister)
    flag = handing_out(Fields.flag, SyncFlag)
    disable_flag = handing_out(Fields.disable_flag, SyncFlag)
    distinct = handing_out(Fields.distinct, SyncDistinct)
    maximum = handing_out(Fields.maximum, SyncMaximum)
    minimum = handing_out(Fields.minimum, SyncMinimum)


class SyncMap(SyncFields[Map], SyncHandle[Map, dict[bytes, Plain]]):
    """See `Map`."""

    remove = waiting(Map.remove)


class SyncCrdt(SyncFields[Crdt]):
    """A key of a table whose values merge themselves; made by `SyncClient.crdt`. See `Crdt`."""

    get = waiting(Crdt.get)
    fetch = waiting(Crdt.fetch)
    update = waiting(Crdt.update)
    reset = waiting(Crdt.reset)


def _like(
    made: Callable[P, Client],
) -> Callable[[Callable[[SyncClient, Client], None]], Callable[Concatenate[SyncClient, P], None]]:
    """Give a constructor the arguments of ``made``."""

    def decorate(
        take: Callable[[SyncClient, Client], None],
    ) -> Callable[Concatenate[SyncClient, P], None]:
        def construct(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> None:
            take(self, made(*args, **kwargs))

        functools.update_wrapper(construct, Client.__init__)
        return construct

    return decorate


class SyncClient(Blocking[Client]):
    """A cluster, as its clients see it; a context manager. See `Client`."""

    @_like(Client)
    def __init__(self, client: Client) -> None:
        """Prepare a client; see `Client`."""
        super().__init__(Runner(), client)

    def open(self) -> Self:
        """Find the cluster; see `Client.open`."""
        if not self._runner.is_running:
            self._runner.start()
            try:
                self._runner.run(self._of.open)
            except BaseException:
                self._runner.stop()
                raise
        return self

    def close(self) -> None:
        """Fail what is under way, and close all connections; nothing is left running."""
        if self._runner.is_running:
            try:
                self._runner.run(self._of.close)
            finally:
                self._runner.stop()

    def __enter__(self) -> Self:
        """Open."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    table = handing_out(Client.table, SyncValueTable)
    crdt = handing_out(Client.crdt, SyncCrdt)
    create_table = waiting_for_one(Client.create_table, SyncValueTable)
    drop_table = waiting(Client.drop_table)
    policy = waiting(Client.policy)
    set_policy = waiting(Client.set_policy)
    tables = waiting(Client.tables)
