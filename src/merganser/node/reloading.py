"""Read the settings again while a node serves, and go by them: all that have changed, or none.

    load --what has changed?--> nothing | all of it can be taken over: taken over | some needs a restart: refused, whole

They come from where they came when the node was started: the command line, the environment, and the file, which is read
anew. What is wrong there is refused as at a start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from merganser.model.errors import ConfigurationError
from merganser.net.http import HttpServer
from merganser.node.settings import Settings, load_settings
from merganser.service.member import Member
from merganser.storage.rocks import RocksEngine

TAKEN_OVER: Final = (
    "access_keys",
    "no_auth",
    "connections_max",
    "disk_reserve_mib",
    "clock_skew_max_s",
    "purge_interval_s",
    "repair_interval_s",
    "scrub_interval_s",
)
"""What can change while a node serves. All else was told to others, or is how its files and ports were opened."""


class Sources(msgspec.Struct, frozen=True):
    """Where the settings of a node come from."""

    given: dict[str, object] = {}
    """On the command line; None: not given."""
    file: str | None = None

    def load(self, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings as they are by now.

        Raises:
            ConfigurationError: they are wrong; says what.
        """
        return load_settings(self.given, environment=environment, file=None if self.file is None else Path(self.file))


class Change(msgspec.Struct, frozen=True):
    """One setting that is another, as operators see it: secrets are never told."""

    name: str
    before: str
    after: str


class Reloading:
    """The settings of one node, as they were read last."""

    def __init__(self, loaded: Settings, load: Callable[[], Settings]) -> None:
        """Compare with ``loaded`` what ``load`` returns."""
        self._loaded = loaded
        self._load = load

    def read(self) -> tuple[Settings, Sequence[Change]]:
        """Return the settings as they are by now, and what has changed since they were taken over last.

        Raises:
            ConfigurationError: they are wrong, or some of what has changed needs a restart.
        """
        wanted = self._load()
        changes = changed(self._loaded, wanted)
        fixed = [change for change in changes if change.name not in TAKEN_OVER]
        if fixed:
            told = "; ".join(f"{one.name} is {one.before}, and was to be {one.after}" for one in fixed)
            raise ConfigurationError(
                f"nothing was changed, as this needs a restart: {told}. Without one a node takes over "
                f"{', '.join(TAKEN_OVER)}"
            )
        return wanted, changes

    def taken_over(self, settings: Settings) -> None:
        """Compare with these from now on."""
        self._loaded = settings


def changed(before: Settings, after: Settings) -> list[Change]:
    """Return what is another, in the order of the settings."""
    return [
        Change(name, *_told(name, getattr(before, name), getattr(after, name)))
        for name in Settings.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    ]


def with_taken_over(settings: Settings, wanted: Settings) -> Settings:
    """Return the settings of a node with what can be taken over of ``wanted``."""
    return msgspec.structs.replace(settings, **{name: getattr(wanted, name) for name in TAKEN_OVER})


def take_over(settings: Settings, member: Member, door: HttpServer | None) -> None:
    """Have a member, and the door of clients, go by ``settings``; keys are the application's."""
    member.clock_watch.allow(settings.clock_skew_max_s)
    member.purger.interval_s = settings.purge_interval_s
    member.scrubber.interval_s = settings.scrub_interval_s
    member.anti_entropy.every(settings.repair_interval_s)
    member.leader_repair.led_repair.every(settings.repair_interval_s)
    if isinstance(member.engine, RocksEngine):
        member.engine.keep_free(settings.disk_reserve_mib * 2**20)
    if door is not None:
        door.limits = msgspec.structs.replace(door.limits, connections_max=settings.connections_max)


def _told(name: str, before: object, after: object) -> tuple[str, str]:
    if not isinstance(before, dict) or not isinstance(after, dict) or name != "access_keys":
        return _shown(before), _shown(after)
    other = sorted(key for key in before.keys() & after.keys() if before[key] != after[key])
    note = f" (another secret: {', '.join(other)})" if other else ""
    return _shown(sorted(before)), _shown(sorted(after)) + note


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
