"""Memory that was freed goes back to the machine."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from lcm_ml.memory import give_back

HAS_TRIM = hasattr(ctypes.CDLL(None), "malloc_trim") and Path("/proc/self/statm").exists()
MB = 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not HAS_TRIM, reason="only glibc keeps freed memory, and only it can be asked to return it")
def test_what_was_freed_is_given_back() -> None:
    # Too small to be mapped one by one; the last one stays and holds the end of the heap.
    held = [np.ones(64 * 1024, dtype=np.uint8) for _ in range(4000)]
    last, full = held[-1], resident()
    del held
    give_back()
    assert full - resident() > 200 * MB
    assert last.all()
