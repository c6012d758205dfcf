"""Reading YAML and JSON: what is refused before anything is built, and the canonical form."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.definitions.documents import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    canonical,
    digest,
    format_of,
    read_document,
)
from sidecar.errors import DefinitionError

Format = Literal["yaml", "json"]
HANGS_S = 10.0
"""What is not bounded takes minutes, or has no end; a loaded machine needs less than this."""

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def problems(text: bytes | str, form: Format = "yaml") -> list[tuple[str, str]]:
    with pytest.raises(DefinitionError) as caught:
        read_document(text, form)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:00", "12:30:00"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("~", None),
        ("null", None),
        ("'1'", "1"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, expected: Any) -> None:
    value = read_document(f"a: {text}", "yaml").value["a"]
    assert value == expected
    assert type(value) is type(expected)


def test_keys_are_text_in_both_formats() -> None:
    assert read_document("{409: x, true: y}", "yaml").value == {"409": "x", "true": "y"}


def test_values_know_where_they_stand() -> None:
    positions = read_document("a:\n  - b: 1\n    c: [2, 3]\n", "yaml").positions
    place = positions["a", 0, "c", 1]
    assert (place.line, place.column) == (3, 12)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("a: &x 1", "a", "anchor"),
        ("a: &x {b: 1}", "a", "anchor"),
        ("a: *x", "a", "alias"),
        ("a: !!python/object/apply:os.system [ls]", "a", "tag"),
        ("a: !!binary aGk=", "a", "tag"),
        ("a: !own 1", "a", "tag"),
        ("a: 1\nb: 2\na: 3", "a", "given twice"),
        ("x: {a: 1, a: 2}", "x.a", "given twice"),
        ("a: 1\n---\nb: 2", "", "more than one"),
        ("? [a]\n: 1", "", "key must be text"),
        ("? {a: 1}\n: 1", "", "key must be text"),
        ("a: .inf", "a", "finite"),
        ("a: 9223372036854775808", "a", "64 bits"),
        ("a: " + "9" * 5_000, "a", "64 bits"),
        ("a: 1e999", "a", "64 bits"),
        ('a: "\\0"', "a", "NUL"),
        ("", "", "empty"),
        ("a: [", "", "not YAML"),
        ("\x07", "", "not allowed"),
    ],
)
def test_what_a_yaml_document_may_not_hold(text: str, path: str, words: str) -> None:
    assert [where for where, _ in problems(text)] == [path]
    assert words in problems(text)[0][1]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('{"a": 1, "a": 2}', "a", "given twice"),
        ('{"x": [{"a": 1, "a": 2}]}', "x[0].a", "given twice"),
        ("[NaN]", "", "NaN"),
        ("[1e999]", "[0]", "64 bits"),
        ("[9223372036854775808]", "[0]", "64 bits"),
        ("1" * 5_000, "", "64 bits"),
        ('{"a": "\\ud800"}', "a", "surrogate"),
        ('{"a": "\\u0000"}', "a", "NUL"),
        ("[1,]", "", "line 1"),
        ("", "", "not JSON"),
    ],
)
def test_what_a_json_document_may_not_hold(text: str, path: str, words: str) -> None:
    assert [where for where, _ in problems(text, "json")] == [path]
    assert words in problems(text, "json")[0][1]


def test_one_byte_too_many_is_refused() -> None:
    fits = "a: " + "x" * (MAX_BYTES - 3)
    assert read_document(fits, "yaml").value == {"a": "x" * (MAX_BYTES - 3)}
    assert "256 KiB" in problems(fits + "x")[0][1]
    assert "256 KiB" in problems((fits + "x").encode())[0][1]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_depth_is_limited(form: Format) -> None:
    fits = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    read_document(fits, form)
    assert "nested deeper" in problems(f"[{fits}]", form)[0][1]
    assert "nested deeper" in problems("[" * 100_000, form)[0][1]


@pytest.mark.parametrize("level", ["[", "[ ", "[\n", "- ", "{a: ", "[{a: "])
def test_depth_is_refused_in_our_words_however_far_the_parser_reads_ahead(level: str) -> None:
    count = MAX_BYTES // len(level)
    assert "nested deeper" in problems(level * count)[0][1]


def test_text_that_is_no_yaml_is_told_where_it_ends_to_be() -> None:
    assert problems("a: [1, 2\nb: 'c")[0][1].startswith("is not YAML: ")
    assert "(line 2, column" in problems("a: [1, 2\nb: 3")[0][1]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_number_of_nodes_is_limited(form: Format) -> None:
    text = "[" + ",".join(["1"] * MAX_NODES) + "]"
    assert "keys and values" in problems(text, form)[0][1]


def test_a_billion_laughs_end_at_the_first_anchor() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    begin = time.perf_counter()
    assert "anchor" in problems(laughs)[0][1]
    assert time.perf_counter() - begin < HANGS_S


def test_bytes_that_are_not_utf8_are_refused() -> None:
    assert "not UTF-8" in problems(b"a: \xff")[0][1]
    assert "surrogate" in problems("a: \ud800")[0][1]


def test_a_byte_order_mark_is_no_content() -> None:
    assert read_document(b"\xef\xbb\xbf{}", "json").value == {}


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/yaml", "yaml"),
        ("application/json; charset=utf-8", "json"),
        ("Application/JSON", "json"),
        ("yaml", "yaml"),
    ],
)
def test_content_types_name_a_format(content_type: str, form: Format) -> None:
    assert format_of(content_type) == form


def test_other_content_types_are_refused() -> None:
    with pytest.raises(DefinitionError, match="application/yaml"):
        format_of("text/html")


@given(PLAIN)
def test_what_is_written_canonically_reads_back_the_same(value: Any) -> None:
    again = read_document(canonical([value]), "json").value[0]
    assert canonical(again) == canonical(value)
    assert again == value


@given(PLAIN, st.integers(0, 4), st.booleans())
def test_layout_makes_no_difference_to_the_digest(value: Any, indent: int, ascii_: bool) -> None:
    wanted = digest(canonical(value))
    spaced = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    assert digest(canonical(read_document(spaced, "json").value)) == wanted


@given(st.dictionaries(TEXT, PLAIN, max_size=6), st.randoms())
def test_order_of_keys_makes_no_difference_to_the_digest(value: dict[str, Any], dice: Any) -> None:
    keys = list(value)
    dice.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_whatever_comes_is_read_or_refused(text: str | bytes) -> None:
    for form in ("yaml", "json"):
        try:
            value = read_document(text, form).value
        except DefinitionError:
            continue
        json.loads(canonical(value))


@given(PLAIN)
def test_yaml_of_another_writer_reads_the_same(value: Any) -> None:
    written = yaml.safe_dump([value], allow_unicode=False)
    if "&id" in written or "!!" in written or _yaml_1_1(value):
        return
    assert canonical(read_document(written, "yaml").value) == canonical([value])


def _yaml_1_1(value: Any) -> bool:
    """Whether PyYAML writes something unquoted that only YAML 1.1 reads as text, or not finite."""
    if isinstance(value, dict):
        return any(_yaml_1_1(key) or not isinstance(key, str) for key in value) or any(
            _yaml_1_1(one) for one in value.values()
        )
    if isinstance(value, list):
        return any(_yaml_1_1(one) for one in value)
    if isinstance(value, float):
        return True
    if isinstance(value, str):
        return not value.isalpha() or len(value) > 10 or not value.isascii()
    return False
