"""Where in a text expressions begin and end; `$${` writes a plain `${`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.definitions.expressions import Flaw


@dataclass(frozen=True, slots=True)
class Source:
    """An expression found in a text; `offset` is where it begins, after the `${`."""

    text: str
    offset: int


def split(text: str) -> list[str | Source] | Flaw:
    """Part a text into plain text and expressions."""
    pieces: list[str | Source] = []
    plain, at = "", 0
    while at < len(text):
        if text.startswith("$${", at):
            plain, at = plain + "${", at + 3
        elif text.startswith("${", at):
            end = _closing(text, at + 2)
            if end is None:
                return Flaw("`${` is not closed; add `}`, or write `$${` for a plain `${`", at)
            pieces.extend([plain] if plain else [])
            pieces.append(Source(text[at + 2 : end], at + 2))
            plain, at = "", end + 1
        else:
            following = text.find("$", at + 1)
            following = len(text) if following < 0 else following
            plain, at = plain + text[at:following], following
    pieces.extend([plain] if plain else [])
    return pieces


def _closing(text: str, at: int) -> int | None:
    """Where the `}` stands that ends the expression; those in strings and maps do not."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _after_string(text, at)
            continue
        if text.startswith("//", at):
            line_end = text.find("\n", at)
            at = len(text) if line_end < 0 else line_end
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return None


def _after_string(text: str, at: int) -> int:
    """The place after the CEL string literal whose quote stands at `at`."""
    raw = _is_raw(text, at)
    quote = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    at += len(quote)
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" and not raw else 1
    return at + len(quote)


def _is_raw(text: str, at: int) -> bool:
    """Whether the letters right before a quote make the string raw: r, br, rb."""
    begin = at
    while begin > 0 and text[begin - 1].isalnum():
        begin -= 1
    return text[begin:at].lower() in ("r", "br", "rb")
