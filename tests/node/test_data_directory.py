"""The directory of a node: who may use it, and what an operator is told when it cannot be used."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from merganser.model.errors import ConfigurationError
from merganser.node.data_directory import DataDirectory

HOLD = """
import pathlib, random, sys
from merganser.node.data_directory import DataDirectory
directory = DataDirectory(pathlib.Path(sys.argv[1]), rng=random.Random(1))
print("held", flush=True)
sys.stdin.read()
"""


def opened(path: Path) -> DataDirectory:
    return DataDirectory(path, rng=random.Random(7))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        opened(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder
        holder.kill()


def test_fresh_directory_is_made_with_its_parents_and_gets_an_id(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a" / "b")) as directory:
        assert len(directory.identity.node_id) == 16
        assert (tmp_path / "a" / "b" / "node.json").exists()


def test_reopened_directory_has_the_same_id_whatever_the_dice(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        pass
    with closing(DataDirectory(tmp_path, rng=random.Random(8))) as second:
        assert second.identity.node_id == first.identity.node_id


def test_two_directories_have_different_ids(tmp_path: Path) -> None:
    rng = random.Random(7)
    with closing(DataDirectory(tmp_path / "1", rng=rng)) as one, closing(DataDirectory(tmp_path / "2", rng=rng)) as two:
        assert one.identity.node_id != two.identity.node_id


def test_directory_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        assert f"is in use by process {holder.pid}: stop it" in refusal(tmp_path)


def test_lock_ends_with_the_process_however_that_ends(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        holder.kill()
        holder.wait()
        opened(tmp_path).close()


def test_directory_of_something_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    assert "is not empty and not a Merganser data directory (it holds photo.jpg)" in refusal(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


def test_start_that_was_cut_off_before_there_was_an_id_is_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "node.new").write_bytes(b'{"form')
    opened(tmp_path).close()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"format":1}', b'{"format":"1","node_id":"x"}'])
def test_damaged_identity_is_refused_and_the_lock_given_back(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.json").write_bytes(content)
    assert "node.json is damaged" in refusal(tmp_path)
    (tmp_path / "node.json").write_bytes(b'{"format":1,"node_id":"00000000000000aa"}')
    with closing(opened(tmp_path)) as directory:
        assert directory.identity.node_id == "00000000000000aa"


def test_newer_format_is_refused_with_both_formats(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(b'{"format":2,"node_id":"00000000000000aa","more":1}')
    message = refusal(tmp_path)
    assert "has format 2, this version reads format 1" in message
    assert "start it with the version that wrote it" in message


def test_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert refusal(path).startswith(f"--data {path}: ")


def test_path_that_cannot_be_made_is_refused() -> None:
    assert "choose a directory this user can write" in refusal(Path("/proc/merganser"))


def test_disk_that_takes_no_identity_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refusal(tmp_path)


def test_identity_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.json").mkdir()
    assert "Is a directory" in refusal(tmp_path)


def test_lock_descriptor_is_closed_after_every_refusal(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(b"{")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        refusal(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_directory_of_a_member_whose_database_is_gone_is_refused(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as directory:
        directory.open_engine().close()
        directory.joined("the cluster")
    with closing(opened(tmp_path)) as directory:
        directory.open_engine().close()
    shutil.rmtree(tmp_path / "rocksdb")
    with (
        closing(opened(tmp_path)) as directory,
        pytest.raises(ConfigurationError, match=r"a member of cluster the cluster, but its database .* is gone"),
    ):
        directory.open_engine()


def test_directory_without_a_database_is_no_loss_before_the_node_is_a_member(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as directory:
        directory.open_engine().close()
    shutil.rmtree(tmp_path / "rocksdb")
    with closing(opened(tmp_path)) as directory:
        directory.open_engine().close()


def test_database_of_another_cluster_is_refused(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as directory:
        directory.joined("one")
        directory.joined("one")
        with pytest.raises(ConfigurationError, match="belongs to a member of cluster one, its database to one of two"):
            directory.joined("two")
