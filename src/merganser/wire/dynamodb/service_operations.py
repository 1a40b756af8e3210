"""Operations that tell of the service itself, which tools ask for: limits, endpoints, backups.

Nothing here limits an account or a table, and there are no backups yet: the limits are those that DynamoDB gives
every account, and backups are described as switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from merganser.wire.dynamodb.arns import name_of
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import TABLE_NOT_FOUND, ApiError, NotFoundError
from merganser.wire.dynamodb.session import Session

LIMITS: Final[Mapping[str, int]] = {
    "AccountMaxReadCapacityUnits": 80_000,
    "AccountMaxWriteCapacityUnits": 80_000,
    "TableMaxReadCapacityUnits": 40_000,
    "TableMaxWriteCapacityUnits": 40_000,
}
ENDPOINT_MINUTES: Final = 1440


class ServiceOperations:
    """What is the same for every table, or said of each; see the module's docstring."""

    def __init__(self, *, host: str) -> None:
        """Be reached at ``host``, host:port."""
        self._host = host

    async def describe_limits(self, session: Session, request: dict[str, Any]) -> bytes:
        """Tell the limits of throughput."""
        return orjson.dumps(LIMITS)

    async def describe_endpoints(self, session: Session, request: dict[str, Any]) -> bytes:
        """Tell where this node is reached."""
        return orjson.dumps({"Endpoints": [{"Address": self._host, "CachePeriodInMinutes": ENDPOINT_MINUTES}]})

    async def describe_continuous_backups(self, session: Session, request: dict[str, Any]) -> bytes:
        """Tell that there are none."""
        violations = Violations()
        violations.table_name(request)
        violations.settle()
        try:
            await session.table_in_any_state(request["TableName"])
        except NotFoundError:
            raise ApiError(TABLE_NOT_FOUND, f"Table not found: {name_of(request['TableName'])}") from None
        return orjson.dumps(
            {
                "ContinuousBackupsDescription": {
                    "ContinuousBackupsStatus": "DISABLED",
                    "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
                }
            }
        )
