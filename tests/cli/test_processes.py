"""What several processes on one machine are told, and what is refused before any is started."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from merganser.cli.processes import Orders, _Keeper, check_directory, run_processes, split
from merganser.model.errors import ConfigurationError
from merganser.node.reloading import Sources
from merganser.node.settings import Settings


def of(data: Path | str = "/d", **settings: Any) -> Settings:
    return Settings(data=str(data), processes=3, **settings)


def test_each_has_a_directory_and_ports_of_its_own_and_they_share_the_rest() -> None:
    one, two, three = split(of(zone="a", access_keys={"k": "s"}))
    assert [one.data, two.data, three.data] == ["/d/process-1", "/d/process-2", "/d/process-3"]
    assert [(each.peer_port, each.admin_port) for each in (one, two, three)] == [
        (7700, 7800),
        (7701, 7801),
        (7702, 7802),
    ]
    assert {each.dynamodb_port for each in (one, two, three)} == {8000}
    assert {each.machine for each in (one, two, three)} == {"127.0.0.1:7700"}
    assert one.seed == two.seed == three.seed == ("127.0.0.1:7700", "127.0.0.1:7701", "127.0.0.1:7702")
    assert all((each.zone, each.access_keys, each.processes) == ("a", {"k": "s"}, 1) for each in (one, two, three))


def test_seeds_name_the_first_process_of_each_machine() -> None:
    one, two, _ = split(of(host="10.0.0.2", seed=("10.0.0.1:7700", "10.0.0.2:7700")))
    assert one.seed == tuple(f"10.0.0.{machine}:{port}" for machine in (1, 2) for port in (7700, 7701, 7702))
    assert two.machine == "10.0.0.2:7700"


def test_advertised_peer_address_counts_up_and_names_the_machine() -> None:
    one, two, _ = split(of(peer_advertise="10.0.0.2:17700", seed=("10.0.0.2:17700",)))
    assert (one.peer_advertise, two.peer_advertise) == ("10.0.0.2:17700", "10.0.0.2:17701")
    assert two.machine == "10.0.0.2:17700"


def test_machine_that_has_a_name_keeps_it() -> None:
    assert {each.machine for each in split(of(machine="rack-4-u7"))} == {"rack-4-u7"}


def test_ports_that_nobody_names_are_free_ones_without_a_repetition() -> None:
    found = split(of(dynamodb_port=0, peer_port=0, admin_port=0))
    ports = [found[0].dynamodb_port, *(port for each in found for port in (each.peer_port, each.admin_port))]
    assert len(set(ports)) == 7
    assert 0 not in ports


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"peer_port": 20000, "admin_port": 20002}, "--admin-port and --peer-port both come to 20002"),
        ({"dynamodb_port": 7801}, "--admin-port and --dynamodb-port both come to 7801"),
        ({"peer_port": 65534}, "--peer-port 65534 leaves no room for 3 ports"),
    ],
)
def test_ports_that_overlap_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        split(of(**settings))


@pytest.mark.parametrize("process", [None, 0, 4])
def test_rebuild_is_for_one_of_them(process: int | None) -> None:
    with pytest.raises(ConfigurationError, match="say which with --process 1 to 3"):
        run_processes(of(), sources=Sources(), stop_with_stdin=False, rebuild=True, process=process)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_directory_of_another_number_of_processes_is_refused(tmp_path: Path, processes: int) -> None:
    for number in 1, 2, 3:
        (tmp_path / f"process-{number}").mkdir()
        (tmp_path / f"process-{number}" / "node.json").touch()
    check_directory(of(tmp_path))
    with pytest.raises(ConfigurationError, match="holds 3 nodes: start it with --processes 3"):
        check_directory(Settings(data=str(tmp_path), processes=processes))


def test_directory_of_a_single_node_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.json").touch()
    check_directory(Settings(data=str(tmp_path)))
    with pytest.raises(ConfigurationError, match="holds 1 node: start it with --processes 1"):
        check_directory(of(tmp_path))


def test_process_that_is_being_made_when_all_are_stopped_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    made = asyncio.create_subprocess_exec

    async def play() -> None:
        keeper = _Keeper(Orders(1, Settings(ephemeral=True, dynamodb_port=0), door=-1))

        async def stopped_meanwhile(*_command: str, **_options: Any) -> asyncio.subprocess.Process:
            await keeper.stop()
            pipe = asyncio.subprocess.PIPE
            return await made(sys.executable, "-c", "import time; time.sleep(600)", stdin=pipe, stdout=pipe)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", stopped_meanwhile)
        async with asyncio.timeout(30):
            await keeper.keep()

    asyncio.run(play())
