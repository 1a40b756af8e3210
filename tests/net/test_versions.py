"""Two nodes agree on the newest version that both speak, and an older one is never asked what it does not know."""

from __future__ import annotations

import random

import msgspec
import pytest

from merganser.model import messages
from merganser.model.errors import PeerTooOldError, PeerUnreachableError
from merganser.model.messages import FetchMap, Found, Read
from merganser.model.versions import NEWEST, OLDEST, SPOKEN, Versions
from merganser.net.frame_bodies import Hello, Rejected
from merganser.net.peers import Peers
from net.peers_by_hand import ANN, BEN, LONG_S, Run, echo, no_errors, read, stranger_calls_on, until


def peers_of(node: str, versions: Versions) -> Peers:
    return Peers(
        node,  # type: ignore[arg-type]
        cluster_id="cluster",
        random=random.Random(1),
        handler=echo,
        on_error=no_errors,
        versions=versions,
    )


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (Versions(2, 3), Versions(2, 3), 3),
        (Versions(2, 2), Versions(2, 3), 2),
        (Versions(3, 5), Versions(2, 4), 4),
        (Versions(2, 2), Versions(3, 3), None),
        (Versions(4, 9), Versions(2, 3), None),
    ],
)
def test_the_newest_version_of_both_is_used(one: Versions, other: Versions, common: int | None) -> None:
    assert one.common(other) == other.common(one) == common


def test_the_first_release_takes_a_greeting_of_today() -> None:
    class OldHello(msgspec.Struct, frozen=True, array_like=True, tag=1):
        protocol_version: int
        cluster_id: str
        node_id: str

    def hello_of(versions: Versions) -> Hello:
        return Hello(versions.oldest, "cluster", ANN, versions.newest)

    for versions, heard in (SPOKEN, OLDEST), (Versions(NEWEST, NEWEST), NEWEST):
        frame = msgspec.msgpack.encode(hello_of(versions))
        assert msgspec.msgpack.decode(frame, type=OldHello) == OldHello(heard, "cluster", ANN)
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(OldHello(2, "cluster", ANN)), type=Hello)
    assert told.versions == Versions(2, 2)


@pytest.mark.parametrize(("theirs", "agreed"), [(Versions(2, 2), 2), (Versions(2, 3), 3), (Versions(3, 9), 3)])
def test_what_is_agreed_on_is_told(run: Run, theirs: Versions, agreed: int) -> None:
    async def scenario() -> None:
        ann, ben = peers_of(ANN, Versions(2, 3)), peers_of(BEN, theirs)
        ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
        assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")
        assert ann.agreed() == {BEN: agreed}
        assert ann.problems() == {BEN: None}
        await ann.close()
        await ben.close()

    run(scenario())


@pytest.mark.parametrize("is_early", [True, False])
def test_an_older_peer_is_not_asked_what_it_does_not_know(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    monkeypatch.setitem(messages.SINCE, FetchMap, 3)

    async def scenario() -> None:
        ann, ben = peers_of(ANN, Versions(2, 3)), peers_of(BEN, Versions(2, 2))
        ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
        if not is_early:  # else both wait for the greeting
            await ann.request(BEN, read(), timeout_s=LONG_S)
        known, unknown = ann.request(BEN, read(), timeout_s=LONG_S), ann.request(BEN, FetchMap(1), timeout_s=LONG_S)
        with pytest.raises(PeerTooOldError, match="speaks peer protocol 2, which has no FetchMap"):
            await unknown
        assert await known == Found(b"k")
        await ann.close()
        await ben.close()

    run(scenario())


def test_without_a_common_version_both_ranges_are_named_and_it_is_told_why(run: Run) -> None:
    async def scenario() -> None:
        ann, ben = peers_of(ANN, Versions(2, 3)), peers_of(BEN, Versions(4, 5))
        ann.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
        both = f"node {ANN} speaks peer protocol 2 to 3 and node {BEN} speaks 4 to 5: run a newer release"
        with pytest.raises(PeerUnreachableError, match=both):
            await ann.request(BEN, read(), timeout_s=LONG_S)
        await until(lambda: both in (ann.problems()[BEN] or ""))
        assert ann.agreed() == {BEN: None}
        await ann.close()
        await ben.close()

    run(scenario())


def test_who_speaks_less_than_the_cluster_uses_is_rejected(run: Run) -> None:
    async def scenario() -> None:
        ben = peers_of(BEN, SPOKEN)
        ben.require(NEWEST)
        assert ben.versions == Versions(NEWEST, NEWEST)
        stranger = await stranger_calls_on(await ben.listen("127.0.0.1", 0), Hello(OLDEST, "cluster", ANN))
        await until(lambda: stranger.is_lost)
        (rejected,) = stranger.heard()
        assert isinstance(rejected, Rejected)
        assert f"speaks peer protocol {OLDEST} and node {BEN} speaks {NEWEST}: run a newer release" in rejected.message
        await ben.close()

    run(scenario())


def test_a_field_at_the_end_is_skipped_by_who_does_not_know_it() -> None:
    class NewerRead(Read, frozen=True, array_like=True, tag=2):
        hint: int = 7

    request = NewerRead(**msgspec.structs.asdict(read()))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=messages.Request) == read()
