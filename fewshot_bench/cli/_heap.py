"""The C library's heap keeps what is freed, instead of giving it back to the system.

glibc returns large blocks at once and gets fresh pages for the next, which the system has to clear:
a tenth of a ProtoNet step on a CPU. It is a setting of the process, so only commands make it.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_NEVER, _GIGABYTE = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Do so for the rest of the process; whether it could be done."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no such library: macOS, Windows, musl
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_THRESHOLD, _GIGABYTE))
