"""The one exception that a user can cause; everything else that is raised is a bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. Says in one line what is wrong, where, and what to do; the exit status is 2."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of valid names where none is near."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of: {', '.join(names)}"
