"""What a process and all that it started listen on, as Linux knows it."""

import ipaddress
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path


def listened_on(process: subprocess.Popen) -> set[str]:
    """Addresses that it, and what it started, listened on until it ended; seen every few milliseconds."""
    seen: set[str] = set()
    while process.poll() is None:
        seen |= listening(process.pid)
        time.sleep(0.05)
    return seen


def listening(pid: int) -> set[str]:
    inodes = {inode for each in descendants(pid) for inode in _sockets(each)}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:  # LISTEN
                found.add(_address(words[1].partition(":")[0]))
    return found


def descendants(pid: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, waiting = set(), {pid}
    while waiting:
        found |= waiting
        waiting = {child for child, parent in parents.items() if parent in waiting} - found
    return found


def _sockets(pid: int) -> set[str]:
    inodes = set()
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(path)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def _address(text: str) -> str:
    """The kernel prints each 32-bit word of an address in the processor's own order of bytes."""
    words = bytes.fromhex(text)
    return str(ipaddress.ip_address(b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))))


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
