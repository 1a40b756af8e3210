"""The first walk over a tree: functions, reserved words, and how much of everything there is.

What it finds depends on the text alone; `binding` looks at names and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from merganser.query.reserved_words import is_reserved
from merganser.query.syntax import (
    Action,
    Assignment,
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Either,
    ExpressionError,
    In,
    Not,
    Operand,
    Path,
    Placeholder,
    Sum,
    Update,
    Value,
)

OPERATORS_MAX: Final = 300
CHOICES_MAX: Final = 100
"""Operands in the parentheses of IN."""
LEVELS_MAX: Final = 32
"""Elements of a path; no item is deeper."""
INDEX_MAX: Final = 2**31 - 1
"""Far beyond the longest list that fits into an item."""

FUNCTIONS: Final = frozenset(
    ("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size")
)
UPDATE_FUNCTIONS: Final = frozenset(("if_not_exists", "list_append"))


class Inspector:
    """Looks through one expression, and raises an `ExpressionError` for the first thing that is wrong with it."""

    def __init__(self) -> None:
        """Count operators from none."""
        self._operators = 0

    def condition(self, tree: Condition) -> None:
        """Look through a condition."""
        match tree:
            case Both(left, right) | Either(left, right):
                self.condition(left)
                self._count()
                self.condition(right)
            case Not(inner):
                self._count()
                self.condition(inner)
            case Call():
                self._operand(tree)
            case Comparison(_, left, right):
                self._count()
                self._operands(left, right)
            case Between(operand, low, high):
                self._count()
                self._operands(operand, low, high)
            case In(operand, choices):
                self._count()
                if len(choices) > CHOICES_MAX:
                    raise ExpressionError(
                        f"The IN operator is provided with too many operands; number of operands: {len(choices)}"
                    )
                self._operands(operand, *choices)

    def update(self, tree: Update) -> None:
        """Look through an update."""
        for section in tree.sections:
            for action in section.actions:
                self._action(action)
        keywords = [section.keyword for section in tree.sections]
        for number, keyword in enumerate(keywords):
            if keyword in keywords[:number]:
                raise ExpressionError(f'The "{keyword}" section can only be used once in an update expression;')

    def paths(self, paths: Sequence[Path]) -> None:
        """Look through a projection."""
        self._operands(*paths)

    def _action(self, action: Action) -> None:
        self._operand(action.path)
        match action:
            case Assignment(_, Sum(_, left, right)):
                self._count()
                self._operands(left, right)
            case Assignment(_, Path() | Placeholder() | Value() | Call() as operand):
                self._operand(operand)

    def _operands(self, *operands: Operand) -> None:
        for operand in operands:
            self._operand(operand)

    def _operand(self, operand: Operand) -> None:
        if isinstance(operand, Path):
            self._path(operand)
        elif isinstance(operand, Call):
            self._count()
            if operand.function not in FUNCTIONS | UPDATE_FUNCTIONS:
                raise ExpressionError(f"Invalid function name; function: {operand.function}")
            self._operands(*operand.operands)

    def _path(self, path: Path) -> None:
        for part in path.parts:
            if isinstance(part, int):
                if part > INDEX_MAX:
                    raise ExpressionError(f"List index is not within the allowable range; index: [{part}]")
            elif not part.startswith("#") and is_reserved(part):
                raise ExpressionError(f"Attribute name is a reserved keyword; reserved keyword: {part}")
        if len(path.parts) > LEVELS_MAX:
            raise ExpressionError(f"The document path has too many nesting elements; nesting levels: {len(path.parts)}")

    def _count(self) -> None:
        self._operators += 1
        if self._operators > OPERATORS_MAX:
            raise ExpressionError(f"The expression contains too many operators; operator count: {self._operators}")
