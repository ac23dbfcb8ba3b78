"""The one exception that a user can cause; everything else that is raised is a bug. How words of others are shown."""

import difflib
import re
from collections.abc import Iterable

# What moves a cursor, colours, rings, or turns the direction of writing: all but line break and tab. And half
# characters, as which bytes of a path that are none are read, and which no file can hold.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Bad input. Says in one line what is wrong, where, and what to do; the exit status is 2."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or all that begin with the name, or the list of valid names where none is near."""
    names = [str(v) for v in valid]
    begun = [v for v in names if str(name) and v.startswith(str(name))]
    close = begun if len(begun) > 1 else difflib.get_close_matches(str(name), names, n=1)
    if not close:
        return f"; expected one of: {', '.join(names)}"
    quoted = (f"'{v}'" for v in close)
    return f"; did you mean {' or '.join(quoted)}?"


def visible(text: str) -> str:
    """The text with control characters as their codes, as in JSON: what a file says must not command a terminal."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """`visible`, and line breaks as a code: nothing that a file says passes for a line of ours."""
    return visible(text).replace("\n", "\\n")
