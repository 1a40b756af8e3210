"""A repository holds snapshots whole or not at all, each file once, and finds every flipped bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.model.ids import ClusterId, NodeId
from merganser.model.snapshot import FORMAT, Copy, File, Manifest
from merganser.storage.object_store import DirectoryStore
from merganser.storage.repository import Repository, object_name

MAP = ClusterMap(ClusterId("c"), 1, 1, (NodeRecord(NodeId("n"), 1, "h:1"),), (1,), (1,))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty one in a directory."""
    return Repository(DirectoryStore(tmp_path, is_new_fine=True))


def file_of(content: bytes) -> File:
    return File("000001.sst", len(content), hashlib.sha256(content).hexdigest())


def made(repository: Repository, name: str, *contents: bytes) -> Manifest:
    repository.begin(name)
    files = tuple(map(file_of, contents))
    for file, content in zip(files, contents, strict=True):
        if not repository.has(file):
            repository.put(file, content)
    manifest = Manifest(FORMAT, name, "0", 1, 2, MAP, (Copy(NodeId("n"), 1, files),))
    repository.publish(manifest)
    return manifest


def test_a_snapshot_comes_back_as_it_was_made(repository: Repository) -> None:
    manifest = made(repository, "one", b"a" * 1000)
    assert repository.manifest("one")[0] == manifest
    assert repository.names() == ["one"]
    (file,) = manifest.copies[0].files
    assert b"".join(repository.checked(file)) == b"a" * 1000


def test_every_flipped_bit_of_a_file_or_a_manifest_is_found(repository: Repository, tmp_path: Path) -> None:
    manifest = made(repository, "one", b"the content of a file")
    (file,) = manifest.copies[0].files
    stored = tmp_path / object_name(file)
    whole = stored.read_bytes()
    for bit in range(len(whole) * 8):
        stored.write_bytes(whole[: bit // 8] + bytes((whole[bit // 8] ^ 1 << bit % 8,)) + whole[bit // 8 + 1 :])
        with pytest.raises(CorruptionError, match="damaged"):
            list(repository.checked(file))
    for damaged in (whole[:-1], whole + b"x"):
        stored.write_bytes(damaged)
        with pytest.raises(CorruptionError, match="damaged"):
            list(repository.checked(file))
    stored.unlink()
    with pytest.raises(CorruptionError, match="is gone"):
        list(repository.checked(file))
    about = tmp_path / "snapshots" / "one.json"
    whole = about.read_bytes()
    for at in range(len(whole)):
        about.write_bytes(whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :])
        with pytest.raises(CorruptionError, match="manifest of snapshot one"):
            repository.manifest("one")


def test_a_snapshot_of_a_later_format_is_refused(repository: Repository, tmp_path: Path) -> None:
    content = b'{"format": 2, "novel": true}'
    (tmp_path / "snapshots").mkdir()
    stored = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
    (tmp_path / "snapshots" / "new.json").write_bytes(stored)
    with pytest.raises(ConfigurationError, match="has format 2, and this version reads 1"):
        repository.manifest("new")


def test_a_name_is_taken_once_and_a_wrong_one_names_the_right_ones(repository: Repository) -> None:
    made(repository, "one")
    with pytest.raises(ConfigurationError, match="there is a snapshot 'one' already"):
        repository.begin("one")
    with pytest.raises(ConfigurationError, match="there is no snapshot 'two'; there are: one"):
        repository.manifest("two")
    for name in ("", "../one", "a/b", ".hidden", "x" * 101):
        with pytest.raises(ConfigurationError, match="is called by"):
            repository.begin(name)


def test_a_file_stays_until_no_snapshot_needs_it(repository: Repository) -> None:
    both = file_of(b"both")
    made(repository, "one", b"both", b"first")
    made(repository, "two", b"both", b"second")
    assert repository.delete("one", is_forced=False) == 1
    assert (repository.has(both), repository.has(file_of(b"first"))) == (True, False)
    assert repository.delete("two", is_forced=False) == 2
    assert repository.store.names("files/") == []


def test_a_damaged_file_is_sent_again_once_it_is_set_aside(repository: Repository, tmp_path: Path) -> None:
    made(repository, "one", b"both", b"first")
    both, first = file_of(b"both"), file_of(b"first")
    (tmp_path / object_name(both)).write_bytes(b"bath")
    assert repository.set_aside(both) == object_name(both).replace("files", "damaged")
    assert not repository.has(both)
    assert repository.set_aside(both) is None, "it is gone already"
    assert repository.set_aside(first) is None, "it is well"
    made(repository, "two", b"both")
    for name in ("one", "two"):
        for file in repository.manifest(name)[0].copies[0].files:
            assert list(repository.checked(file)), "the older one is whole again, too"
    assert repository.store.names("deleting/") == []
    assert len(repository.store.names("damaged/")) == 1
    repository.delete("one", is_forced=False)
    repository.delete("two", is_forced=False)
    assert repository.store.names("damaged/") == []


def test_nothing_is_set_aside_while_a_snapshot_counts_on_it(repository: Repository, tmp_path: Path) -> None:
    made(repository, "one", b"both")
    (tmp_path / object_name(file_of(b"both"))).write_bytes(b"bath")
    repository.begin("two")
    with pytest.raises(ConfigurationError, match=r"a snapshot is being made \(two\)"):
        repository.set_aside(file_of(b"both"))
    assert repository.has(file_of(b"both"))
    assert repository.store.names("deleting/") == []


def test_files_stay_while_a_snapshot_is_being_made(repository: Repository) -> None:
    made(repository, "one", b"both")
    repository.begin("two")
    with pytest.raises(ConfigurationError, match=r"a snapshot is being made \(two\)"):
        repository.delete("one", is_forced=False)
    assert repository.names() == ["one"]
    assert repository.delete("one", is_forced=True) == 1
    repository.begin("three")


def test_no_snapshot_begins_while_files_are_removed(repository: Repository) -> None:
    repository.store.put("deleting/0", b"")
    with pytest.raises(ConfigurationError, match="a snapshot is being deleted"):
        repository.begin("one")
    assert repository.store.names("writing/") == []


def test_no_file_is_removed_where_a_manifest_is_damaged(repository: Repository, tmp_path: Path) -> None:
    made(repository, "one", b"first")
    made(repository, "two", b"second")
    (tmp_path / "snapshots" / "two.json").write_bytes(b"?")
    with pytest.raises(CorruptionError, match="manifest of snapshot two"):
        repository.delete("one", is_forced=False)
    assert repository.has(file_of(b"second"))
    assert repository.store.names("deleting/") == []
