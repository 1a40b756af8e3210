"""docs/dynamodb-compatibility.md says what the code does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.wire.dynamodb import operations, shapes
from merganser.wire.dynamodb.shapes import OPERATIONS, check
from wire.dynamodb.api import IGNORED, SERVED, Parameter, parameters, top_level
from wire.dynamodb.compatibility import PAGE, page
from wire.dynamodb.fakes import Cluster
from wire.dynamodb.test_support import BASES, sample

REFUSAL = " is not supported yet by Merganser"


def test_the_page_is_what_its_command_writes() -> None:
    assert PAGE.read_text() == page(), "run PYTHONPATH=tests .venv/bin/python -m wire.dynamodb.compatibility"


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_no_parameter_is_ignored(operation: str) -> None:
    assert not [one.names[0] for one in parameters(operation) if one.status == IGNORED]


class Watched(dict[str, Any]):
    """A request that notes which of its members were looked at."""

    def __init__(self, members: dict[str, Any]) -> None:
        super().__init__(members)
        self.seen: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.seen.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_what_is_served_is_looked_at_and_what_is_refused_is_refused_by_name(
    cluster: Cluster, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[Watched] = []

    def parsed(body: bytes) -> Watched:
        watched.append(Watched(orjson.loads(body)))
        return watched[-1]

    def checked(operation: str, request: dict[str, Any], *, deep: bool) -> None:
        check(operation, dict(request), deep=deep)  # which looks at everything

    monkeypatch.setattr(operations, "_parsed", parsed)
    monkeypatch.setattr(shapes, "check", checked)
    for parameter in top_level(operation):
        name = parameter.names[0]
        answer = cluster.fault_or_none(operation, asking_for(parameter))
        told = "" if answer is None else answer.message
        if parameter.status == SERVED:
            assert REFUSAL not in told, name
            assert name in watched[0].seen, name
        else:
            assert told.startswith(name), name
            assert told.endswith(REFUSAL), name
        watched.clear()


def asking_for(parameter: Parameter) -> dict[str, Any]:
    name = parameter.names[0]
    base = BASES[parameter.operation]
    return base if name in base else {**base, name: sample(parameter.shape)}
