"""Settings that are read again: what has changed, and what of it a node can take over."""

from __future__ import annotations

from pathlib import Path

import pytest

from merganser.model.errors import ConfigurationError
from merganser.node.reloading import TAKEN_OVER, Change, Reloading, Sources, changed, with_taken_over
from merganser.node.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "merganser.toml"
    path.write_text('ephemeral = true\nzone = "a"\nconnections_max = 100\n[access_keys]\nA = "s"\nB = "t"\n')
    return path


def reloading(file: Path, **given: object) -> Reloading:
    sources = Sources(given, str(file))
    return Reloading(sources.load({}), lambda: sources.load({}))


def test_what_has_not_changed_is_not_told(file: Path) -> None:
    _, changes = reloading(file).read()
    assert changes == []


def test_what_has_changed_is_told_without_secrets_until_it_is_taken_over(file: Path) -> None:
    node = reloading(file)
    text = file.read_text().replace("100", "200").replace('A = "s"', 'C = "u"').replace('"t"', '"another"')
    file.write_text(text)
    wanted, changes = node.read()
    assert changes == [
        Change("access_keys", "A, B", "B, C (another secret: B)"),
        Change("connections_max", "100", "200"),
    ]
    node.taken_over(wanted)
    assert node.read()[1] == []


def test_the_command_line_still_wins_over_the_file(file: Path) -> None:
    node = reloading(file, connections_max=50)
    file.write_text(file.read_text().replace("100", "200"))
    assert node.read()[1] == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('zone = "a"', 'zone = "b"', "nothing was changed, as this needs a restart: zone is a, and was to be b"),
        ("connections_max = 100", "connections_max = 0", "connections_max must be 1 or more, not 0"),
        ("connections_max", "no_such_setting", "no_such_setting"),
        ("ephemeral = true", "ephemeral =", "is not TOML"),
    ],
)
def test_what_is_wrong_or_needs_a_restart_is_refused_whole(file: Path, before: str, after: str, told: str) -> None:
    node = reloading(file)
    file.write_text(file.read_text().replace(before, after).replace('A = "s"', 'A = "another"'))
    with pytest.raises(ConfigurationError, match=told):
        node.read()


def test_a_node_takes_over_what_it_can_and_keeps_its_ports() -> None:
    one = Settings(ephemeral=True, peer_port=1, no_auth=True)
    other = Settings(ephemeral=True, peer_port=2, scrub_interval_s=77.0)
    both = with_taken_over(one, other)
    assert (both.peer_port, both.no_auth, both.scrub_interval_s) == (1, False, 77.0)
    assert [change.name for change in changed(both, one)] == ["no_auth", "scrub_interval_s"]


def test_what_is_taken_over_are_settings() -> None:
    assert set(TAKEN_OVER) <= set(Settings.__struct_fields__)
