"""What the tests of hints look at and wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import Apply, Hint, Merged, Reply, Request
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.net.transport import Traffic
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import encode_row
from service.plays import CELL, key_of, member, serve_instead, until


def number(machine: Machine) -> int:
    """Return the number of the node on ``machine``."""
    return member(machine).topology.me.number


def kept(machine: Machine, target: Machine) -> list[bytes]:
    """Return the names of the rows that ``machine`` keeps for ``target``, in order."""
    start, end = keys.hint_range(number(target))
    return [keys.split_row_key(keys.split_hint_key(hint_key)[1])[2] for hint_key, _ in machine.engine.scan(start, end)]


def keepers(world: World, target: Machine) -> list[Machine]:
    """Return the machines that are up and keep hints for ``target``."""
    return [machine for machine in world.machines if machine.member is not None and kept(machine, target)]


def hints_left(world: World) -> int:
    """Return how many hints all machines keep, by their own count."""
    return sum(member(machine).handoff.pending() for machine in world.machines)


async def drained(world: World, *, timeout_s: float = 200.0) -> None:
    """Return when no machine keeps a hint any more, nor is about to."""
    await until(
        lambda: all(
            machine.member is not None
            and machine.member.coordinator.hinting.watched == 0
            and not any(True for _ in machine.engine.scan(*keys.all_hints_range()))
            for machine in world.machines
        ),
        timeout_s=timeout_s,
    )


def hint(table: Table, name: bytes, row: Row, target: int, *, map_epoch: int = 0) -> Hint:
    """Return a hint for the row of partition key ``name``."""
    key = key_of(table, name)
    return Hint(map_epoch, table.id, key, encode_row(key, row), target)


async def keep(machine: Machine, request: Hint) -> Merged:
    """Have ``machine`` store a hint."""
    sender = member(machine).topology.node
    return await machine.spawn(member(machine).hints.keep(sender, request))


def row(value: bytes = b"v", micros: int = 0) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US + micros, 9), value),))


def noted(machine: Machine, kind: type[Request]) -> list[tuple[NodeId, Request, Traffic]]:
    """Return the list, growing from now on, of what ``machine`` sends of that kind."""
    sent: list[tuple[NodeId, Request, Traffic]] = []
    asker = member(machine).coordinator._asker
    forward = asker._transport.request

    def request(
        node: NodeId, request: Request, *, timeout_s: float, traffic: Traffic = Traffic.DATA
    ) -> asyncio.Future[Reply]:
        if isinstance(request, kind):
            sent.append((node, request, traffic))
        return forward(node, request, timeout_s=timeout_s, traffic=traffic)

    asker._transport.request = request  # type: ignore[method-assign]
    return sent


def refusing(machine: Machine, is_refused: Callable[[Apply], RefusedError | None]) -> list[Apply]:
    """Have ``machine`` refuse some writes; return the list, growing, of all that reach it."""
    seen: list[Apply] = []
    serve = member(machine).replica.apply

    async def apply(sender: NodeId, request: Apply) -> Reply:
        seen.append(request)
        refusal = is_refused(request)
        if refusal is not None:
            raise refusal
        return await serve(sender, request)

    serve_instead(machine, Apply, apply)
    return seen
