"""From tokens to a tree: one recursive descent for every kind of expression.

::

    condition: operand (= | <> | < | <= | > | >=) operand
             | operand BETWEEN operand AND operand
             | operand IN ( operand , … )
             | function | NOT condition | condition AND condition | condition OR condition | ( condition )
    operand:   path | :value | function | ( operand )
    function:  identifier ( operand , … )
    path:      (identifier | #name) (. (identifier | #name) | [ index ])*

    update:    (SET path = value , … | REMOVE path , … | ADD path :value , … | DELETE path :value , …)+
    value:     operand | operand + operand | operand - operand | ( value )

    projection: path , …

NOT binds tighter than AND, AND tighter than OR. After an opening parenthesis it is not known yet
whether a condition or an operand follows, so both are read by one routine and told apart by what they
turned out to be; nothing is ever read twice.

A tree depends on nothing but the text, so those read last are kept. A first walk over the finished tree
(`inspection`) finds excess, unknown and misplaced functions, and reserved words, in the order in which DynamoDB does;
`binding` is the second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, TypeVar

from merganser.query.inspection import inspect_condition, inspect_paths, inspect_update
from merganser.query.lexer import EOF, IDENTIFIER, INDEX, NAME, VALUE, Token, tokens_of
from merganser.query.syntax import (
    Action,
    Addition,
    Assignment,
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Deletion,
    Either,
    ExpressionError,
    In,
    Not,
    Operand,
    Path,
    Placeholder,
    Removal,
    Section,
    Sum,
    Update,
    Value,
)

EXPRESSION_BYTES_MAX: Final = 4096
DEPTH_MAX: Final = 200
"""Open parentheses. DynamoDB has no such bound; 300 operators and no redundant parentheses rarely get this far."""
TREES_MAX: Final = 256
"""Kept of each kind of expression. Applications use tens; a tree of 4 KB of text takes about 100 KB."""

COMPARATORS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
T = TypeVar("T")

_PRECEDENCE = {"OR": 1, "AND": 2}


@functools.lru_cache(maxsize=TREES_MAX)
def parse_condition(text: str) -> Condition:
    """Return the tree of a condition, its placeholders not yet filled in.

    Raises:
        ExpressionError: empty, too long, or no condition.
    """
    _check_size(text)
    tree = _Parser(text).condition()
    inspect_condition(tree)
    return tree


@functools.lru_cache(maxsize=TREES_MAX)
def parse_update(text: str) -> Update:
    """Return the tree of an UpdateExpression, its placeholders not yet filled in.

    Raises:
        ExpressionError: empty, too long, or no update.
    """
    _check_size(text)
    tree = _Parser(text).update()
    inspect_update(tree)
    return tree


@functools.lru_cache(maxsize=TREES_MAX)
def parse_projection(text: str) -> tuple[Path, ...]:
    """Return the paths of a ProjectionExpression, their placeholders not yet filled in.

    Raises:
        ExpressionError: empty, too long, or no list of paths.
    """
    _check_size(text)
    paths = _Parser(text).projection()
    inspect_paths(paths)
    return paths


def _check_size(text: str) -> None:
    if not text:
        raise ExpressionError("The expression can not be empty;")
    size = len(text.encode())
    if size > EXPRESSION_BYTES_MAX:
        raise ExpressionError(f"Expression size has exceeded the maximum allowed size; expression size: {size}")


class _Parser:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens_of(text)
        self._at = 0
        self._depth = 0

    def condition(self) -> Condition:
        """Read the whole text as one condition."""
        tree = self._as_condition(self._either(1)[0])
        self._expect(EOF)
        return tree

    def update(self) -> Update:
        """Read the whole text as sections of an update, at least one."""
        sections = [self._section()]
        while self._next.kind != EOF:
            sections.append(self._section())
        return Update(tuple(sections))

    def projection(self) -> tuple[Path, ...]:
        """Read the whole text as a list of paths."""
        paths = self._list_of(self._whole_path)
        self._expect(EOF)
        return paths

    def _section(self) -> Section:
        read = {"SET": self._assignment, "REMOVE": self._removal, "ADD": self._addition, "DELETE": self._deletion}
        keyword = self._next.kind
        if keyword not in read:
            raise self._unexpected()
        self._take()
        return Section(keyword, self._list_of(read[keyword]))

    def _assignment(self) -> Action:
        path = self._whole_path()
        self._expect("=")
        return Assignment(path, self._sum()[0])

    def _removal(self) -> Action:
        return Removal(self._whole_path())

    def _addition(self) -> Action:
        return Addition(self._whole_path(), Placeholder(self._expect(VALUE).text))

    def _deletion(self) -> Action:
        return Deletion(self._whole_path(), Placeholder(self._expect(VALUE).text))

    def _sum(self) -> tuple[Operand | Sum, bool]:
        """Read what is assigned, and tell whether it is one pair of parentheses.

        As with conditions, what an opening parenthesis holds is known only when it is read.
        """
        left, is_grouped = self._grouped_sum() if self._next.kind == "(" else (self._operand(), False)
        if isinstance(left, Sum) or self._next.kind not in ("+", "-"):
            return left, is_grouped
        operator = self._take().kind
        return Sum(operator, left, self._operand()), False

    def _grouped_sum(self) -> tuple[Operand | Sum, bool]:
        self._take()
        self._descend()
        tree, is_grouped = self._sum()
        self._expect(")")
        self._depth -= 1
        if is_grouped:
            raise _redundant()
        return tree, True

    def _list_of(self, read: Callable[[], T]) -> tuple[T, ...]:
        elements = [read()]
        while self._next.kind == ",":
            self._take()
            elements.append(read())
        return tuple(elements)

    def _whole_path(self) -> Path:
        if self._next.kind not in (IDENTIFIER, NAME):
            raise self._unexpected()
        return self._path(self._take())

    def _either(self, precedence: int) -> tuple[Condition | Operand, bool]:
        """Read a condition or an operand, and tell whether it is one pair of parentheses."""
        tree, is_grouped = self._unit()
        while _PRECEDENCE.get(self._next.kind, 0) >= precedence:
            left = self._as_condition(tree)
            operator = self._take()
            right = self._as_condition(self._either(_PRECEDENCE[operator.kind] + 1)[0])
            tree, is_grouped = (Both if operator.kind == "AND" else Either)(left, right), False
        return tree, is_grouped

    def _unit(self) -> tuple[Condition | Operand, bool]:
        """Read what AND and OR connect."""
        negations = 0
        while self._next.kind == "NOT":
            self._take()
            negations += 1
        tree, is_grouped = self._group() if self._next.kind == "(" else (self._operand(), False)
        if not isinstance(tree, _CONDITIONS) and self._next.kind in _AFTER_OPERAND:
            tree, is_grouped = self._predicate(tree), False
        for _ in range(negations):
            tree, is_grouped = Not(self._as_condition(tree)), False
        return tree, is_grouped

    def _group(self) -> tuple[Condition | Operand, bool]:
        self._take()
        self._descend()
        tree, is_grouped = self._either(1)
        self._expect(")")
        self._depth -= 1
        if is_grouped:
            raise _redundant()
        return tree, True

    def _predicate(self, left: Operand) -> Condition:
        operator = self._take()
        if operator.kind == "BETWEEN":
            low = self._operand()
            self._expect("AND")
            return Between(left, low, self._operand())
        if operator.kind == "IN":
            self._expect("(")
            return In(left, self._operands())
        return Comparison(operator.kind, left, self._operand())

    def _operand(self) -> Operand:
        token = self._next
        if token.kind == "(":
            return self._grouped_operand()
        if token.kind == VALUE:
            return Placeholder(self._take().text)
        if token.kind not in (IDENTIFIER, NAME):
            raise self._unexpected()
        self._take()
        if token.kind == IDENTIFIER and self._next.kind == "(":
            self._take()
            return Call(token.text, self._operands())
        return self._path(token)

    def _grouped_operand(self) -> Operand:
        self._take()
        self._descend()
        is_grouped = self._next.kind == "("
        operand = self._operand()
        self._expect(")")
        self._depth -= 1
        if is_grouped:
            raise _redundant()
        return operand

    def _operands(self) -> tuple[Operand, ...]:
        """Read the rest of a list whose parenthesis is already open."""
        self._descend()
        operands = self._list_of(self._operand)
        self._expect(")")
        self._depth -= 1
        return operands

    def _path(self, first: Token) -> Path:
        parts: list[str | int] = [first.text]
        while self._next.kind in (".", "["):
            if self._take().kind == ".":
                if self._next.kind not in (IDENTIFIER, NAME):
                    raise self._unexpected()
                parts.append(self._take().text)
            else:
                parts.append(int(self._expect(INDEX).text))
                self._expect("]")
        return Path(tuple(parts))

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, kind: str) -> Token:
        if self._next.kind != kind:
            raise self._unexpected()
        return self._take()

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _redundant()

    def _as_condition(self, tree: Condition | Operand) -> Condition:
        if isinstance(tree, Path | Placeholder | Value):
            raise self._unexpected()
        return tree

    def _unexpected(self) -> ExpressionError:
        token = self._next
        start = self._tokens[self._at - 1].start if self._at else (0 if token.kind == EOF else token.start)
        end = self._tokens[min(self._at + 1, len(self._tokens) - 1)].end
        return ExpressionError(f'Syntax error; token: "{token.text}", near: "{self._text[start:end]}"')


_CONDITIONS = (Comparison, Between, In, Not, Both, Either)
_AFTER_OPERAND = COMPARATORS | {"IN", "BETWEEN"}


def _redundant() -> ExpressionError:
    return ExpressionError("The expression has redundant parentheses;")
