"""Archives unpacked without trusting what they say, and downloads that are whole or not there."""

import fcntl
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from benchmark.errors import UserError

ANNOUNCED_BYTES = 2**30  # reading or writing more than this is said before it starts
TIMEOUT_SECONDS = 60.0


def unpack(archive: Path, target: Path, top: str = "", nested: bool = False) -> None:
    """Unpack a tar so that the folder `target` appears whole or not at all; does nothing where it is there already.

    `top`: the folder inside the archive that becomes `target`; by default all of it does. `nested`: every member is a
    tar itself and becomes a folder of its name. UserError for a damaged archive, and for a member that is a link, a
    device, or would land outside; nothing of such an archive is kept.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if target.is_dir():
                return
            announce("unpacking", archive.name, archive.stat().st_size)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with tarfile.open(archive) as tar:
                _extract_nested(tar, unfinished, archive) if nested else _extract(tar, unfinished, archive)
            if not (unfinished / top).is_dir():
                raise UserError(f"{archive}: holds no folder {top}; fetch it again")
            (unfinished / top).rename(target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # the rest lists how each kind of compression failed
        raise UserError(f"{archive}: cannot be unpacked ({reason}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked to {target} ({error.strerror or error})") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time makes `target`; the others wait and find it made."""
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _extract(tar: tarfile.TarFile, folder: Path, archive: Path) -> None:
    for member in tar:
        _check(member, archive)
        tar.extract(member, folder, filter="data")


def _extract_nested(outer: tarfile.TarFile, folder: Path, archive: Path) -> None:
    for member in outer:
        _check(member, archive)
        stem, suffix = os.path.splitext(member.name)
        if not member.isfile() or suffix != ".tar" or "/" in stem:
            raise UserError(f"{archive}: expected nothing but tars in it, found {member.name!r}")
        with outer.extractfile(member) as file, tarfile.open(fileobj=file) as inner:  # type: ignore[union-attr]
            (folder / stem).mkdir()
            _extract(inner, folder / stem, archive)


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    """Stricter than tarfile's own filter, which would silently take a leading slash off a name."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UserError(f"{archive}: member {member.name!r} climbs out of its folder; do not trust this archive")
    if not (member.isfile() or member.isdir()):
        raise UserError(f"{archive}: member {member.name!r} is a link or a device; do not trust this archive")


def announce(verb: str, name: str, num_bytes: int) -> None:
    if num_bytes >= ANNOUNCED_BYTES:
        print(f"{verb} {name}, {num_bytes / 2**30:.1f} GiB; this is done once", file=sys.stderr, flush=True)


def md5_of(path: Path) -> str:
    """MD5 in hexadecimal: what the data sets' publishers name. UserError where the file cannot be read."""
    try:
        announce("reading", path.name, path.stat().st_size)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def download(url: str, target: Path, md5: str | None) -> None:
    """Fetch `url` as `target`, going on from where an earlier call stopped. UserError where the address cannot be
    reached, and where what came is not what `md5` says (then nothing of it is kept)."""
    part = target.with_name(f"{target.name}.part")
    by_hand = f"fetch {url} by other means, put it at {target} and call again"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"{url}: cannot be fetched ({getattr(error, 'reason', error)}); call again, or {by_hand}"
        ) from None
    except OSError as error:
        raise UserError(f"{part}: cannot be written ({error.strerror}); free some space and call again") from None
    if md5 is not None and (digest := md5_of(part)) != md5:
        part.unlink()
        raise UserError(f"{url}: what came has MD5 {digest}, the official one is {md5}; call again, or {by_hand}")
    os.replace(part, target)


def _fetch(url: str, part: Path) -> None:
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send; the checksum will say whether that is so
            raise
        return
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        expected = response.headers.get("Content-Length")
        announce("fetching", part.stem, int(expected or 0))
        before = file.tell()
        shutil.copyfileobj(response, file, 2**20)
        if expected is not None and file.tell() - before != int(expected):
            raise ConnectionError("the connection ended early")
