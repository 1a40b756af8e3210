"""The trees that expressions become, before and after their placeholders are filled in.

The parser's leaves are `Name` parts and `Placeholder` values as they were written; binding turns every
part of a path into the attribute's name and every placeholder into a `Value`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from merganser.model.errors import RequestError


class ExpressionError(RequestError):
    """What DynamoDB says of a wrong expression, word for word."""


class Path(msgspec.Struct, frozen=True):
    """A document path: ``a.#b[3]``."""

    parts: tuple[str | int, ...]
    """Names (with # while unbound) and list indexes; the first is a name."""

    def __str__(self) -> str:
        """Print as DynamoDB does: ``[a, b, [3]]``."""
        return f"[{', '.join(f'[{part}]' if isinstance(part, int) else part for part in self.parts)}]"


class Placeholder(msgspec.Struct, frozen=True):
    """``:value``, not filled in yet."""

    name: str


class Value(msgspec.Struct, frozen=True):
    """An attribute value in normal form: {"N": "1"}."""

    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """S, N, B, …"""
        return next(iter(self.content))

    def __str__(self) -> str:
        """Print as DynamoDB does: ``AttributeValue: {N:1}``."""
        return f"AttributeValue: {{{self.kind}:{self.content[self.kind]}}}"


class Call(msgspec.Struct, frozen=True):
    """A function, as a condition or as an operand."""

    function: str
    operands: tuple[Operand, ...]


class Comparison(msgspec.Struct, frozen=True):
    """``left < right``."""

    operator: str
    """=, <>, <, <=, > or >=."""
    left: Operand
    right: Operand


class Between(msgspec.Struct, frozen=True):
    """``operand BETWEEN low AND high``."""

    operand: Operand
    low: Operand
    high: Operand


class In(msgspec.Struct, frozen=True):
    """``operand IN (choices)``."""

    operand: Operand
    choices: tuple[Operand, ...]


class Not(msgspec.Struct, frozen=True):
    """``NOT condition``."""

    condition: Condition


class Both(msgspec.Struct, frozen=True):
    """``left AND right``."""

    left: Condition
    right: Condition


class Either(msgspec.Struct, frozen=True):
    """``left OR right``."""

    left: Condition
    right: Condition


class Sum(msgspec.Struct, frozen=True):
    """``left + right`` or ``left - right``, where SET allows one."""

    operator: str
    """+ or -."""
    left: Operand
    right: Operand


class Assignment(msgspec.Struct, frozen=True):
    """``SET path = value``."""

    path: Path
    value: Operand | Sum


class Removal(msgspec.Struct, frozen=True):
    """``REMOVE path``."""

    path: Path


class Addition(msgspec.Struct, frozen=True):
    """``ADD path value``: to a number or a set."""

    path: Path
    value: Operand


class Deletion(msgspec.Struct, frozen=True):
    """``DELETE path value``: members of a set."""

    path: Path
    value: Operand


class Section(msgspec.Struct, frozen=True):
    """A keyword of an update and the actions behind it."""

    keyword: str
    """SET, REMOVE, ADD or DELETE."""
    actions: tuple[Action, ...]


class Update(msgspec.Struct, frozen=True):
    """An UpdateExpression."""

    sections: tuple[Section, ...]

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions, as they were written."""
        return tuple([action for section in self.sections for action in section.actions])


Operand = Path | Placeholder | Value | Call
Condition = Comparison | Between | In | Call | Not | Both | Either
Action = Assignment | Removal | Addition | Deletion
