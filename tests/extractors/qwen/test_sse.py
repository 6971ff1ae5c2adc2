from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from extractors.qwen.sse import Event, SseParser


def parse(*chunks: bytes) -> list[Event]:
    parser = SseParser()
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    return found + parser.close()


def test_an_event_is_its_data() -> None:
    assert parse(b'data: {"a":1}\n\ndata: [DONE]\n\n') == [Event(b'{"a":1}'), Event(b"[DONE]")]


def test_the_space_after_the_colon_is_optional_and_only_one_is_taken() -> None:
    assert [event.data for event in parse(b"data:a\n\ndata:  b\n\n")] == [b"a", b" b"]


def test_several_data_lines_are_joined_with_a_line_feed() -> None:
    assert parse(b"data: a\ndata:\ndata: b\n\n") == [Event(b"a\n\nb")]


def test_lines_end_with_lf_crlf_or_cr() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert parse(end.join([b"event: x", b"data: a", b"", b"data: b", b"", b""])) == [Event(b"a", "x"), Event(b"b")]


def test_comments_and_unknown_fields_are_skipped() -> None:
    assert parse(b": keep-alive\n\nid: 1\nretry: 5\nfoo\ndata: a\n\n:\n\n") == [Event(b"a")]


def test_dashscope_tells_the_status_of_an_error_in_a_comment_or_in_a_line_of_its_own() -> None:
    native = b'id:1\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling"}\n\n'
    assert parse(native) == [Event(b'{"code":"Throttling"}', "error", 429)]
    assert parse(native.replace(b":HTTP_STATUS/", b"status:")) == parse(native)


def test_an_event_without_data_is_none_and_leaves_nothing_behind() -> None:
    assert parse(b"event: ping\n\ndata: a\n\n") == [Event(b"a")]


def test_the_event_that_the_stream_ends_in_is_given_at_the_end() -> None:
    assert parse(b"data: a") == [Event(b"a")]
    assert parse(b"data: a\n") == [Event(b"a")]


def test_a_byte_order_mark_is_skipped_however_it_is_cut() -> None:
    assert parse(b"\xef", b"\xbb", b"\xbf", b"data: a\n\n") == [Event(b"a")]


def test_a_crlf_cut_in_two_is_one_end_of_line() -> None:
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [Event(b"a\nb")]


def test_what_is_held_back_is_counted() -> None:
    parser = SseParser()
    parser.feed(b"data: " + b"x" * 100)
    assert parser.held == 106
    parser.feed(b"\n\n")
    assert parser.held == 0


LINES = st.sampled_from(
    [
        b"data: a",
        b"data:",
        b"data: \xc3\xa9",
        b"",
        b"",
        b"event: error",
        b": c",
        b":HTTP_STATUS/400",
        b"status:500",
        b"x",
    ]
)
STREAM = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20).map(
        lambda pairs: b"".join(line + end for line, end in pairs)
    ),
)


@given(STREAM, st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert parse(*pieces) == parse(stream) == parse(*(stream[i : i + 1] for i in range(len(stream))))
