"""The second walk over a tree: placeholders become names and values, and operands are checked.

One `Placeholders` serves all the expressions of a request, because only then it is known which of the
names and values nobody used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.query.mentions import paths_of_update
from merganser.query.operands import check_actions, check_comparison, check_leaf, check_paths
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
    Removal,
    Section,
    Sum,
    Update,
    Value,
)


class Placeholders:
    """ExpressionAttributeNames and ExpressionAttributeValues of one request."""

    def __init__(self, names: Mapping[str, str], values: Mapping[str, dict[str, Any]]) -> None:
        """Take both, the values in normal form."""
        self._names = names
        self._values = values
        self._unused_names = dict.fromkeys(names)
        self._unused_values = dict.fromkeys(values)

    @property
    def are_none(self) -> bool:
        """Tell whether there is neither a name nor a value."""
        return not (self._names or self._values)

    def bind(self, tree: Condition) -> Condition:
        """Return ``tree`` with every placeholder filled in.

        Raises:
            ExpressionError: one is not defined, or an operand does not suit its operator.
        """
        if isinstance(tree, Comparison):  # most conditions, and matching a pattern takes longer than all the rest
            comparison = Comparison(tree.operator, self._operand(tree.left), self._operand(tree.right))
            check_comparison(comparison)
            return comparison
        match tree:
            case Both(left, right):
                return Both(self.bind(left), self.bind(right))
            case Either(left, right):
                return Either(self.bind(left), self.bind(right))
            case Not(inner):
                return Not(self.bind(inner))
            case Between(operand, low, high):
                between = Between(self._operand(operand), self._operand(low), self._operand(high))
                check_leaf(between)
                return between
            case In(operand, choices):
                member = In(self._operand(operand), tuple(self._operand(choice) for choice in choices))
                check_leaf(member)
                return member
            case Call():
                call = self._call(tree)
                check_leaf(call)
                return call

    def bind_update(self, tree: Update) -> Update:
        """Return ``tree`` with every placeholder filled in.

        Raises:
            ExpressionError: one is not defined, two paths cannot both be changed, or an operand does not suit its
                operator.
        """
        try:
            filled = [Section(section.keyword, tuple(map(self._action, section.actions))) for section in tree.sections]
        except ExpressionError:
            self._check_names(tree)  # DynamoDB looks for all names before it looks for values
            raise
        update = Update(tuple(filled))
        check_paths([action.path for action in update.actions])
        check_actions(update.actions)
        return update

    def bind_paths(self, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        """Return the paths of a projection with every placeholder filled in.

        Raises:
            ExpressionError: one is not defined, or two paths overlap.
        """
        bound = tuple(map(self._path, paths))
        check_paths(bound)
        return bound

    def check_all_used(self) -> None:
        """Check that every name and value was used, after the last expression.

        Raises:
            ExpressionError: one was not; the message is whole.
        """
        for kind, unused in (("Names", self._unused_names), ("Values", self._unused_values)):
            if unused:
                keys = ", ".join(unused)
                raise ExpressionError(
                    f"Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{keys}}}"
                )

    def _operand(self, operand: Operand) -> Operand:
        if isinstance(operand, Path):
            return self._path(operand)
        if isinstance(operand, Placeholder):
            return self._value(operand.name)
        if isinstance(operand, Value):
            return operand
        return self._call(operand)

    def _action(self, action: Action) -> Action:
        path = self._path(action.path)
        if isinstance(action, Removal):
            return Removal(path)
        value = action.value
        if isinstance(value, Sum):
            return Assignment(path, Sum(value.operator, self._operand(value.left), self._operand(value.right)))
        return type(action)(path, self._operand(value))

    def _check_names(self, tree: Update) -> None:
        for path in paths_of_update(tree):
            self._path(path)

    def _path(self, path: Path) -> Path:
        for part in path.parts:
            if isinstance(part, str) and part.startswith("#"):
                return Path(tuple([self._name(part) if isinstance(part, str) else part for part in path.parts]))
        return path

    def _name(self, part: str) -> str:
        if not part.startswith("#"):
            return part
        if part not in self._names:
            raise ExpressionError(
                f"An expression attribute name used in the document path is not defined; attribute name: {part}"
            )
        self._unused_names.pop(part, None)
        return self._names[part]

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise ExpressionError(
                f"An expression attribute value used in expression is not defined; attribute value: {name}"
            )
        self._unused_values.pop(name, None)
        return Value(self._values[name])

    def _call(self, call: Call) -> Call:
        return Call(call.function, tuple([self._operand(operand) for operand in call.operands]))
