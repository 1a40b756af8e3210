"""The steps of transactions, as leaders of items and of the ledger evaluate them (`core.transaction`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from merganser.core import transaction
from merganser.model.cluster import Table
from merganser.model.errors import RequestError
from merganser.model.register import Content, Decided
from merganser.model.transaction import Apply, Begin, Clear, Commit, Finish, Forget, LedgerStep, Prepare
from merganser.service.ledger import is_ledger
from merganser.service.steps import Evaluator, Maker, Step


def maker(
    evaluators: Mapping[str, Evaluator],
    *,
    when_begun: Callable[[bytes], None] = lambda _id: None,
    check_standstill: Callable[[], None] = lambda: None,
) -> Maker:
    """Return the maker of the steps of transactions, for leaders of items and of the ledger.

    Args:
        evaluators: of each wire, by its name.
        when_begun: told of each transaction whose record this node may be about to open.
        check_standstill: raises an UnavailableError while no transaction may be committed or ended.
    """

    def step_of(table: Table, payload: bytes) -> Step:
        step = transaction.step_in(payload)
        if isinstance(step, Prepare | Apply | Clear):
            evaluate = partial(_evaluated, evaluators, table)
            of_item = lambda content: transaction.on_item(step, content, evaluate)  # noqa: E731
            return _when_nothing_stands_still(of_item, check_standstill) if isinstance(step, Apply) else of_item
        if not is_ledger(table):
            raise RequestError(f"table {table.name} keeps no records of transactions")
        if isinstance(step, Begin):
            when_begun(step.transaction)
        ledger_step: LedgerStep = step
        of_ledger = lambda content: transaction.on_ledger(ledger_step, content)  # noqa: E731
        is_end = isinstance(step, Commit | Finish | Forget)
        return _when_nothing_stands_still(of_ledger, check_standstill) if is_end else of_ledger

    return Maker(step_of, meets_intents=True)


def _when_nothing_stands_still(step: Step, check: Callable[[], None]) -> Step:
    def checked(content: Content) -> Decided:
        check()
        return step(content)

    return checked


def _evaluated(evaluators: Mapping[str, Evaluator], table: Table, payload: bytes, value: bytes | None) -> Decided:
    evaluate = evaluators.get(table.wire)
    if evaluate is None:
        raise RequestError(f"nothing on this node knows how to change items of {table.wire} tables")
    return evaluate(table, payload, value)
