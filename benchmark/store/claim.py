"""Who runs a run: one process at a time, here or on another host that shares the folder.

claim.json names its holder (host, process, start) and is touched while that process lives. A claim of this host is live
while its process is; another host's process cannot be looked up, so its claim is live while it is touched. Looking and
taking over are one step under the lock of claim.lock.
"""

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.store.files import read_regular
from benchmark.store.records import Claim

# Another host's process cannot be looked up. Its claim looks stale when the time of its last touch is this far from
# this host's clock, before or after: clocks of two machines differ, and jump. It is taken over only when it also did
# not change while it was watched for a while of this process's own time, longer than NFS remembers a file's attributes.
BEAT_SECONDS = 5.0
STALE_AFTER_SECONDS = 120.0
WATCH_SECONDS = 75.0


class Claimed(Exception):
    """Another live process holds the run."""


@dataclass(frozen=True)
class Holder:
    """Who claims a run, alive or not."""

    claim: Claim
    touched: int  # nanoseconds by the holder's clock: only compared with itself

    @property
    def host(self) -> str:
        """Its name alone."""
        return (self.claim.host or "?").split(" ")[0]

    @property
    def pid(self) -> int:
        return self.claim.pid or 0

    @property
    def is_here(self) -> bool:
        return self.claim.host == this_host()

    @property
    def can_be_looked_up(self) -> bool:
        """Whether this host knows if it is alive: its process is one of here, or a crash cut the claim short."""
        return self.claim.host is None or self.is_here


@dataclass(frozen=True)
class Ownership:
    """The claim of one run folder, and taking it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "claim.json"

    def read(self) -> Claim:
        """The claim as it is; one that says nothing where a crash of the machine cut it short. FileNotFoundError where
        there is none."""
        content = read_regular(self.path)
        if content is None:
            raise FileNotFoundError(self.path)
        try:
            return Claim.model_validate_json(content)
        except ValidationError:
            return Claim()

    def is_live(self) -> bool:
        """Whether the process that holds the claim lives, as far as can be told from here."""
        try:
            claim = self.read()
            if claim.host is None:
                return False
            if claim.host == this_host():
                start = process_start(claim.pid)
                return start is not None and start == claim.process_start
            return abs(time.time() - self.path.stat().st_mtime) < STALE_AFTER_SECONDS
        except FileNotFoundError:
            return False
        except UserError:
            return self.path.is_file()  # unreadable for the moment: nobody is evicted on that ground
        except OSError:
            return True

    def holder(self) -> Holder | None:
        """None where the run has no claim, or one that cannot be read."""
        try:
            return Holder(self.read(), self._touched())
        except (OSError, UserError):
            return None

    def _touched(self) -> int:
        with open(self.path, "rb") as file:  # opening asks a file server anew
            return os.fstat(file.fileno()).st_mtime_ns

    def _is_touched_while_watched(self) -> bool:
        """Whether the claim of another host, which looks stale, changes after all."""
        deadline, before = time.monotonic() + WATCH_SECONDS, self._touched()
        while time.monotonic() < deadline:
            time.sleep(min(1.0, WATCH_SECONDS / 10))
            if self._touched() != before:
                return True
        return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / "claim.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(path, "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); name a writable folder") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(f"{path}: this file system has no locks ({error.strerror}); take another") from None
            yield

    @contextmanager
    def take(self, state: Callable[[], str], enter: Callable[[Claim], None]) -> Iterator[None]:
        """Hold the run for this process.

        Args:
            state: what the run is (run.STATES), asked under the lock.
            enter: writes the claim, and puts in order what the last holder left; called under the lock.

        Raises:
            Claimed: a live process holds the run, or it is done already.
            UserError: the folder cannot be written.
        """
        pid = os.getpid()
        mine = Claim(host=this_host(), pid=pid, process_start=process_start(pid), started=time.time())
        # Two processes that both find a stale claim would otherwise both remove it, the second one the first's new one.
        with self._locked():
            found = state()
            if found in ("running", "done"):
                raise Claimed(self.folder.name)
            if found == "stale":
                with suppress(FileNotFoundError):
                    stale = Holder(self.read(), self._touched())
                    if not stale.can_be_looked_up and self._is_touched_while_watched():
                        raise Claimed(self.folder.name)
            enter(mine)
        released = threading.Event()
        beat = threading.Thread(target=self._keep_alive, args=(mine, released), daemon=True)
        beat.start()
        try:
            yield
        finally:
            released.set()
            beat.join()
            with suppress(UserError, OSError), self._locked():
                if self.read() == mine:
                    self.path.unlink()
                    (self.folder / "progress.json").unlink(missing_ok=True)

    def _keep_alive(self, mine: Claim, released: threading.Event) -> None:
        """Touch the claim for other hosts to see. A process that finds its claim in other hands, having been frozen for
        so long that it was taken for dead, ends itself without another word: two must not write into one folder."""
        while not released.wait(BEAT_SECONDS):
            try:
                if self.read() == mine:
                    os.utime(self.path)
                    continue
            except FileNotFoundError:
                pass
            except OSError:
                continue  # a file server that does not answer for a while
            if not released.is_set():
                os.kill(os.getpid(), signal.SIGKILL)  # SIGTERM would have it write a checkpoint first
            return


@cache
def this_host() -> str:
    """Whose process numbers are meant: the machine's name, its boot (a restarted machine counts anew), and the
    container's numbering, where there is one."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def process_start(pid: Any) -> str | None:
    """When process `pid` of this host started, in clock ticks since boot; None where it is gone.

    A number alone would not do: it is used again by later processes.
    """
    if not isinstance(pid, int):
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    else:
        after_name = stat.rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else after_name[19]  # state; field 22 of proc(5)
    try:  # no /proc on this system
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
