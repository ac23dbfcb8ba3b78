"""python -m benchmark"""

import io
import signal
import sys

from benchmark.cli import app
from benchmark.errors import UserError


def main() -> None:
    """Errors that a user can cause end in one line and exit status 2; anything else is a bug and raises."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: workers are stopped and claims released
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no character
    try:
        sys.exit(app(prog_name="python -m benchmark", standalone_mode=False))
    except UserError as error:
        line = str(error).replace("\n", "\\n")  # one line, though a path may hold a line break
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()  # `... | head` is no error
        sys.exit(0)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error has; typer's versions take its class from two packages
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "python -m benchmark"
        if message := error.format_message():  # without any argument the help is printed already
            print(f"error: {message} (see '{command} --help')", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
