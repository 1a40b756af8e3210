"""What an operator can set, and where it may be set.

A setting given on the command line wins over the environment (MERGANSER_DYNAMODB_PORT), which wins
over the file (TOML, ``dynamodb_port = 8000``), which wins over the default. Unknown names and values
of the wrong kind are errors, never ignored.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from merganser.core import policies
from merganser.model import versions
from merganser.model.errors import ConfigurationError
from merganser.net.http_limits import HttpLimits
from merganser.node.environment import PREFIX as ENVIRONMENT_PREFIX
from merganser.service.anti_entropy import REPAIR_INTERVAL_S
from merganser.service.member import CLOCK_SKEW_MAX_S
from merganser.service.purger import PURGE_INTERVAL_S
from merganser.service.scrubber import SCRUB_INTERVAL_S

PARTITIONS_DEFAULT = 256
PARTITIONS_ALONE = 4
"""Of a node in memory that is its whole cluster: a table, a scan and a clean slate cost more with every partition."""
DISK_RESERVE_MIB = 512
"""What may be written until a shortage is noticed (1.5 s of a fast disk), a log and memtables of 64 MiB each, and room
for RocksDB to free room."""
PURGE_INTERVAL_S_MIN = 60.0
"""What is younger than the bound on clock skew is never purged."""
REPAIR_INTERVAL_S_MIN = 1.0
"""A comparison of 256 equal partitions with two peers is some 500 questions."""
SCRUB_INTERVAL_S_MIN = 60.0
"""More often, and the scrub is all that the disk does."""
PROCESSES_MAX = 64
"""Far beyond the cores of one machine that this would still serve well, and below the distance of the default ports."""
TABLE_DELAY_MS_MAX = 3_600_000
"""As long as DynamoDB takes at most to switch time to live on; more is a mistake in the unit."""
_SKEWS_S = (1.0, 20.0)
"""Below, a turn of the loop counts; above, timestamps that one node may still mint are refused by another."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one node."""

    data: str | None = None
    """Directory that holds the node's identity and data, made if absent."""
    ephemeral: bool = False
    """Keep everything in memory and forget it at the end."""
    host: str = "127.0.0.1"
    """Address to listen on, for clients and peers."""
    advertise_host: str = ""
    """Host that others are told to use for this node; none: ``host``."""
    peer_advertise: str = ""
    """host:port that other nodes use for this one's peer port; none: that port on the host they are told to use."""
    dynamodb_port: int = 8000
    peer_port: int = 7700
    admin_port: int = 7800
    """Ports; 0 picks a free one (not for peers of a cluster of several nodes, who must know it). If DynamoDB's is 0, so
    are those of the other two that are not given."""
    zone: str = ""
    """Failure domain of this node, for example its rack."""
    data_center: str = ""
    """Data centre of this node, for good; zones are parts of one."""
    machine: str = ""
    """Name of the machine, if several nodes run on it: replicas share it only when there is no other."""
    processes: int = 1
    """How many nodes to run behind ``dynamodb_port``, one for each core; their other ports count up."""
    seed: tuple[str, ...] = ()
    """Advertised host:port for peers of every node of a new cluster, this one among them; none: a cluster of one.
    With several processes: that of the first on each machine, each machine having as many."""
    join: str = ""
    """host:port for peers of any member of the cluster that this node joins; not together with ``seed``. With several
    processes, all join there."""
    no_auth: bool = False
    """Accept unsigned requests."""
    access_keys: dict[str, str] = {}
    """Secret by access key id; signatures are checked against them. None: any signature will do."""
    purge_interval_s: float = PURGE_INTERVAL_S
    """How often each partition drops the tombstones, and what has expired, that all replicas know of."""
    repair_interval_s: float = REPAIR_INTERVAL_S
    """How often each two replicas compare every partition that both hold, and become equal."""
    scrub_interval_s: float = SCRUB_INTERVAL_S
    """How often every row on this node's disk is read and its checksum checked."""
    partitions: int = PARTITIONS_DEFAULT
    """Q of a cluster that is founded now, a power of two; 4 if not given for a node that is alone and in memory."""
    connections_max: int = HttpLimits().connections_max
    """Connections of DynamoDB clients open at once."""
    disk_reserve_mib: int = DISK_RESERVE_MIB
    """MiB of the data disk that are kept free: with less left the node takes no more rows; 0: none."""
    clock_skew_max_s: float = CLOCK_SKEW_MAX_S
    """How far this node's clock may be from the median of its peers' before it takes no more writes from clients."""

    peer_protocol_max: int = versions.NEWEST
    """Newest version to speak with other nodes; what an earlier release spoke, to hold a node back."""

    table_delay_ms: int = 0
    """How long tables are CREATING, UPDATING and DELETING where this node takes the request; 0: not at all."""

    def advertised(self, port: int) -> str:
        """Return host:port under which clients find the door that listens on ``port``."""
        return f"{self.advertise_host or self.host}:{port}"

    def advertised_to_peers(self, port: int) -> str:
        """Return host:port under which other nodes find this one, whose peer port is ``port``."""
        return self.peer_advertise or self.advertised(port)


def load_settings(given: Mapping[str, object], *, environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Return the settings that the three sources amount to, checked.

    Args:
        given: from the command line; a value of None means not given.
        environment: usually os.environ.
        file: TOML.

    Raises:
        ConfigurationError: says which setting is wrong and what to do.
    """
    merged: dict[str, object] = {}
    if file is not None:
        merged.update(_from_file(file))
    merged.update(_from_environment(environment))
    merged.update({name: value for name, value in given.items() if value is not None})
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"bad setting: {error}") from None
    settings = _completed(settings, merged)
    _check(settings)
    return settings


def _completed(settings: Settings, merged: Mapping[str, object]) -> Settings:
    """Return ``settings`` with the defaults that depend on other settings."""
    defaults: dict[str, int] = {}
    if settings.dynamodb_port == 0:
        defaults |= {"peer_port": 0, "admin_port": 0}
    if settings.ephemeral and not settings.seed and not settings.join and settings.processes == 1:
        defaults["partitions"] = PARTITIONS_ALONE
    return msgspec.structs.replace(settings, **{name: v for name, v in defaults.items() if name not in merged})


def _from_file(file: Path) -> dict[str, object]:
    try:
        found = tomllib.loads(file.read_text())
        msgspec.convert(found, Settings)
    except OSError as error:
        raise ConfigurationError(f"--config {file}: {error.strerror or error}: name a file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {file} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        known = ", ".join(Settings.__struct_fields__)
        raise ConfigurationError(f"--config {file}: {error}; the settings are {known}") from None
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX) or name in _NOT_SETTINGS:
            continue
        if name not in Settings.__struct_fields__:
            known = ", ".join(ENVIRONMENT_PREFIX + field.upper() for field in Settings.__struct_fields__)
            raise ConfigurationError(f"{variable} is set, but there is no such setting; there are {known}")
        found[name] = _PARSERS.get(name, str)(text)
        try:
            msgspec.convert({name: found[name]}, Settings, strict=False)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at")[0]
            raise ConfigurationError(f"{variable} is {text!r}: {reason}: change it or unset it") from None
    return found


def _parse_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_pairs(text: str) -> dict[str, str]:
    pairs = [part.partition(":") for part in _parse_list(text)]
    if not all(separator for _, separator, _ in pairs):
        raise ConfigurationError(f"{ENVIRONMENT_PREFIX}ACCESS_KEYS must be KEY:SECRET,KEY:SECRET")
    return {key: secret for key, _, secret in pairs}


_PARSERS = {"seed": _parse_list, "access_keys": _parse_pairs}
_NOT_SETTINGS = frozenset({"soak", "config", "admin"})
"""Variables that are read elsewhere."""


def _check(settings: Settings) -> None:
    if settings.ephemeral == (settings.data is not None):
        raise ConfigurationError("say where the data lives: either --data DIR (kept) or --ephemeral (in memory, lost)")
    if settings.data == "":
        raise ConfigurationError("--data is empty: name a directory")
    for name in ("dynamodb_port", "peer_port", "admin_port"):
        port = getattr(settings, name)
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be 0 to 65535, not {port}")
    if settings.data_center:
        try:
            policies.check_name("data centre", settings.data_center)
        except ValueError as error:
            raise ConfigurationError(f"--data-center: {error}") from None
    if settings.partitions < 1 or settings.partitions & (settings.partitions - 1):
        raise ConfigurationError(f"partitions must be a power of two, not {settings.partitions}")
    if not 1 <= settings.processes <= PROCESSES_MAX:
        raise ConfigurationError(f"processes must be 1 to {PROCESSES_MAX}, not {settings.processes}")
    nodes = max(1, len(settings.seed)) * settings.processes
    if settings.partitions < nodes:
        raise ConfigurationError(
            f"partitions must be at least as many as there are nodes, {nodes}, not {settings.partitions}: "
            "a node without a partition holds no replicas"
        )
    if settings.connections_max < 1:
        raise ConfigurationError(f"connections_max must be 1 or more, not {settings.connections_max}")
    if not 0 <= settings.table_delay_ms <= TABLE_DELAY_MS_MAX:
        raise ConfigurationError(f"table_delay_ms must be 0 to {TABLE_DELAY_MS_MAX}, not {settings.table_delay_ms}")
    if not versions.OLDEST <= settings.peer_protocol_max <= versions.NEWEST:
        raise ConfigurationError(
            f"peer_protocol_max must be {versions.OLDEST} to {versions.NEWEST}, not {settings.peer_protocol_max}"
        )
    if settings.disk_reserve_mib < 0:
        raise ConfigurationError(f"disk_reserve_mib must be 0 or more, not {settings.disk_reserve_mib}")
    if not _SKEWS_S[0] <= settings.clock_skew_max_s <= _SKEWS_S[1]:
        least, most = _SKEWS_S
        raise ConfigurationError(f"clock_skew_max_s must be {least:g} to {most:g}, not {settings.clock_skew_max_s:g}")
    if not PURGE_INTERVAL_S_MIN <= settings.purge_interval_s < float("inf"):
        raise ConfigurationError(
            f"purge_interval_s must be at least {PURGE_INTERVAL_S_MIN:g}, not {settings.purge_interval_s:g}"
        )
    if not REPAIR_INTERVAL_S_MIN <= settings.repair_interval_s < float("inf"):
        raise ConfigurationError(
            f"repair_interval_s must be at least {REPAIR_INTERVAL_S_MIN:g}, not {settings.repair_interval_s:g}"
        )
    if not SCRUB_INTERVAL_S_MIN <= settings.scrub_interval_s < float("inf"):
        raise ConfigurationError(
            f"scrub_interval_s must be at least {SCRUB_INTERVAL_S_MIN:g}, not {settings.scrub_interval_s:g}"
        )
    _check_advertised(settings)
    if settings.join:
        _check_join(settings)
    for seed in settings.seed:
        _check_address("seed", seed)
    own = settings.advertised_to_peers(settings.peer_port)
    is_own_known = bool(settings.peer_port or settings.peer_advertise)
    if settings.seed and is_own_known and own not in settings.seed:
        raise ConfigurationError(
            f"--seed lists {', '.join(settings.seed)}, but the peer address of this node is {own}: give every node of "
            "the new cluster the same seeds, its own address among them"
        )
    if not settings.no_auth and not settings.access_keys and not is_loopback(settings.host):
        raise ConfigurationError(
            f"--host {settings.host} can be reached from other machines and no access keys are set, so anyone could "
            "read and write: set access_keys in the --config file (or MERGANSER_ACCESS_KEYS=KEY:SECRET), "
            "or say --no-auth"
        )


def _check_advertised(settings: Settings) -> None:
    if settings.peer_advertise:
        _check_address("peer-advertise", settings.peer_advertise)
    for name, host in (
        ("advertise-host", settings.advertise_host),
        ("peer-advertise", settings.peer_advertise.rpartition(":")[0]),
    ):
        if is_wildcard(host):
            raise ConfigurationError(f"--{name} names {host}, which nobody can connect to: name this node's address")
    if settings.advertise_host.count(":") == 1:  # an IPv6 address has two at least
        raise ConfigurationError(f"--advertise-host is a host without a port, not {settings.advertise_host!r}")
    if (settings.seed or settings.join) and is_wildcard(settings.host) and not settings.advertise_host:
        raise ConfigurationError(
            f"--host {settings.host} listens on every address, which tells the other nodes none: "
            "say with --advertise-host under which of them this node is reached"
        )


def _check_join(settings: Settings) -> None:
    _check_address("join", settings.join)
    if settings.seed:
        raise ConfigurationError(
            "--join is for a cluster that exists and --seed for one that is founded now: say one of the two"
        )


def _check_address(option: str, address: str) -> None:
    host, _, port_text = address.rpartition(":")
    if not host or not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text) <= 65535:
        raise ConfigurationError(f"--{option} must be HOST:PORT with a port from 1 to 65535, not {address!r}")


def is_wildcard(host: str) -> bool:
    """Tell whether ``host`` stands for every address of the machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
