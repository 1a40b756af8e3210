"""Write docs/dynamodb-compatibility.md: every operation and parameter of DynamoDB's API, and what is done with it.

    PYTHONPATH=tests .venv/bin/python -m wire.dynamodb.compatibility

The API is botocore's model of it. What is done with a parameter is asked of the tables that the request path reads:
`wire/dynamodb/unserved.py` and `wire/dynamodb/shapes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from merganser.wire.dynamodb.shapes import OPERATIONS
from wire.dynamodb.api import IGNORED, SERVED, Parameter, model, parameters

PAGE = Path(__file__).parents[3] / "docs" / "dynamodb-compatibility.md"

_HEAD = """\
# Compatibility with DynamoDB

Every operation and parameter of DynamoDB's API, version {version}, and what Merganser does with it. This page is
written by `{command}`
from the tables that requests are checked with and the SDK's model of the API; a test fails when it is out of date.
What else there is to know: [dynamodb-support.md](dynamodb-support.md).

- *served*: as by DynamoDB, as far as that page does not say otherwise.
- *refused*: a `ValidationException` names the parameter. What is served of it all the same follows.
- *not served*: the operation is answered with an `UnknownOperationException` that names it.

Members that the API does not have are ignored, as DynamoDB ignores them. The members of a parameter, or of the
elements of a list or map, follow it after a dot. Attribute values are served whole.
"""
_COMMAND = "PYTHONPATH=tests .venv/bin/python -m wire.dynamodb.compatibility"


def page() -> str:
    """Return the text of the page."""
    lines = [_HEAD.format(version=model().api_version, command=_COMMAND), *_operations(), ""]
    for name in sorted(OPERATIONS):
        lines += [*_parameters(name), ""]
    return "\n".join(lines[:-1]) + "\n"


def _operations() -> Iterator[str]:
    served = [name for name in model().operation_names if name in OPERATIONS]
    others = [name for name in model().operation_names if name not in OPERATIONS]
    yield f"## Operations\n\n{len(served)} of {len(model().operation_names)} are served.\n"
    yield "| operation | status | refused parameters |\n|---|---|---|"
    for name in sorted(served):
        refused = [parameter for parameter in parameters(name) if _is_refused(parameter)]
        yield f"| [{name}](#{name.lower()}) | served | {', '.join(map(_shown, _outermost(refused)))} |"
    for name in sorted(others):
        yield f"| {name} | not served | |"


def _parameters(operation: str) -> Iterator[str]:
    yield f"## {operation}\n"
    all_of_it = parameters(operation)
    if not all_of_it:
        yield "Has no parameters."
        return
    yield "| parameter | status |\n|---|---|"
    hidden: list[tuple[str, ...]] = []
    for parameter in all_of_it:
        names = parameter.names
        if any(names[: len(above)] == above for above in hidden):
            continue
        status = parameter.status
        if status != SERVED:
            hidden.append(names)
        yield f"| {_shown(parameter)} | {status} |"


def _is_refused(parameter: Parameter) -> bool:
    return parameter.status not in (SERVED, IGNORED)


def _outermost(refused: Sequence[Parameter]) -> list[Parameter]:
    names = {parameter.names for parameter in refused}
    return [one for one in refused if not any(one.names[:count] in names for count in range(1, len(one.names)))]


def _shown(parameter: Parameter) -> str:
    return ".".join(parameter.names)


if __name__ == "__main__":
    PAGE.write_text(page())
