"""Money is neither made nor lost, and nobody sees it on its way.

Transfers are write transactions. Whatever one transaction reads of all accounts adds up to what was there in the
beginning, and no account is ever below zero, because each transfer says so in its condition.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History


def money_made_or_lost(history: History) -> Iterator[str]:
    """Yield a sentence for each look at the accounts that does not add up."""
    total = history.items.bank_total
    for look in history.items.balances:
        when = f"{list(look.numbers)} from {look.began_s:.4f} to {look.ended_s:.4f} s"
        if look.is_of_all and total is not None and sum(look.numbers) != total:
            yield f"all accounts together hold {total}, and one read {when}, which is {sum(look.numbers)}"
        if any(number < 0 or (total is not None and number > total) for number in look.numbers):
            yield f"an account is below zero, or holds more than there is: {when}"
