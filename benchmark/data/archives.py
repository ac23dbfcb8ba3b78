"""Archives unpacked without trusting what they say, and downloads that are whole or not there."""

import fcntl
import hashlib
import http.client
import lzma
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmark.errors import UserError

ANNOUNCED_BYTES = 2**30  # reading or writing more than this is said before it starts
TIMEOUT_SECONDS = 60.0
# What no official archive comes near to. Known are the number of ILSVRC2012's training images, 1,281,167 in 1,000 tars,
# the most of all, and the names that the readers look for; of sizes, these are generous bounds.
MAX_MEMBERS = 2_000_000
MAX_BYTES = 400 * 2**30
MAX_TIMES_LARGER = 100  # than the archive: pictures hardly shrink, text to a tenth, and zeros to a thousandth
SMALL_BYTES = 64 * 2**20  # which any archive may unpack to
MAX_DEPTH = 12  # folders; of VOCdevkit/VOC2012/ImageSets/Main/train.txt, the deepest that is read, it is 5
MAX_HEADER_BYTES = 2**20  # of one member: its long name, or what else a pax header says of it; paths have 4096
TOLD_SECONDS = 10.0
DAMAGED = (
    tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError, RecursionError, MemoryError,
    KeyError, IndexError,
)  # fmt: skip


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
            allowed = max(SMALL_BYTES, MAX_TIMES_LARGER * archive.stat().st_size)
            so_far = _SoFar(archive, min(MAX_BYTES, allowed))
            with tarfile.open(archive, tarinfo=_Member) as tar:
                _extract_nested(tar, unfinished, so_far) if nested else _extract(tar, unfinished, so_far)
            if not (unfinished / top).is_dir():
                raise UserError(f"{archive}: holds no folder {top}; fetch it again")
            (unfinished / top).rename(target)
    except DAMAGED as error:
        # The rest lists how each kind of compression failed.
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
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


class _Member(tarfile.TarInfo):
    """A member whose header is bounded before it is read, and whose junk is refused before it is used."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        longer = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in (*extended, *longer) and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return super()._proc_member(tar)  # type: ignore[misc]


@dataclass
class _SoFar:
    """What an archive has cost; UserError where that is more than any official one does."""

    archive: Path
    most_bytes: int
    members: int = 0
    num_bytes: int = 0
    told: float = field(default_factory=time.monotonic)

    def add(self, member: tarfile.TarInfo) -> None:
        self.members += 1
        self.num_bytes += member.size
        if self.members > MAX_MEMBERS or self.num_bytes > self.most_bytes:
            raise UserError(
                f"{self.archive}: more than {MAX_MEMBERS:,} members or {self.most_bytes / 2**20:,.0f} MiB unpacked, "
                "which no official archive of its size holds; do not trust this archive"
            )
        if time.monotonic() - self.told > TOLD_SECONDS:
            self.told = time.monotonic()
            size = f"{self.num_bytes / 2**30:.1f} GiB"
            print(f"unpacking {self.archive.name}: {self.members:,} members, {size}", file=sys.stderr, flush=True)


def _extract(tar: tarfile.TarFile, folder: Path, so_far: _SoFar) -> None:
    for member in _members(tar, so_far):
        tar.extract(member, folder, filter="data")


def _extract_nested(outer: tarfile.TarFile, folder: Path, so_far: _SoFar) -> None:
    for member in _members(outer, so_far):
        stem, suffix = os.path.splitext(member.name)
        if not member.isfile() or suffix != ".tar" or "/" in stem:
            raise UserError(f"{so_far.archive}: expected nothing but tars in it, found {member.name[:200]!r}")
        # Uncompressed, as the official ones are: a member that unfolds cannot be.
        with outer.extractfile(member) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as inner:  # type: ignore[union-attr]
            (folder / stem).mkdir()
            _extract(inner, folder / stem, so_far)


def _members(tar: tarfile.TarFile, so_far: _SoFar) -> Iterator[tarfile.TarInfo]:
    """The members, each checked; tarfile's list of them is not kept, which a million would fill the memory with."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # missing in the types
        _check(member, so_far.archive)
        so_far.add(member)
        yield member


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    """Stricter than tarfile's own filter, which would silently take a leading slash off a name."""
    path, shown = PurePosixPath(member.name), repr(member.name[:200])
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UserError(f"{archive}: member {shown} climbs out of its folder; do not trust this archive")
    if len(path.parts) > MAX_DEPTH:
        raise UserError(f"{archive}: member {shown} lies {len(path.parts)} folders deep; do not trust this archive")
    if not (member.isfile() or member.isdir()):
        raise UserError(f"{archive}: member {shown} is a link or a device; do not trust this archive")
    if not 0 <= member.mtime < 2**33:
        raise UserError(f"{archive}: member {shown} has a time of {member.mtime}; do not trust this archive")
    if member.sparse is not None or member.size < 0:
        raise UserError(f"{archive}: member {shown} is a sparse file; do not trust this archive")


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
