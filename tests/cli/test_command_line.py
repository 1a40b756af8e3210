"""The merganser command: what it says and the status it ends with, when asked for help or for the impossible."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

import merganser
from merganser.cli.main import main
from merganser.cli.negative_numbers import with_numbers_last
from merganser.cli.serve import run_node
from merganser.model.build import BUILD
from merganser.node.settings import Settings
from merganser.storage.engine import Batch
from merganser.storage.keys import metadata_key
from merganser.storage.rocks import RocksEngine


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process; it must end by itself, as those of this file do."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["merganser", *arguments])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        assert isinstance(status, int)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def refusal(ended: Ended) -> str:
    """Return what a command said that refused: one line on standard error, nothing else."""
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith("merganser: ")
    assert ended.err.count("\n") == 1
    return ended.err.removeprefix("merganser: ").rstrip("\n")


def test_version_is_printed(command: Command) -> None:
    assert command("--version") == Ended(0, f"merganser {merganser.__version__} ({BUILD})\n", "")


def test_help_names_every_command(command: Command) -> None:
    ended = command("--help")
    assert ended.status == 0
    for name in ("serve", "status", "ring", "bench", "cluster"):
        assert re.search(rf"\b{name}\b", ended.out)


@pytest.mark.parametrize("name", ["serve", "status", "ring", "bench"])
def test_help_of_a_command_is_printed(command: Command, name: str) -> None:
    ended = command(name, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert f"merganser {name}" in ended.out


def test_no_command_prints_help(command: Command) -> None:
    ended = command()
    assert ended.status == 2
    assert "Usage: merganser" in ended.out


@pytest.mark.parametrize("arguments", [("--bogus",), ("bogus",), ("serve", "--bogus"), ("serve", "--peer-port", "x")])
def test_bad_option_ends_with_status_2_and_the_way_to_help(command: Command, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert ended.status == 2
    assert "--help' for help" in ended.err
    assert "Traceback" not in ended.err


def test_serve_without_a_place_for_data_is_refused(command: Command) -> None:
    assert "either --data DIR (kept) or --ephemeral" in refusal(command("serve"))


def test_serve_with_a_bad_setting_writes_nothing(command: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    refusal(command("serve", "--data", str(data), "--seed", "nonsense"))
    refusal(command("serve", "--data", str(data), "--host", "0.0.0.0"))
    refusal(command("serve", "--data", str(data), "--config", str(tmp_path / "absent.toml")))
    assert not data.exists()


@pytest.mark.parametrize("door", ["dynamodb", "peer", "admin"])
def test_taken_port_is_refused_by_its_option(command: Command, taken_port: int, door: str) -> None:
    ports = dict.fromkeys(("dynamodb", "peer", "admin"), "0") | {door: str(taken_port)}
    options = [option for name, port in ports.items() for option in (f"--{name}-port", port)]
    message = refusal(command("serve", "--ephemeral", *options))
    assert f"cannot listen on 127.0.0.1:{taken_port} (Address already in use)" in message
    assert f"stop what uses it, or choose another --host or --{door}-port" in message


@pytest.mark.parametrize("host", ["192.0.2.1", "256.0.0.1", "nobody.invalid", "a" * 70])
def test_host_that_is_not_of_this_machine_is_refused(command: Command, host: str) -> None:
    message = refusal(command("serve", "--ephemeral", "--no-auth", "--host", host, "--peer-port", "0"))
    assert message.startswith(f"cannot listen on {host}:0 (")
    assert message.endswith("): choose another --host or --peer-port")


def test_damaged_database_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"format":1,"node_id":"00000000000000aa"}')
    (tmp_path / "rocksdb").mkdir()
    (tmp_path / "rocksdb" / "MERGANSER").write_text("merganser storage format 1\n")
    (tmp_path / "rocksdb" / "CURRENT").write_text("MANIFEST-000001\n")
    (tmp_path / "rocksdb" / "MANIFEST-000001").write_bytes(b"\xff" * 64)
    assert "damaged" in refusal(command("serve", "--data", str(tmp_path)))


@pytest.mark.parametrize("record", ["promise|", "generation|", "cluster_map", "clock_ceiling", "register"])
def test_damage_to_what_a_node_must_not_forget_is_refused_with_the_way_out(
    command: Command, tmp_path: Path, record: str
) -> None:
    (tmp_path / "node.json").write_text('{"format":1,"node_id":"00000000000000aa"}')
    engine = RocksEngine.open(tmp_path / "rocksdb")
    engine.commit(Batch().put(metadata_key(record) + bytes(5) * record.endswith("|"), b"damaged"))
    engine.close()
    ports = ("--peer-port", "0", "--admin-port", "0", "--dynamodb-port", "0")
    message = refusal(command("serve", "--data", str(tmp_path), *ports))
    assert f"what the database in --data {tmp_path} remembers of this node is damaged: start it once with" in message
    assert "--rebuild" in message


def test_error_of_our_own_is_one_line_of_log_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    unchecked = Settings(
        ephemeral=True, peer_port=0, dynamodb_port=0, admin_port=0, seed=cast("tuple[str, ...]", (7700,))
    )
    with pytest.raises(SystemExit) as ended:
        run_node(unchecked, stop_with_stdin=False)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["event"]) == ("error", "the node ended by an error of its own")
    assert "Traceback" in said["error"]


@pytest.mark.parametrize("name", ["status", "ring"])
def test_nobody_at_the_admin_address_is_refused(command: Command, free_port: int, name: str) -> None:
    message = refusal(command(name, "--admin", f"127.0.0.1:{free_port}"))
    assert f"no Merganser node answers at 127.0.0.1:{free_port}" in message
    assert "--admin" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "t", "k", "counter", "increment", "99999999999999999999999"),
        ("update", "t", "k", "max", "raise", "-99999999999999999999999", "--field", "f"),
        ("update", "t", "k", "max", "raise", "9" * 9999),
        ("put", "t", "k", "v", "--tag-int", "age=99999999999999999999999"),
        ("find", "t", "age", "--int", "--from", "-99999999999999999999999"),
    ],
)
def test_a_number_of_more_than_64_bits_is_refused_before_it_is_sent(
    command: Command, free_port: int, arguments: tuple[str, ...]
) -> None:
    message = refusal(command(*arguments, "--admin", f"127.0.0.1:{free_port}"))
    assert re.match(r"-?9{23,40} is no number of 64 bits: they go from -9223372036854775808 to 92", message)


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "t", "k", "max", "raise", "-5"),
        ("update", "t", "k", "max", "raise", "-5", "--field", "f", "--id=s:1"),
        ("update", "--field", "-5", "t", "k", "max", "raise", "--", "-5"),
        ("put", "t", "-5", "-5.5"),
        ("get", "t", "-5", "--json"),
    ],
)
def test_a_number_below_zero_is_no_option(command: Command, free_port: int, arguments: tuple[str, ...]) -> None:
    admin = f"127.0.0.1:{free_port}"
    assert "no Merganser node answers" in refusal(command(arguments[0], "--admin", admin, *arguments[1:]))


def test_what_is_none_is_an_option_beside_a_number_below_zero_as_well(command: Command) -> None:
    ended = command("update", "t", "k", "max", "raise", "-5", "--bogus")
    assert ended.status == 2
    assert "No such option: --bogus" in ended.err


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("k -5", "-- k -5"),
        ("k - -5 --admin -1 --json", "--admin -1 --json -- k - -5"),
        ("-5 --admin=x -- --json", "--admin=x -- -5 --json"),
        ("k --admin -5", "k --admin -5"),
        ("k 5 --json", "k 5 --json"),
    ],
)
def test_arguments_with_a_number_below_zero_go_last_and_options_keep_their_values(typed: str, read: str) -> None:
    assert with_numbers_last(typed.split(), {"--admin"}) == read.split()


@pytest.mark.parametrize("address", ["", "nonsense", "127.0.0.1:", ":7800", "127.0.0.1:x", "127.0.0.1:99999"])
def test_address_that_is_none_is_refused(command: Command, address: str) -> None:
    assert refusal(command("status", "--admin", address)).startswith("--admin must be HOST:PORT")


def test_admin_address_can_stand_in_the_environment(
    command: Command, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGANSER_ADMIN", f"127.0.0.1:{free_port}")
    assert f"answers at 127.0.0.1:{free_port}" in refusal(command("ring"))


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "https://127.0.0.1:1", "http://127.0.0.1", "http://127.0.0.1:x", "http://127.0.0.1:99999"]
)
def test_bench_of_what_is_no_endpoint_is_refused(command: Command, endpoint: str) -> None:
    message = refusal(command("bench", "--endpoint", endpoint))
    assert message == f"--endpoint must be http://HOST:PORT, not {endpoint!r}"


def test_bench_with_nobody_at_the_endpoint_is_refused(command: Command, free_port: int) -> None:
    message = refusal(command("bench", "--endpoint", f"http://127.0.0.1:{free_port}"))
    assert f"http://127.0.0.1:{free_port} failed" in message
    assert "refused" in message


def test_bench_with_a_process_id_of_nobody_is_refused(command: Command) -> None:
    message = refusal(command("bench", "--endpoint", "http://127.0.0.1:1", "--pid", "4194999"))
    assert message == "--pid 4194999: there is no such process"


@pytest.fixture(scope="module")
def modules_imported_by_help() -> set[str]:
    code = "import sys\nimport merganser.cli.main\nprint(*sys.modules)"
    found: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(found.stdout.split())


@pytest.mark.parametrize("module", ["rocksdict", "asyncio", "uvloop", "rich.table", "merganser.node.node"])
def test_what_is_heavy_is_imported_by_the_command_that_needs_it(
    modules_imported_by_help: set[str], module: str
) -> None:
    assert module not in modules_imported_by_help
