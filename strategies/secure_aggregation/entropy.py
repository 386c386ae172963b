"""Where secrets come from."""

import os
from collections.abc import Callable

# How many bytes: that many random ones. Tests put in seeded ones; nothing else does.
Entropy = Callable[[int], bytes]


def system_entropy(count: int) -> bytes:
    """Return random bytes of the operating system."""
    return os.urandom(count)
