"""From tokens to a tree: one recursive descent for every kind of expression.

::

    condition: operand (= | <> | < | <= | > | >=) operand
             | operand BETWEEN operand AND operand
             | operand IN ( operand , … )
             | function | NOT condition | condition AND condition | condition OR condition | ( condition )
    operand:   path | :value | function | ( operand )
    function:  identifier ( operand , … )
    path:      (identifier | #name) (. (identifier | #name) | [ index ])*

NOT binds tighter than AND, AND tighter than OR. After an opening parenthesis it is not known yet
whether a condition or an operand follows, so both are read by one routine and told apart by what they
turned out to be; nothing is ever read twice.

A first walk over the finished tree finds unknown functions, reserved words and excess, in the order
in which DynamoDB does; `binding` is the second.
"""

from __future__ import annotations

from typing import Final

from merganser.query.lexer import EOF, IDENTIFIER, INDEX, NAME, VALUE, Token, tokens_of
from merganser.query.reserved_words import is_reserved
from merganser.query.syntax import (
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
    Value,
)

EXPRESSION_BYTES_MAX: Final = 4096
OPERATORS_MAX: Final = 300
DEPTH_MAX: Final = 200
"""Open parentheses. DynamoDB has no such bound; 300 operators and no redundant parentheses rarely get this far."""

COMPARATORS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
FUNCTIONS: Final = frozenset(
    ("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size")
)
UPDATE_FUNCTIONS: Final = frozenset(("if_not_exists", "list_append"))

_PRECEDENCE = {"OR": 1, "AND": 2}


def parse_condition(text: str) -> Condition:
    """Return the tree of a condition, its placeholders not yet filled in.

    Raises:
        ExpressionError: empty, too long, or no condition.
    """
    if not text:
        raise ExpressionError("The expression can not be empty;")
    size = len(text.encode())
    if size > EXPRESSION_BYTES_MAX:
        raise ExpressionError(f"Expression size has exceeded the maximum allowed size; expression size: {size}")
    tree = _Parser(text).condition()
    _Inspector().condition(tree)
    return tree


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
        operands = [self._operand()]
        while self._next.kind == ",":
            self._take()
            operands.append(self._operand())
        self._expect(")")
        self._depth -= 1
        return tuple(operands)

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


class _Inspector:
    """The first walk: functions, reserved words, number of operators."""

    def __init__(self) -> None:
        self._operators = 0

    def condition(self, tree: Condition) -> None:
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
                self._operands(operand, *choices)

    def _operands(self, *operands: Operand) -> None:
        for operand in operands:
            self._operand(operand)

    def _operand(self, operand: Operand) -> None:
        if isinstance(operand, Path):
            for part in operand.parts:
                if isinstance(part, str) and not part.startswith("#") and is_reserved(part):
                    raise ExpressionError(f"Attribute name is a reserved keyword; reserved keyword: {part}")
        elif isinstance(operand, Call):
            self._count()
            if operand.function not in FUNCTIONS | UPDATE_FUNCTIONS:
                raise ExpressionError(f"Invalid function name; function: {operand.function}")
            self._operands(*operand.operands)

    def _count(self) -> None:
        self._operators += 1
        if self._operators > OPERATORS_MAX:
            raise ExpressionError(f"The expression contains too many operators; operator count: {self._operators}")


def _redundant() -> ExpressionError:
    return ExpressionError("The expression has redundant parentheses;")
