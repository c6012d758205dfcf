r"""How large a regular expression becomes when RE2 compiles it.

CEL compiles a pattern anew at every evaluation, and in the worst case a match takes time in
proportion to the text times the program. A few characters make a large program: `.{1000}` has
thousands of instructions, `\pL{300}` hundreds of thousands. So the pattern is read roughly
here. What is not understood is taken for the largest program that RE2 makes.
"""

from __future__ import annotations

import re

MOST_PROGRAM = 350_000
"""The most instructions that RE2 makes by its limit of memory."""

_MOST_REPEATS = 1_000
"""RE2 repeats nothing more often, however counted repetitions are nested."""
_ANY = 16
"""What stands for nearly every character, in the bytes of UTF-8: `.`, `[^a]`, `\\D`."""
_UNICODE = 1_500
"""A class of Unicode, like `\\pL`."""
_FOLDED = 8
"""A character that is not ASCII, or any without regard to case."""

_TOKEN = re.compile(
    r"(?P<counted>\{(?P<low>\d{1,4})(?P<comma>,(?P<high>\d{0,4}))?\})"
    r"|(?P<unicode>\\[pP](?:\{[^}]*\}|.))"
    r"|(?P<negated>\\[DSWCX])"
    r"|(?P<strange>\\Q)"
    r"|(?P<escape>\\(?:x\{[0-9A-Fa-f]*\}|x[0-9A-Fa-f]{2}|.))"
    r"|\[(?P<not>\^?)(?P<class>\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*)\]"
    r"|(?P<open>\()|(?P<close>\))|(?P<repeat>[*+?])|(?P<any>\.)|(?P<plain>.)",
    re.DOTALL,
)


def program_size(pattern: str) -> int:
    """The most instructions that `pattern` can compile to."""
    folding = "(?" in pattern and "i" in pattern
    groups: list[int] = [0]
    last = 0
    for token in _TOKEN.finditer(pattern):
        match token.lastgroup:
            case "strange":
                return MOST_PROGRAM
            case "open":
                groups.append(2)
                last = 0
                continue
            case "close":
                if len(groups) == 1:
                    return MOST_PROGRAM
                last = groups.pop()
            case "counted":
                most = max(int(token["low"]), int(token["high"] or 0))
                grown = last * (most + 1)
                groups[-1] += grown - last
                last = grown
                continue
            case "repeat":
                groups[-1] += 1
                last += 1
                continue
            case _:
                last = _atom(token, folding=folding)
        groups[-1] += last
        if groups[-1] > MOST_PROGRAM:
            return MOST_PROGRAM
    return MOST_PROGRAM if len(groups) > 1 else min(MOST_PROGRAM, groups[0] + 10)


def _atom(token: re.Match[str], *, folding: bool) -> int:
    """The most instructions of one character or class."""
    inside = token["class"]
    if token["unicode"] or (inside is not None and re.search(r"\\[pP]", inside)):
        return _UNICODE
    if inside is not None:
        each = _FOLDED if folding or not inside.isascii() or "\\x" in inside else 1
        wide = token["not"] or re.search(r"\\[DSWCX]|\[:\^", inside)
        return (_ANY if wide else 0) + each * (len(inside) + 2)
    if token["any"] or token["negated"]:
        return _ANY
    plain = token["plain"]
    return _FOLDED if folding or token["escape"] or not (plain or "a").isascii() else 1
