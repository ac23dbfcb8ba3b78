"""Files that are read while others write them: all of a new one or the old one, never half, and nothing that blocks."""

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import UserError


def read_regular(path: Path) -> bytes | None:
    """The file's bytes; None where there is none. UserError where it cannot be read, or is a folder, a pipe or a
    device: to open those may wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: is no regular file; move it away")
    with open(descriptor, "rb") as file:
        try:
            return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def write_atomic(path: Path, data: bytes) -> None:
    """All of `data` under `path`, or the old file untouched. UserError where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space and call again; finished runs are kept",
            errno.EFBIG: "files may be no larger here (ulimit -f)",
            errno.EDQUOT: "the quota is used up; free some space and call again",
            errno.EACCES: "the folder cannot be written; change its permissions",
            errno.EROFS: "the file system is read-only; name a writable folder",
        }.get(error.errno or 0, "see the reason and call again")
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None
    finally:
        with suppress(OSError):  # a read-only folder; the error that matters is raised already
            temporary.unlink(missing_ok=True)


def write_json(path: Path, record: Any) -> None:
    write_atomic(path, (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
