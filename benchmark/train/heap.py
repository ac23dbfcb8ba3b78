"""What the C library does with memory that is freed."""

import ctypes
import sys

# Of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Keep what is freed for the next step, until the process ends. False where the C library is not glibc.

    A training step frees hundreds of megabytes that the next one asks for again. By default glibc hands large blocks
    back, and the kernel must find and clear each of their pages anew: tens of thousands of page faults a step on a CPU.
    Nothing that is computed depends on it; the process holds somewhat more memory (docs/performance.md).
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all(libc.mallopt(*option) for option in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**26)))
