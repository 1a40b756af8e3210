"""Partitions: machines that run and do not hear one another, or whose connections break again and again."""

from __future__ import annotations

import asyncio

from merganser.sim.nemeses.arena import Arena, addresses, both_ways


async def halves(arena: Arena) -> None:
    """Split the cluster in two; neither side hears the other."""
    shuffled = arena.rng.sample(arena.machines, len(arena.machines))
    size = arena.rng.randint(1, max(1, len(shuffled) // 2))
    with arena.cut(both_ways(shuffled[:size], shuffled[size:])):
        arena.note("halves", f"{addresses(shuffled[:size])} | {addresses(shuffled[size:])}", of=shuffled[:size])
        await arena.pass_time()


async def one_way(arena: Arena) -> None:
    """Let some machines speak and not hear, or hear and not be heard."""
    shuffled = arena.rng.sample(arena.machines, len(arena.machines))
    size = arena.rng.randint(1, max(1, len(shuffled) - 1))
    deaf = [(sender, receiver) for sender in shuffled[size:] for receiver in shuffled[:size]]
    with arena.cut(deaf):
        arena.note(
            "one way",
            f"{addresses(shuffled[:size])} hear nothing from {addresses(shuffled[size:])}",
            of=shuffled[:size],
            is_partial=True,
        )
        await arena.pass_time()


async def one_link(arena: Arena) -> None:
    """Cut a single link in one direction."""
    if len(arena.machines) < 2:
        return
    sender, receiver = arena.rng.sample(arena.machines, 2)
    with arena.cut([(sender, receiver)]):
        arena.note(
            "one link", f"{receiver.address} hears nothing from {sender.address}", of=[receiver], is_partial=True
        )
        await arena.pass_time()


async def bridge(arena: Arena) -> None:
    """Split the cluster in two but for one machine that sees both sides."""
    shuffled = arena.rng.sample(arena.machines, len(arena.machines))
    seer, others = shuffled[0], shuffled[1:]
    left, right = others[: len(others) // 2], others[len(others) // 2 :]
    with arena.cut(both_ways(left, right)):
        arena.note(
            "bridge", f"{addresses(left)} | {seer.address} sees both | {addresses(right)}", of=left, is_partial=True
        )
        await arena.pass_time()


async def flapping(arena: Arena) -> None:
    """Cut a machine off and mend it again, several times, quickly."""
    victim = arena.rng.choice(arena.machines)
    links = both_ways([victim], [machine for machine in arena.machines if machine is not victim])
    arena.note("flapping", f"the links of {victim.address} come and go", of=[victim], is_partial=True)
    for _ in range(arena.rng.randint(3, 10)):
        with arena.cut(links):
            await asyncio.sleep(arena.rng.uniform(0.01, 0.2))
        await asyncio.sleep(arena.rng.uniform(0.01, 0.2))


async def resets(arena: Arena) -> None:
    """Break the connections of a machine several times: what waits for an answer on them will not get it."""
    victim = arena.rng.choice(arena.machines)
    links = [(victim, machine) for machine in arena.machines if machine is not victim]
    arena.note(
        "resets", f"the connections of {victim.address} are reset, again and again", of=[victim], is_partial=True
    )
    for _ in range(arena.rng.randint(1, 10)):
        arena.reset(arena.rng.sample(links, arena.rng.randint(min(1, len(links)), len(links))))
        await asyncio.sleep(arena.rng.uniform(0.01, 0.3))
