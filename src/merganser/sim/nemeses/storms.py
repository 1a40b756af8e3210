"""Storms: the network loses, delays, repeats and reorders what it carries."""

from __future__ import annotations

from merganser.sim.nemeses.arena import Arena
from merganser.sim.network import Conditions


async def loss(arena: Arena) -> None:
    """Lose a share of all messages."""
    lost = arena.rng.choice((arena.loss / 10, arena.loss))
    with arena.storm(Conditions(loss=lost)):
        arena.note("loss", f"{lost:.1%} of all messages are lost")
        await arena.pass_time()


async def delay(arena: Arena) -> None:
    """Make every message slow, some beyond any deadline's patience."""
    longest_s = arena.rng.choice((0.05, 0.5, 3.0))
    with arena.storm(Conditions(delay_s=(0.001, longest_s))):
        arena.note("delay", f"messages take up to {longest_s} s")
        await arena.pass_time()


async def disorder(arena: Arena) -> None:
    """Repeat messages and let them overtake one another."""
    with arena.storm(Conditions(delay_s=(0.0, 0.1), duplication=0.5)):
        arena.note("disorder", "messages come twice and in any order")
        await arena.pass_time()


async def all_at_once(arena: Arena) -> None:
    """Lose, delay and repeat."""
    with arena.storm(Conditions(delay_s=(0.001, 0.5), loss=arena.loss, duplication=0.1)):
        arena.note("storm", f"messages are slow, {arena.loss:.1%} of them are lost, some come twice")
        await arena.pass_time()
