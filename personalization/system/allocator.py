"""Make a process give memory back as soon as a model's activations are done with, and touch it in large pages."""

import ctypes
import os
from typing import Any

# The GNU allocator gives pieces of at least so many bytes back at once when they are freed. Left to itself it raises
# the bound to what a model's activations take, and keeps the gaps between them: a fifth of a language model's peak.
_MAP_FROM = 4 << 20
_TRIM_FROM = 16 << 20
# Of `mallopt`, in malloc.h.
_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}

# For processes that are yet to be started. Pages that come and go are dear where they are small, so torch asks for
# large ones (where the system gives them to those who ask).
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(_MAP_FROM),
    "MALLOC_TRIM_THRESHOLD_": str(_TRIM_FROM),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def give_memory_back() -> None:
    """Do so in this process, before torch allocates anything, and in those that it starts.

    What the environment says already stays. Without the GNU allocator this process is left as it is.
    """
    set_option = _allocator_function("mallopt")
    for name, option in _OPTIONS.items():
        if set_option is not None and name not in os.environ:
            set_option(option, int(ENVIRONMENT[name]))
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})


def trim() -> None:
    """Give back what was freed in small pieces: it lies between what is still in use, and goes back on demand alone.

    For the end of work that took many of them, such as training. Does nothing without the GNU allocator.
    """
    give_back = _allocator_function("malloc_trim")
    if give_back is not None:
        give_back(0)


def _allocator_function(name: str) -> Any:
    """Return a function of this process's allocator by its name, None where there is none."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
