"""Amazon resource names of tables, which clients may use wherever a table is named.

Whoever asks is let in by a key, not by an account, so the account and the region of an ARN say nothing: those
that DescribeTable tells have always the same account and the region that the request is signed for, and an ARN from a
client's own configuration names the same table.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = "[a-zA-Z0-9_.-]{3,255}"
_TABLE = re.compile(rf"arn:aws[a-z-]*:dynamodb:[^:]+:\d+:table/({_NAME})").fullmatch
_RESOURCE = re.compile(r".+:.+:.+:.+:.+:.+/.+", re.DOTALL).fullmatch
_PREFIX: Final = "arn:"


def table_arn(name: str, *, region: str, account: str) -> str:
    """Return the ARN of a table."""
    return f"arn:aws:dynamodb:{region}:{account}:table/{name}"


def table_in(arn: str) -> str | None:
    """Return the name of the table that an ARN names, None if it names none."""
    found = _TABLE(arn) if arn.startswith(_PREFIX) else None
    return None if found is None else found[1]


def name_of(table: str) -> str:
    """Return the name of a table that a client named in either way."""
    return table_in(table) or table


def is_resource(arn: str) -> bool:
    """Tell whether this looks like the ARN of anything at all."""
    return _RESOURCE(arn) is not None
