"""The second walk over a tree: placeholders become names and values, and operands are checked.

One `Placeholders` serves all the expressions of a request, because only then it is known which of the
names and values nobody used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merganser.query.inspection import FUNCTIONS, UPDATE_FUNCTIONS
from merganser.query.operands import (
    check_action,
    check_between,
    check_call,
    check_choices,
    check_comparison,
    check_paths,
    misused,
)
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
                check_between(between)
                return between
            case In(operand, choices):
                member = In(self._operand(operand), tuple(self._operand(choice) for choice in choices))
                check_choices(member)
                return member
            case Call():
                call = self._call(tree)
                if call.function == "size":
                    raise misused(call)
                return call

    def bind_update(self, tree: Update) -> Update:
        """Return ``tree`` with every placeholder filled in.

        Raises:
            ExpressionError: one is not defined, two paths cannot both be changed, or an operand does not suit its
                operator.
        """
        update = Update(
            tuple([Section(section.keyword, tuple(map(self._action, section.actions))) for section in tree.sections])
        )
        actions = update.actions
        check_paths([action.path for action in actions])
        for action in actions:
            check_action(action)
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
        call = self._call(operand)
        if call.function != "size":
            raise misused(call)
        return call

    def _action(self, action: Action) -> Action:
        path = self._path(action.path)
        if isinstance(action, Removal):
            return Removal(path)
        value = action.value
        if isinstance(value, Sum):
            return Assignment(
                path, Sum(value.operator, self._update_operand(value.left), self._update_operand(value.right))
            )
        return type(action)(path, self._update_operand(value))

    def _update_operand(self, operand: Operand) -> Operand:
        """Fill in an operand of an update; what operands it has is looked at when all are filled in."""
        if not isinstance(operand, Call):
            return self._operand(operand)
        if operand.function in FUNCTIONS:
            raise ExpressionError(f"The function is not allowed in an update expression; function: {operand.function}")
        return Call(operand.function, tuple(map(self._update_operand, operand.operands)))

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
        if call.function in UPDATE_FUNCTIONS:
            raise ExpressionError(f"The function is not allowed in a condition expression; function: {call.function}")
        bound = Call(call.function, tuple(self._operand(operand) for operand in call.operands))
        check_call(bound)
        return bound
