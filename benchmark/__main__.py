"""python -m benchmark"""

import errno
import io
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from benchmark.cli import app
from benchmark.errors import UserError, one_line, visible

NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)  # of any option that names one


class Visible:
    """A stream that shows control characters as codes. Rich, whose own are meant, writes past it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(visible(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def main() -> None:
    """The command, its words made visible, and no file that all may write, whatever the umask is."""
    os.umask(os.umask(0o077) | 0o002)
    with (
        redirect_stdout(cast(TextIO, Visible(sys.stdout))),
        redirect_stderr(cast(TextIO, Visible(sys.stderr))),
    ):
        command()


def command() -> None:
    """Errors that a user can cause end in one line and exit status 2; anything else is a bug and raises."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: workers are stopped and claims released
    for stream in (sys.stdout, sys.stderr):
        if isinstance(written_to := getattr(stream, "rich_proxied_file", stream), io.TextIOWrapper):
            written_to.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no character
    try:
        sys.exit(app(prog_name=called_as(), standalone_mode=False))
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)  # though a path may hold a line break
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()  # `... | head` is no error
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_PATH:
            raise
        print(f"error: {one_line(str(error.filename))[:200]}: {error.strerror}; name another path", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error has; typer's versions take its class from two packages
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else called_as()
        if message := error.format_message():  # without any argument the help is printed already
            print(f"error: {one_line(message)} (see '{command} --help')", file=sys.stderr)
        sys.exit(2)


def called_as() -> str:
    """The installed script's name, or `python -m benchmark`."""
    script = Path(sys.argv[0])
    return script.name if os.sep in sys.argv[0] and script.suffix != ".py" else "python -m benchmark"


if __name__ == "__main__":
    main()
