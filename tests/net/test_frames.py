"""Frames: what is encoded is decoded whatever the pieces, and nothing else is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId
from merganser.model.messages import Apply, Done, FetchMap, Found, Read, Rows
from merganser.model.refusal import Refused
from merganser.model.versions import NEWEST
from merganser.net.frame_bodies import Answer, Call, Frame, Hello, Rejected
from merganser.net.frames import LENGTH_BYTES, FrameDecoder, FrameTooLargeError, encode

ids = st.integers(0, 2**63 - 1)
small = st.binary(max_size=40)
requests = st.one_of(
    st.builds(FetchMap, ids),
    st.builds(Read, ids, st.just(TableId(7)), small),
    st.builds(Apply, ids, st.just(TableId(7)), small, small),
)
replies = st.one_of(
    st.just(Done()),
    st.builds(Found, st.none() | small),
    st.builds(Refused, st.text(max_size=9), st.text(max_size=9), ids),
    st.builds(Rows, st.lists(st.tuples(small, small), max_size=3).map(tuple), st.booleans()),
)
frames = st.one_of(
    st.builds(Hello, st.integers(0, 9), st.text(max_size=16), st.text(max_size=16)),
    st.builds(Rejected, st.text(max_size=40)),
    st.builds(Call, ids, st.integers(1, 10**6), requests),
    st.builds(Answer, ids, replies),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=200)
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10**6), max_size=8))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    stream = b"".join(map(encode, sent))
    assert [frame for piece in pieces(stream, cuts) for frame in decoder.feed(piece)] == sent


def test_frames_come_out_when_the_stream_arrives_byte_by_byte() -> None:
    decoder = FrameDecoder()
    sent: list[Frame] = [Hello(NEWEST, "", "a"), Call(1, 5, FetchMap(3)), Answer(1, Done())]
    stream = b"".join(encode(frame) for frame in sent)
    assert [frame for i in range(len(stream)) for frame in decoder.feed(stream[i : i + 1])] == sent


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_payload_is_a_frame_or_corruption(payload: bytes) -> None:
    decoder = FrameDecoder()
    try:
        decoder.feed(len(payload).to_bytes(LENGTH_BYTES, "big") + payload)
    except CorruptionError:
        pass


@settings(max_examples=200)
@given(frames, st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_gives_frames_or_corruption_and_never_another_error(
    frame: Frame, place: int, difference: int
) -> None:
    stream = bytearray(encode(frame))
    stream[place % len(stream)] ^= difference
    try:
        FrameDecoder().feed(bytes(stream))
    except CorruptionError:
        pass


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x93\x03\x01", b"\x93\x01\x01\xa1\xff", b"\x92\x02" + b"\x91" * 100_000]
)
def test_garbage_is_corruption(payload: bytes) -> None:
    with pytest.raises(CorruptionError, match="not a frame"):
        FrameDecoder().feed(len(payload).to_bytes(LENGTH_BYTES, "big") + payload)


def test_a_frame_over_the_limit_is_refused_before_its_payload_arrives() -> None:
    decoder = FrameDecoder(frame_bytes_max=100)
    with pytest.raises(CorruptionError, match="101 bytes, 100 are allowed"):
        decoder.feed((101).to_bytes(LENGTH_BYTES, "big"))


def test_the_limit_is_64_mib_unless_said_otherwise() -> None:
    assert FrameDecoder().feed((64 * 2**20).to_bytes(LENGTH_BYTES, "big")) == []
    with pytest.raises(CorruptionError):
        FrameDecoder().feed((64 * 2**20 + 1).to_bytes(LENGTH_BYTES, "big"))


def test_a_text_protocol_is_taken_for_a_frame_too_long() -> None:
    with pytest.raises(CorruptionError, match="another protocol"):
        FrameDecoder().feed(b"GET / HTTP/1.1\r\n\r\n")


def test_an_answer_of_an_http_server_is_called_so() -> None:
    with pytest.raises(CorruptionError, match="it speaks HTTP: name the port of its peers"):
        FrameDecoder().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_message_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(FrameTooLargeError, match="smaller pages"):
        encode(Answer(1, Found(b"x" * 200)), frame_bytes_max=200)
