"""Counters add up: nothing acknowledged is missing from them, and nothing is counted twice.

A consistent read tells no less than all increments that were acknowledged before it began, and no more than those
and all others that had begun when it ended, of unknown outcome or not. `linearizable` says more, and this says it
more plainly; increments are of positive amounts.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History


def counters_that_do_not_add_up(history: History) -> Iterator[str]:
    """Yield a sentence for each read that told too little, or too much."""
    for count in history.items.counts:
        of_key = [increment for increment in history.items.increments if increment.key == count.key]
        least = sum(increment.amount for increment in of_key if increment.ended_s < count.began_s)
        most = sum(increment.amount for increment in of_key if increment.began_s <= count.ended_s)
        if not least <= count.number <= most:
            when = f"from {count.began_s:.4f} to {count.ended_s:.4f} s"
            yield f"{count.key!r} was {count.number} in a read {when}, and must be between {least} and {most}"
