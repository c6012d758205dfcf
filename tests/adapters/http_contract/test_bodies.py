"""Reading bodies: what is kept is storable, what is not is refused, and neither costs much."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.adapters.http_contract.bodies import (
    MAX_DEPTH,
    MAX_DETAIL_BYTES,
    MAX_SNIPPET,
    BadBody,
    TooLarge,
    decoded,
    detail,
    parsed,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Return arrays inside arrays, `depth` of them."""
    return opening * depth + b"1" * (opening != b"[") + closing * depth


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
def test_nothing_is_no_output(body: bytes) -> None:
    assert parsed(body) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"0",
        b'"x"',
        b'{"a": [1, 2.50, 1e3]}',
        b'{"a":1,"a":2}',
        b"123456789012345678901234567890",
        '"\\ud83d\\ude00 é 😀"'.encode(),
        b'"\\\\u0000"',
        nested(MAX_DEPTH),
    ],
)
def test_what_can_be_kept_is_kept_as_it_came(body: bytes) -> None:
    assert parsed(body)[0] == body.decode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>", "not_json"),
        (b"{}{}", "not_json"),
        (b"[1,]", "not_json"),
        (b"NaN", "not_json"),
        (b'{"a":Infinity}', "not_json"),
        (b"1e999", "not_json"),
        (b'"\xff"', "not_json"),
        (b'"\xed\xa0\x80"', "not_json"),
        (b'"\\ud800"', "not_json"),
        (b'"\\ud800\\u0041"', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        ("{}".encode("utf-16"), "not_json"),
        (b'"a\x00b"', "not_json"),
        (b'"a\\u0000b"', "holds_nul"),
        (b'{"a\\u0000":1}', "holds_nul"),
        (b'[[{"a":["\\\\u0000 \\u0000"]}]]', "holds_nul"),
        (nested(MAX_DEPTH + 1), "too_deep"),
        (nested(MAX_DEPTH + 1, b'{"a":', b"}"), "too_deep"),
        (nested(1000), "too_deep"),
        (nested(500_000), "not_json"),
    ],
)
@pytest.mark.fault(10, 17)
def test_what_cannot_be_kept_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(BadBody) as caught:
        parsed(body)
    assert caught.value.code == code


def test_brackets_in_strings_are_not_depth() -> None:
    body = orjson.dumps({"a": "[" * 1000})
    assert parsed(body)[0] == body.decode()


def kept(body: bytes) -> tuple[str | None, str]:
    """Return the text that is kept of a body, and the code of why none is."""
    try:
        return parsed(body)[0], ""
    except BadBody as bad:
        return None, bad.code


@given(JSON)
def test_json_is_kept_but_for_nul_and_half_characters(value: object) -> None:
    body = json.dumps(value)
    text, code = kept(body.encode())
    assert (text, code) == (body, "") or (
        code in {"holds_nul", "not_json"} and ("\\u0000" in body or "\\ud" in body)
    )


@given(
    st.binary(max_size=300)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
)
@example(b"\xff\xfe")
@pytest.mark.fault(17)
def test_whatever_comes_it_is_kept_or_refused(body: bytes) -> None:
    text, code = kept(body)
    if text is not None:
        json.loads(text)
        assert text.encode() == body
    else:
        assert code or not body.strip()
    orjson.dumps(detail(body))


# -- content encodings ----------------------------------------------------------------------------


def deflated(body: bytes) -> bytes:
    """Return `body` as bare deflate, without the zlib wrapping."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", b"{}"),
        ("identity", b"{}"),
        (" GZip ", gzip.compress(b"{}")),
        ("x-gzip", gzip.compress(b"{}")),
        ("deflate", zlib.compress(b"{}")),
        ("deflate", deflated(b"{}")),
    ],
)
def test_known_encodings_are_read(encoding: str, body: bytes) -> None:
    assert decoded(body, encoding, 2) == b"{}"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"{}"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}"))),
        ("gzip", b"{}"),
        ("gzip", gzip.compress(b"{}")[:-4]),
        ("gzip", b""),
        ("deflate", b""),
        ("deflate", b"\xff\xff"),
    ],
)
def test_other_encodings_are_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(BadBody) as caught:
        decoded(body, encoding, 1000)
    assert caught.value.code == "bad_encoding"


@pytest.mark.fault(16)
def test_a_bomb_is_stopped_before_it_takes_memory() -> None:
    bomb = gzip.compress(b"0" * (256 * 1024 * 1024), 9)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decoded(bomb, "gzip", 1024 * 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_the_bound_counts_decoded_bytes(plain: bytes, limit: int) -> None:
    body = gzip.compress(plain)
    if len(plain) > limit:
        with pytest.raises(TooLarge):
            decoded(body, "gzip", limit)
    else:
        assert decoded(body, "gzip", limit) == plain


# -- the detail of an error -----------------------------------------------------------------------


def test_an_error_keeps_its_json_or_the_start_of_its_text() -> None:
    assert detail(b"") is None
    assert detail(b'{"a":1}') == {"a": 1}
    assert detail(b"oh\x00\xff\r\nno") == "oh\ufffd\ufffd  no"
    assert detail(b'"a\\u0000"') == '"a\\u0000"'
    large = detail(b'{"a":"' + b"x" * MAX_DETAIL_BYTES + b'"}')
    assert isinstance(large, str)
    assert len(large) == MAX_SNIPPET
