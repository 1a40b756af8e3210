"""Where snapshots are kept: one suite for a directory and for a bucket, which moto serves as S3 does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.storage.object_store import DirectoryStore, ObjectStore, StoreError, opened

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return the endpoint of an S3 with a bucket called backups."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="backups")
    client.close()
    yield endpoint
    server.stop()


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Return an empty store of each kind."""
    if request.param == "directory":
        return opened(str(tmp_path / "backups"), is_new_fine=True)
    for name, value in {**KEYS, "AWS_ENDPOINT": request.getfixturevalue("s3"), "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    return opened(f"s3://backups/{tmp_path.name}", is_new_fine=True)


def content(store: ObjectStore, name: str) -> bytes | None:
    parts = store.read(name)
    return None if parts is None else b"".join(parts)


def test_what_was_put_is_there_and_what_was_not_is_not(store: ObjectStore, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 80_000)  # more than one part
    store.put("files/ab/one", b"first")
    store.put("files/ab/one", b"second")
    store.put("files/cd/two", large)
    store.put("writing/empty", b"")
    assert content(store, "files/ab/one") == b"second"
    assert content(store, "files/cd/two") == large.read_bytes()
    assert content(store, "writing/empty") == b""
    assert content(store, "files/none") is None
    assert (store.size("files/ab/one"), store.size("files/cd/two")) == (6, large.stat().st_size)
    assert store.size("files/none") is None
    assert store.names("files/") == ["files/ab/one", "files/cd/two"]
    assert store.names("nothing/") == []


def test_what_was_deleted_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    store.put("files/one", b"first")
    store.delete("files/one")
    store.delete("files/one")
    assert content(store, "files/one") is None
    assert store.names("files/") == []


def test_what_was_renamed_is_there_under_its_new_name_only(store: ObjectStore) -> None:
    store.put("files/ab/one", b"first")
    store.put("damaged/ab/one", b"before")
    store.rename("files/ab/one", "damaged/ab/one")
    assert content(store, "files/ab/one") is None
    assert content(store, "damaged/ab/one") == b"first"


def test_a_bucket_that_is_not_there_is_told(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT": s3, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=r"s3://elsewhere: .*check the URL, the keys and the endpoint"):
        opened("s3://elsewhere", is_new_fine=True).put("one", b"1")


def test_a_url_of_no_store_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="gopher://"):
        opened("gopher://bucket", is_new_fine=True)


def test_a_directory_that_is_not_there_is_made_only_for_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        opened(str(tmp_path / "nowhere"), is_new_fine=False)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "backups", is_new_fine=True)
    (tmp_path / "backups" / "files").write_bytes(b"in the way")
    with pytest.raises(StoreError, match="run it again"):
        store.put("files/one", b"first")
    assert list((tmp_path / "backups" / ".new").glob("*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="where else is a file whose reading is an I/O error?")
def test_a_file_that_the_disk_cannot_read_is_damaged(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "backups", is_new_fine=True)
    (tmp_path / "backups" / "files").mkdir()
    (tmp_path / "backups" / "files" / "one").symlink_to("/proc/self/mem")  # whose first page gives an I/O error
    with pytest.raises(CorruptionError, match=r"files/one cannot be read: Input/output error"):
        content(store, "files/one")


def test_a_full_disk_is_told_and_what_was_half_written_goes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("this system does not let the test mount a small disk")
    try:
        store = DirectoryStore(disk, is_new_fine=True)
        store.put("files/small", b"fits")
        with pytest.raises(StoreError, match=r"No space left on device: make room.*only files that are stored whole"):
            store.put("files/large", bytes(2 * 2**20))
        assert list((disk / ".new").iterdir()) == []
        assert store.names("files/") == ["files/small"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
