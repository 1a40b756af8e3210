"""Histories of transactions while requests get lost and coordinators die, and what no order of them explains."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from merganser.model.errors import (
    MerganserError,
    UnknownOutcomeError,
)
from merganser.model.transaction import (
    Apply,
)
from merganser.service.ledger_sweep import LEFT_BEHIND_S
from merganser.sim.checkers.serializable import Appended, Ending, Listed, Transaction, anomalies
from service.transactions_by_hand import Fault, Node, Stage, failing, now_s, play


def torn_reads() -> list[list[bytes | None]]:
    torn = []

    async def script(stage: Stage) -> None:
        for number in range(300):
            names = [b"%d%c" % (number, letter) for letter in b"abc"]
            dead = Node(stage, failing(Apply, Fault.DIES_BEFORE, times=len(names)))
            work = asyncio.create_task(dead.write(*[(name, b"=new") for name in names]))
            await asyncio.sleep(stage.rng.uniform(0, 0.02))
            values = await stage.leader.get(*names)
            if len(set(values)) > 1:
                torn.append(values)
            await work
            await dead.transactions.close()

    play(script)
    return torn


def unexplained(seed: int) -> list[str]:
    """Return what no order explains in a random history."""
    history: list[Transaction] = []

    async def script(stage: Stage) -> None:
        rng = random.Random(seed)
        trouble = rng.choice((0.0, 0.05, 0.15))
        sweeping = asyncio.create_task(stage.sweep.run())
        clients = [asyncio.create_task(_client(stage, rng, number, trouble, history)) for number in range(6)]
        for client in clients:
            await client
        await asyncio.sleep(2 * LEFT_BEHIND_S + 5)
        sweeping.cancel()
        began = now_s()
        final = [Listed(name, tuple((await stage.leader.look(name) or b"").split())) for name in NAMES]
        history.append(Transaction(tuple(final), began, now_s()))
        if stage.locks():
            history.clear()

    play(script, seed=seed)
    if not history:
        return ["items are still locked"]
    assert sum(one.ending is Ending.COMMITTED for one in history) > 50
    return list(anomalies(history))


NAMES = (b"a", b"b", b"c", b"d")


class Act(NamedTuple):
    """What a client is about to do."""

    kind: str
    names: list[bytes]
    element: bytes

    @property
    def appended(self) -> tuple[Appended, ...]:
        if self.kind in ("get", "look"):
            return ()
        return tuple(Appended(name, self.element.strip()) for name in self.names)


def _draw(rng: random.Random, element: bytes) -> Act:
    kind = rng.choice(("write", "get", "put", "look"))
    return Act(kind, rng.sample(NAMES, 1 if kind in ("put", "look") else rng.randint(1, 3)), element)


async def _client(stage: Stage, rng: random.Random, number: int, trouble: float, history: list[Transaction]) -> None:
    def faults(_payload: bytes | None) -> Fault | None:
        return rng.choice(list(Fault)) if rng.random() < trouble else None

    node = Node(stage, faults)
    for turn in range(40):
        await asyncio.sleep(rng.uniform(0, 0.05))
        act = _draw(rng, b"%d.%d " % (number, turn))
        work = asyncio.create_task(_done(node, act))
        began = now_s()
        done, _ = await asyncio.wait({work}, timeout=6.0)
        ended = now_s()
        if not done or isinstance(work.exception(), UnknownOutcomeError):
            work.cancel()
            history.append(Transaction(act.appended, began, ending=Ending.UNKNOWN))
        elif isinstance(work.exception(), MerganserError):
            history.append(Transaction(act.appended, began, ended, Ending.ABORTED))
        else:
            history.append(Transaction((*work.result(), *act.appended), began, ended))
        if node.is_dead:
            await node.transactions.close()
            node = Node(stage, faults)
    await node.transactions.close()


async def _done(node: Node, act: Act) -> list[Listed]:
    """Do it; returns what was there before."""
    match act.kind:
        case "write":
            seen: list[bytes | None] = [*await node.write(*[(name, b"+" + act.element) for name in act.names])]
        case "get":
            seen = await node.get(*act.names)
        case "put":
            seen = [await node.put(act.names[0], b"+" + act.element)]
        case _:
            seen = [await node.look(act.names[0])]
    return [Listed(name, tuple((value or b"").split())) for name, value in zip(act.names, seen, strict=True)]
