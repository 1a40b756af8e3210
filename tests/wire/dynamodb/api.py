"""DynamoDB's API as botocore's model describes it, and what the request path does with each parameter of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from botocore.loaders import Loader
from botocore.model import ServiceModel

from merganser.wire.dynamodb.errors import SerializationError
from merganser.wire.dynamodb.shapes import OPERATIONS, check
from merganser.wire.dynamodb.unserved import UNSERVED

IGNORED = "**ignored**"
SERVED = "served"


class Parameter(NamedTuple):
    """A member of a request, or of a structure in one."""

    operation: str
    path: tuple[Any, ...]
    """The shapes on the way, as `Step`s, the member's own last."""

    @property
    def names(self) -> tuple[str, ...]:
        """TransactItems, Put, Item."""
        return tuple(step.name for step in self.path)

    @property
    def shape(self) -> Any:
        """Of the member itself."""
        return self.path[-1].shape

    def within(self, value: Any) -> dict[str, Any]:
        """A request that has nothing but ``value`` in this place."""
        for step in reversed(self.path):
            value = {step.name: value}
            for kind in reversed(step.collections):
                value = [value] if kind == "list" else {"abc": value}
        assert isinstance(value, dict)
        return value

    @property
    def status(self) -> str:
        """What happens to it."""
        names = self.names
        for count in range(len(names)):
            place = ".".join((self.operation, *names[:count]))
            unserved = UNSERVED.get(place, {}).get(names[count])
            if unserved is not None:
                return f"refused{unserved.but or unserved.note}"
        try:
            check(self.operation, self.within(self.wrong), deep=True)
        except SerializationError:
            return SERVED
        return IGNORED

    @property
    def wrong(self) -> Any:
        """A value of a type that is not its own."""
        return 1 if self.shape.type_name in ("string", "boolean", "blob") else "x"


class Step(NamedTuple):
    """One name of a path."""

    name: str
    shape: Any
    collections: tuple[str, ...]
    """The lists and maps above the structure whose member it is, outermost first."""


@functools.cache
def model() -> ServiceModel:
    """The model of botocore."""
    return ServiceModel(Loader().load_service_model("dynamodb", "service-2"))


def parameters(operation: str) -> list[Parameter]:
    """The parameters of an operation; attribute values are not looked into."""
    shape = model().operation_model(operation).input_shape
    return [Parameter(operation, path) for path in _paths(shape, ())]


def top_level(operation: str) -> list[Parameter]:
    """The members of its request."""
    return [one for one in parameters(operation) if len(one.path) == 1]


def statuses() -> dict[str, list[Parameter]]:
    """The parameters of each operation of the API; of one that is not served, none."""
    return {name: parameters(name) if name in OPERATIONS else [] for name in model().operation_names}


def _paths(shape: Any, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    collections: tuple[str, ...] = ()
    while shape.type_name in ("list", "map"):
        collections = (*collections, shape.type_name)
        shape = shape.member if shape.type_name == "list" else shape.value
    if shape.type_name != "structure" or shape.name == "AttributeValue" or len(path) > 6:
        return
    for name, member in shape.members.items():
        step = Step(name, member, collections)
        yield (*path, step)
        yield from _paths(member, (*path, step))
