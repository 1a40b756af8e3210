"""What is read by its lines is what the parser reads."""

from __future__ import annotations

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from merganser.net.http_heads import HEAD_BYTES_MAX, LINE_BYTES_MAX, LINES_MAX, Heads

START = b"POST / HTTP/1.1\r\n"
BODY = b'{"TableName":"things"}'
LENGTH = b"Content-Length: %d" % len(BODY)
USUAL = (b"Host: localhost:8000", b"X-Amz-Target: DynamoDB_20120810.GetItem", b"Authorization: A B=c/d, E=f", LENGTH)


def request(*lines: bytes, start: bytes = START, body: bytes = BODY) -> bytes:
    return start + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


class Parsed:
    """What the parser makes of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = self.path = b""
        self.messages = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, piece: bytes) -> None:
        self.path += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.messages += 1


lines = st.lists(
    st.sampled_from(
        (
            *USUAL,
            LENGTH.lower(),
            b"Content-Length: 1",
            b"Content-Length: +22",
            b"Content-Length: 022",
            b"Content-Length:22",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: identity",
            b"Connection: close",
            b"Upgrade: h2c",
            b"Expect: 100-continue",
            b"X-A:  two spaces",
            b"X-A: trailing ",
            b"X-A: tab\t",
            b"X-A: a\tb",
            b" folded: 1",
            b"X-A : 1",
            b"X-\xe4: 1",
            b"X-B: \xe4",
            b"X-B: a\nb",
            b"X-B: a\rb",
            b"X-B: a\x00b",
            b"X-B:",
            b"X-B: ",
            b": 1",
            b"",
        )
    ),
    max_size=6,
)
starts = st.sampled_from(
    (
        START,
        START,
        START,
        b"POST /x HTTP/1.1\r\n",
        b"POST / HTTP/1.0\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\r\n" + START,
    )
)


@given(
    st.builds(
        lambda lines, start, cut: request(*lines, start=start, body=BODY[cut:]),
        lines,
        starts,
        st.sampled_from((0, 0, 1)),
    )
)
@example(request(*USUAL))
@example(request(*USUAL) + request(*USUAL))
@example(request(*USUAL, LENGTH))
def test_what_is_read_by_its_lines_the_parser_reads_alike(data: bytes) -> None:
    heads = Heads()
    for _ in range(2):  # as news, and as known
        usual = heads.read(data)
        if usual is None:
            continue
        headers, named, body = usual
        parsed = Parsed(data)
        assert (parsed.messages, parsed.path, parsed.body) == (1, b"/", body)
        assert parsed.headers == headers
        assert named == dict(headers)
        assert parsed.parser.get_method() == b"POST"
        assert parsed.parser.should_keep_alive()
        assert not parsed.parser.should_upgrade()


@given(st.integers(0, 400), st.binary(min_size=1, max_size=3), st.integers(0, 3))
def test_so_it_is_of_requests_with_an_error_in_them(place: int, wrong: bytes, dropped: int) -> None:
    whole = request(*USUAL)
    at = place % len(whole)
    test_what_is_read_by_its_lines_the_parser_reads_alike.hypothesis.inner_test(  # type: ignore[attr-defined]
        whole[:at] + wrong + whole[at + dropped :]
    )


def test_usual_requests_are_read() -> None:
    heads = Heads()
    for number in range(3):
        data = request(*USUAL, b"X-Amz-Date: %d" % number)
        found = heads.read(data)
        assert found is not None
        assert found[1][b"x-amz-date"] == b"%d" % number
        assert found[2] == BODY


def test_a_request_that_is_not_whole_or_not_alone_is_left_to_the_parser() -> None:
    heads, data = Heads(), request(*USUAL)
    assert heads.read(data) is not None
    assert [end for end in range(len(data)) if heads.read(data[:end]) is not None] == []
    assert heads.read(data + b"P") is None
    assert heads.read(request(*USUAL, b"X-Long: " + b"x" * HEAD_BYTES_MAX)) is None


def test_what_is_remembered_is_bounded() -> None:
    heads = Heads()
    for number in range(3 * LINES_MAX):
        assert (
            heads.read(request(*USUAL, b"X-%d: %d" % (number, number), b"X-Long: " + b"x" * LINE_BYTES_MAX)) is not None
        )
        assert len(heads._lines) <= LINES_MAX
        assert len(heads._names) <= LINES_MAX
        assert max(map(len, heads._lines)) <= LINE_BYTES_MAX
