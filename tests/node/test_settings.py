"""Settings: where they may stand, which source wins, and what an operator is told of a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merganser.model.errors import ConfigurationError
from merganser.node.settings import PARTITIONS_ALONE, PARTITIONS_DEFAULT, Settings, is_loopback, load_settings


def refusal(
    given: dict[str, object] | None = None, *, file: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"data": "/d", **(given or {})}, environment=environment or {}, file=file)
    message = str(caught.value)
    assert "\n" not in message
    return message


def toml(directory: Path, text: str) -> Path:
    file = directory / "merganser.toml"
    file.write_text(text)
    return file


def test_what_nobody_sets_has_the_default() -> None:
    assert load_settings({"data": "/d"}, environment={}) == Settings(data="/d")


def test_command_line_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = toml(tmp_path, 'data = "/file"\ndynamodb_port = 1\npeer_port = 1\nadmin_port = 1\n')
    environment = {"MERGANSER_DYNAMODB_PORT": "2", "MERGANSER_PEER_PORT": "2"}

    settings = load_settings({"dynamodb_port": 3, "peer_port": None}, environment=environment, file=file)

    assert (settings.dynamodb_port, settings.peer_port, settings.admin_port) == (3, 2, 1)
    assert (settings.data, settings.host) == ("/file", "127.0.0.1")


def test_every_setting_can_stand_in_the_environment() -> None:
    environment = {
        "MERGANSER_EPHEMERAL": "true",
        "MERGANSER_HOST": "127.0.0.2",
        "MERGANSER_ADVERTISE_HOST": "db.example.org",
        "MERGANSER_PEER_ADVERTISE": "127.0.0.3:2",
        "MERGANSER_DYNAMODB_PORT": "1",
        "MERGANSER_PEER_PORT": "2",
        "MERGANSER_ADMIN_PORT": "3",
        "MERGANSER_ZONE": "rack-1",
        "MERGANSER_SEED": "127.0.0.2:2, 127.0.0.3:2",
        "MERGANSER_NO_AUTH": "1",
        "MERGANSER_ACCESS_KEYS": "one:first,two:se:cond",
        "MERGANSER_PARTITIONS": "64",
        "MERGANSER_CONNECTIONS_MAX": "100",
        "MERGANSER_CLOCK_SKEW_MAX_S": "2.5",
        "MERGANSER_TABLE_DELAY_MS": "1500",
    }
    settings = load_settings({}, environment=environment)

    assert settings == Settings(
        ephemeral=True,
        host="127.0.0.2",
        advertise_host="db.example.org",
        peer_advertise="127.0.0.3:2",
        dynamodb_port=1,
        peer_port=2,
        admin_port=3,
        zone="rack-1",
        seed=("127.0.0.2:2", "127.0.0.3:2"),
        no_auth=True,
        access_keys={"one": "first", "two": "se:cond"},
        partitions=64,
        connections_max=100,
        clock_skew_max_s=2.5,
        table_delay_ms=1500,
    )


def test_every_setting_can_stand_in_the_file(tmp_path: Path) -> None:
    text = """
        data = "/d"
        host = "127.0.0.2"
        advertise_host = "db.example.org"
        peer_advertise = "127.0.0.2:2"
        dynamodb_port = 1
        peer_port = 2
        admin_port = 3
        zone = "rack-1"
        seed = ["127.0.0.2:2"]
        no_auth = true
        partitions = 64
        connections_max = 100
        clock_skew_max_s = 2.5
        table_delay_ms = 1500
        repair_interval_s = 30
        purge_interval_s = 3600
        [access_keys]
        one = "first"
    """
    settings = load_settings({}, environment={}, file=toml(tmp_path, text))

    assert settings == Settings(
        data="/d",
        host="127.0.0.2",
        advertise_host="db.example.org",
        peer_advertise="127.0.0.2:2",
        dynamodb_port=1,
        peer_port=2,
        admin_port=3,
        zone="rack-1",
        seed=("127.0.0.2:2",),
        no_auth=True,
        access_keys={"one": "first"},
        partitions=64,
        connections_max=100,
        clock_skew_max_s=2.5,
        table_delay_ms=1500,
        repair_interval_s=30.0,
        purge_interval_s=3600.0,
    )


def test_variables_of_others_and_of_other_commands_are_left_alone() -> None:
    environment = {"PATH": "/bin", "MERGANSER_ADMIN": "127.0.0.1:7800", "MERGANSER_CONFIG": "x", "MERGANSER_SOAK": "1"}
    assert load_settings({"data": "/d"}, environment=environment) == Settings(data="/d")


def test_a_node_alone_and_in_memory_has_few_partitions_unless_told_otherwise() -> None:
    assert load_settings({"ephemeral": True}, environment={}).partitions == PARTITIONS_ALONE
    of_several: dict[str, object] = {"ephemeral": True, "seed": ["127.0.0.1:7700", "127.0.0.1:7701"]}
    assert load_settings(of_several, environment={}).partitions == PARTITIONS_DEFAULT
    assert load_settings({"ephemeral": True}, environment={"MERGANSER_PARTITIONS": "64"}).partitions == 64
    assert load_settings({}, environment={"MERGANSER_EPHEMERAL": "0", "MERGANSER_DATA": "/d"}).partitions == 256


def test_all_ports_are_picked_if_the_one_for_clients_is_and_no_other_is_given() -> None:
    picked = load_settings({"ephemeral": True, "dynamodb_port": 0}, environment={})
    assert (picked.dynamodb_port, picked.peer_port, picked.admin_port) == (0, 0, 0)
    some = load_settings({"ephemeral": True, "dynamodb_port": 0, "admin_port": 1}, environment={})
    assert (some.dynamodb_port, some.peer_port, some.admin_port) == (0, 0, 1)
    fixed = load_settings({"ephemeral": True, "dynamodb_port": 9}, environment={})
    assert (fixed.dynamodb_port, fixed.peer_port, fixed.admin_port) == (9, 7700, 7800)


def test_unknown_variable_is_refused_with_the_known_ones() -> None:
    message = refusal(environment={"MERGANSER_DYNAMO_PORT": "1"})
    assert message.startswith("MERGANSER_DYNAMO_PORT is set, but there is no such setting")
    assert "MERGANSER_DYNAMODB_PORT" in message


def test_unknown_name_in_the_file_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(file=toml(tmp_path, "dynamo_port = 1"))
    assert str(tmp_path) in message
    assert "dynamo_port" in message
    assert "dynamodb_port" in message


@pytest.mark.parametrize(
    ("variable", "text"),
    [("MERGANSER_PEER_PORT", "x"), ("MERGANSER_PEER_PORT", ""), ("MERGANSER_EPHEMERAL", "maybe")],
)
def test_wrong_kind_in_the_environment_names_the_variable_and_its_value(variable: str, text: str) -> None:
    message = refusal(environment={variable: text})
    assert message.startswith(f"{variable} is {text!r}")
    assert "unset it" in message


@pytest.mark.parametrize(
    "text",
    ['dynamodb_port = "8000"', "dynamodb_port = 8000.5", "host = 1", 'seed = "127.0.0.1:1"', 'ephemeral = "yes"'],
)
def test_wrong_kind_in_the_file_names_the_file_and_the_setting(tmp_path: Path, text: str) -> None:
    message = refusal(file=toml(tmp_path, text))
    assert message.startswith(f"--config {tmp_path}")
    assert f"$.{text.partition(' ')[0]}" in message


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert "is not TOML" in refusal(file=toml(tmp_path, "dynamodb_port: 8000"))
    (tmp_path / "merganser.toml").write_bytes(b"\xff\xfe")
    assert "is not TOML" in refusal(file=tmp_path / "merganser.toml")


def test_file_that_is_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(file=tmp_path / "absent.toml")
    assert "Is a directory" in refusal(file=tmp_path)


@pytest.mark.parametrize("name", ["dynamodb_port", "peer_port", "admin_port"])
@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_out_of_range_is_refused(name: str, port: int) -> None:
    message = refusal({name: port})
    assert message == f"--{name.replace('_', '-')} must be 0 to 65535, not {port}"


@pytest.mark.parametrize(
    "seed", ["", "127.0.0.1", ":7700", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:٧"]
)
def test_seed_that_is_no_address_is_refused(seed: str) -> None:
    message = refusal({"seed": [seed]})
    assert message.startswith("--seed must be HOST:PORT")
    assert repr(seed) in message


@pytest.mark.parametrize("join", ["127.0.0.1", ":7700", "127.0.0.1:0"])
def test_a_member_to_join_that_is_no_address_is_refused(join: str) -> None:
    assert refusal({"join": join}).startswith("--join must be HOST:PORT")


def test_a_node_joins_a_cluster_or_founds_one() -> None:
    message = refusal({"join": "127.0.0.1:7701", "seed": ["127.0.0.1:7700"]})
    assert message.startswith("--join is for a cluster that exists and --seed for one that is founded now")


def test_seeds_without_the_node_itself_are_refused_before_anything_is_opened() -> None:
    message = refusal({"seed": ["127.0.0.1:7701", "127.0.0.1:7702"]})
    assert "the peer address of this node is 127.0.0.1:7700" in message
    assert "its own address among them" in message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CONNECTIONS_MAX", "0", "connections_max must be 1 or more, not 0"),
        ("REPAIR_INTERVAL_S", "0.5", "repair_interval_s must be at least 1, not 0.5"),
        ("REPAIR_INTERVAL_S", "inf", "repair_interval_s must be at least 1, not inf"),
        ("PURGE_INTERVAL_S", "5", "purge_interval_s must be at least 60, not 5"),
        ("TABLE_DELAY_MS", "-1", "table_delay_ms must be 0 to 3600000, not -1"),
        ("TABLE_DELAY_MS", "3600001", "table_delay_ms must be 0 to 3600000, not 3600001"),
        ("CLOCK_SKEW_MAX_S", "0.1", "clock_skew_max_s must be 1 to 20, not 0.1"),
        ("CLOCK_SKEW_MAX_S", "60", "clock_skew_max_s must be 1 to 20, not 60"),
        ("CLOCK_SKEW_MAX_S", "nan", "clock_skew_max_s must be 1 to 20, not nan"),
    ],
)
def test_bounds_that_bound_nothing_are_refused(variable: str, value: str, message: str) -> None:
    assert refusal(environment={f"MERGANSER_{variable}": value}) == message


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"peer_advertise": "10.0.0.1:9"}, "10.0.0.1:9"),
        ({"peer_advertise": "10.0.0.1:9", "peer_port": 0}, "10.0.0.1:9"),
        ({"advertise_host": "10.0.0.1"}, "10.0.0.1:7700"),
        ({"advertise_host": "10.0.0.1", "peer_advertise": "10.0.0.2:9"}, "10.0.0.2:9"),
    ],
)
def test_seeds_list_the_advertised_address(given: dict[str, object], own: str) -> None:
    assert f"the peer address of this node is {own}" in refusal({"seed": ["127.0.0.1:7700"], **given})
    assert load_settings({"data": "/d", "seed": [own], **given}, environment={}).seed == (own,)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_host_that_is_every_address_needs_one_to_tell_the_other_nodes(host: str) -> None:
    given = {"host": host, "no_auth": True, "seed": ["10.0.0.1:7700"]}
    assert "say with --advertise-host" in refusal(given)
    assert load_settings({"data": "/d", **given, "advertise_host": "10.0.0.1"}, environment={})


@pytest.mark.parametrize("address", ["10.0.0.1", ":7700", "10.0.0.1:0", "10.0.0.1:x"])
def test_advertised_peer_address_that_is_none_is_refused(address: str) -> None:
    message = refusal({"peer_advertise": address})
    assert message.startswith("--peer-advertise must be HOST:PORT")
    assert repr(address) in message


def test_advertised_host_that_nobody_can_use_is_refused() -> None:
    assert "--advertise-host names 0.0.0.0, which nobody can connect to" in refusal({"advertise_host": "0.0.0.0"})
    assert "--peer-advertise names [::], which nobody" in refusal({"peer_advertise": "[::]:7700"})
    assert "a host without a port, not '10.0.0.1:7700'" in refusal({"advertise_host": "10.0.0.1:7700"})


def test_fewer_partitions_than_nodes_are_refused() -> None:
    seeds = "127.0.0.1:7700,127.0.0.1:7701,127.0.0.1:7702"
    message = refusal(environment={"MERGANSER_PARTITIONS": "2", "MERGANSER_SEED": seeds})
    assert message.startswith("partitions must be at least as many as there are nodes, 3, not 2")


@pytest.mark.parametrize("partitions", [0, -1, 3, 255])
def test_partitions_that_are_no_power_of_two_are_refused(partitions: int) -> None:
    message = refusal(environment={"MERGANSER_PARTITIONS": str(partitions)})
    assert message == f"partitions must be a power of two, not {partitions}"


def test_data_and_ephemeral_are_one_or_the_other() -> None:
    for message in (refusal({"data": None}), refusal({"ephemeral": True})):
        assert "either --data DIR (kept) or --ephemeral" in message
    assert refusal({"data": ""}) == "--data is empty: name a directory"


def test_access_keys_without_a_secret_are_refused_and_not_shown() -> None:
    message = refusal(environment={"MERGANSER_ACCESS_KEYS": "hidden"})
    assert "KEY:SECRET" in message
    assert "hidden" not in message


def test_open_host_without_access_keys_needs_a_word_of_consent() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "db.example.org"):
        message = refusal({"host": host})
        assert "--no-auth" in message
        assert "MERGANSER_ACCESS_KEYS" in message


@pytest.mark.parametrize("consent", [{"no_auth": True}, {"access_keys": {"key": "secret"}}])
def test_open_host_with_consent_or_keys_is_accepted(consent: dict[str, object]) -> None:
    assert load_settings({"data": "/d", "host": "0.0.0.0", **consent}, environment={}).host == "0.0.0.0"


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "")))


def test_the_process_environment_of_the_tests_sets_nothing() -> None:
    assert not [name for name in os.environ if name.startswith("MERGANSER_") and name != "MERGANSER_SOAK"]
