"""The settings of a table that CreateTable and UpdateTable both take: what is accepted, kept, and described.

=====================  ====================================================================================
ProvisionedThroughput  kept, described, and enforced if the table asks for it
OnDemandThroughput     the same, for tables on demand
WarmThroughput         kept and described: there is nothing that has to be warmed
SSESpecification       kept and described: what encrypts the disk is the operator's choice
TableClass             kept and described
=====================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.stream_settings import check_stream, find_stream_violations

UNITS_MAX: Final = 1_000_000_000_000
INVALID: Final = "One or more parameter values were invalid: "
NO_UNITS_ON_DEMAND: Final = (
    f"{INVALID}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
)
_UNLIMITED: Final = -1
_DAY_MS: Final = 86_400_000
_UNIT_NAMES: Final = ("ReadCapacityUnits", "WriteCapacityUnits")
_WARM_NAMES: Final = ("ReadUnitsPerSecond", "WriteUnitsPerSecond")
_WARM_ON_DEMAND: Final = (12_000, 4_000)
"""What every new table on demand, and every index of one, bears. Source: Developer Guide, "Warm throughput"."""


class Throughput(msgspec.Struct, frozen=True):
    """Provisioned capacity."""

    read_units: int
    write_units: int
    increased_ms: int | None = None
    """When either was increased last, in milliseconds since 1970."""
    decreased_ms: int | None = None
    decreases: int = 0
    """On the day (UTC) of the last one."""

    def changed_to(self, read_units: int, write_units: int, *, now_ms: int) -> Throughput:
        """Return what it is after an update."""
        increases = read_units > self.read_units or write_units > self.write_units
        decreases = read_units < self.read_units or write_units < self.write_units
        return Throughput(
            read_units,
            write_units,
            increased_ms=now_ms if increases else self.increased_ms,
            decreased_ms=now_ms if decreases else self.decreased_ms,
            decreases=self.decreases_today(now_ms) + decreases,
        )

    def decreases_today(self, now_ms: int) -> int:
        """Return how often it was decreased since midnight, UTC."""
        is_today = self.decreased_ms is not None and self.decreased_ms // _DAY_MS == now_ms // _DAY_MS
        return self.decreases if is_today else 0

    def described(self, now_ms: int, was: Throughput | None = None) -> dict[str, Any]:
        """Return its ProvisionedThroughputDescription; if it ``was`` another until now, that one's with new dates."""
        told = was or self
        dates = {"LastIncreaseDateTime": self.increased_ms, "LastDecreaseDateTime": self.decreased_ms}
        return {
            **{name: at_ms / 1000 for name, at_ms in dates.items() if at_ms is not None},
            "NumberOfDecreasesToday": told.decreases_today(now_ms),
            "ReadCapacityUnits": told.read_units,
            "WriteCapacityUnits": told.write_units,
        }


ON_DEMAND: Final = Throughput(0, 0)
"""What is described of a table that has none."""


class OnDemandLimits(msgspec.Struct, frozen=True):
    """The most that a table on demand may take a second; None: as much as there is."""

    read_units: int | None = None
    write_units: int | None = None


class WarmThroughput(msgspec.Struct, frozen=True):
    """What the table is to bear at once, where it was asked for; None: what any table like it bears."""

    read_units: int | None = None
    write_units: int | None = None


class Encryption(msgspec.Struct, frozen=True):
    """A key of the client's is named for the table."""

    key: str | None = None
    """KMSMasterKeyId, as it was given; None: the default key."""

    def described(self, *, region: str, account: str) -> dict[str, Any]:
        """Return its SSEDescription."""
        key = self.key or "alias/aws/dynamodb"
        if not key.startswith("arn:"):
            key = f"arn:aws:kms:{region}:{account}:{key if key.startswith('alias/') else f'key/{key}'}"
        return {"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key}


class TimeToLive(msgspec.Struct, frozen=True):
    """By which attribute items expire."""

    attribute: str
    unique_id: str
    """A UUID drawn when it was switched on."""


class TimeToLiveChange(msgspec.Struct, frozen=True):
    """Time to live was switched on or off, which is described as under way until a time."""

    status: Literal["ENABLING", "DISABLING"]
    attribute: str
    until_ms: int
    """Milliseconds since 1970."""


def find_violations(violations: Violations, request: Mapping[str, Any]) -> None:
    """Add what is wrong with the settings by the API's model."""
    violations.enums(request, "BillingMode", "TableClass")
    throughput_violations(violations, request.get("ProvisionedThroughput"), "provisionedThroughput.")
    find_stream_violations(violations, request)
    encryption = request.get("SSESpecification")
    if encryption is not None:
        violations.enum(encryption, "SSEType", "sSESpecification.")


def throughput_violations(violations: Violations, units: Mapping[str, Any] | None, prefix: str) -> None:
    """Add what is wrong with a ProvisionedThroughput."""
    for name in _UNIT_NAMES if units is not None else ():
        violations.required(units or {}, name, prefix)
        violations.between(units or {}, name, least=1, prefix=prefix)


def check_units(units: Mapping[str, Any]) -> None:
    """Check the bounds of a ProvisionedThroughput.

    Raises:
        ValidationError: more than any table can have.
    """
    for name in _UNIT_NAMES:
        if units[name] > UNITS_MAX:
            raise ValidationError(f"Given value {int(units[name])} for {name} is out of bounds")


def unchanged(units: Throughput, what: str, kind: str) -> ValidationError:
    """Return what is said of an update to units that are provisioned already.

    Args:
        units: as they are.
        what: is said to have them.
        kind: table or index.
    """
    told = " ".join(
        f"Current {name} provisioned for the {kind}: {amount}. Requested {name}: {amount}."
        for name, amount in zip(_UNIT_NAMES, (units.read_units, units.write_units), strict=True)
    )
    return ValidationError(
        f"The provisioned throughput for the {what} will not change. The requested value equals the current value. "
        f"{told} Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."
    )


def units_of(request: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the units that a checked request asks for, None if it does not say."""
    units = request.get("ProvisionedThroughput")
    return None if units is None else (int(units["ReadCapacityUnits"]), int(units["WriteCapacityUnits"]))


def check_settings(request: Mapping[str, Any]) -> None:
    """Check the settings besides the billing mode, whatever the table is.

    Raises:
        ValidationError: one makes no sense.
    """
    check_stream(request)
    encryption = request.get("SSESpecification")
    if encryption is not None:
        _check_encryption(encryption)
    for limits, names in (
        (request.get("OnDemandThroughput"), ("MaxReadRequestUnits", "MaxWriteRequestUnits")),
        (request.get("WarmThroughput"), _WARM_NAMES),
    ):
        if limits is not None:
            _check_limits(limits, names)


def check_on_demand_limits(request: Mapping[str, Any], *, is_on_demand: bool) -> None:
    """Check that limits are for a table on demand.

    Raises:
        ValidationError: they are for another one.
    """
    if request.get("OnDemandThroughput") is not None and not is_on_demand:
        raise ValidationError(f"{INVALID}OnDemandThroughput can only be specified when BillingMode is PAY_PER_REQUEST")


def encryption_of(request: Mapping[str, Any], before: Encryption | None) -> Encryption | None:
    """Return the encryption that a checked request asks for, ``before`` if it does not say."""
    asked = request.get("SSESpecification")
    if asked is None:
        return before
    return Encryption(asked.get("KMSMasterKeyId")) if asked.get("Enabled") else None


def on_demand_limits_of(request: Mapping[str, Any], before: OnDemandLimits | None) -> OnDemandLimits | None:
    """Return the limits that a checked request asks for; what it does not name stays as ``before``."""
    asked = request.get("OnDemandThroughput")
    if asked is None:
        return before
    kept = before or OnDemandLimits()
    read, write = asked.get("MaxReadRequestUnits"), asked.get("MaxWriteRequestUnits")
    limits = OnDemandLimits(
        read_units=kept.read_units if read is None else _limit(read),
        write_units=kept.write_units if write is None else _limit(write),
    )
    return None if limits == OnDemandLimits() else limits


def warm_throughput_of(request: Mapping[str, Any], before: WarmThroughput | None) -> WarmThroughput | None:
    """Return the warm throughput that a checked request asks for; what it does not name stays as ``before``."""
    asked = request.get("WarmThroughput")
    if asked is None:
        return before
    kept = before or WarmThroughput()
    read, write = (asked.get(name) for name in _WARM_NAMES)
    return WarmThroughput(
        read_units=kept.read_units if read is None else int(read),
        write_units=kept.write_units if write is None else int(write),
    )


def check_warmth(
    request: Mapping[str, Any], what: str, *, throughput: Throughput | None, before: WarmThroughput | None
) -> None:
    """Check that what a table or index bears at once is not to become less.

    Args:
        request: checked otherwise.
        what: is asked to bear it.
        throughput: of it, after the request; None: PAY_PER_REQUEST.
        before: what was asked for until now.

    Raises:
        ValidationError: it bears more than is asked for.
    """
    asked = request.get("WarmThroughput") or {}
    kept = before or WarmThroughput()
    for name, units, unit_name, current in zip(
        _WARM_NAMES, _initial_warmth(throughput), _UNIT_NAMES, (kept.read_units, kept.write_units), strict=True
    ):
        wanted = asked.get(name)
        if wanted is None or wanted >= max(units, current or 0):
            continue
        bound = "initial throughput for OnDemand" if throughput is None else f"{unit_name} of ProvisionedThroughput"
        if wanted >= units:
            bound = "current WarmThroughput, decreasing WarmThroughput is not supported"
        raise ValidationError(f"{INVALID}Requested {name} for WarmThroughput for {what} is lower than {bound}")


def described_limits(limits: OnDemandLimits) -> dict[str, Any]:
    """Return an OnDemandThroughput as it is described."""
    return {
        "MaxReadRequestUnits": _UNLIMITED if limits.read_units is None else limits.read_units,
        "MaxWriteRequestUnits": _UNLIMITED if limits.write_units is None else limits.write_units,
    }


def described_warmth(warm: WarmThroughput | None, throughput: Throughput | None, status: str) -> dict[str, Any]:
    """Return what a table or index bears at once, as it is described of every one.

    Args:
        warm: what was asked for.
        throughput: None: PAY_PER_REQUEST.
        status: of the table or index.
    """
    is_settled = status in ("ACTIVE", "DELETING")
    units = dict(zip(_WARM_NAMES, _warmth(warm, throughput), strict=True))
    return {**units, "Status": "ACTIVE" if is_settled else "UPDATING"}


def _warmth(warm: WarmThroughput | None, throughput: Throughput | None) -> tuple[int, int]:
    read, write = _initial_warmth(throughput)
    asked = warm or WarmThroughput()
    return max(read, asked.read_units or 0), max(write, asked.write_units or 0)


def _initial_warmth(throughput: Throughput | None) -> tuple[int, int]:
    return _WARM_ON_DEMAND if throughput is None else (throughput.read_units, throughput.write_units)


def _limit(units: float) -> int | None:
    return None if int(units) == _UNLIMITED else int(units)


def _check_encryption(encryption: Mapping[str, Any]) -> None:
    if encryption.get("SSEType") == "AES256":
        raise ValidationError(f"{INVALID}SSEType AES256 is not supported")
    others = [name for name in ("SSEType", "KMSMasterKeyId") if encryption.get(name) is not None]
    if others and not encryption.get("Enabled"):
        raise ValidationError(f"{INVALID}{others[0]} can only be specified when Enabled is true")


def _check_limits(limits: Mapping[str, Any], names: tuple[str, str]) -> None:
    given = [name for name in names if limits.get(name) is not None]
    if not given:
        raise ValidationError(f"{INVALID}At least one of {names[0]} or {names[1]} must be specified")
    can_be_lifted = names[0].startswith("Max")
    for name in given:
        if can_be_lifted and limits[name] == _UNLIMITED:
            continue
        if not 1 <= limits[name] <= UNITS_MAX:
            raise ValidationError(f"{INVALID}Given value {int(limits[name])} for {name} is out of bounds")
