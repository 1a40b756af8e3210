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


Operand = Path | Placeholder | Value | Call
Condition = Comparison | Between | In | Call | Not | Both | Either
