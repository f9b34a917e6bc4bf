"""What a process does with memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gueststar.pipelines.engine.allocation import freed_bytes

HOLES = """
import sys
import numpy as np
from pathlib import Path
from gueststar.pipelines.engine.allocation import freed_bytes, give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

keep_freed_memory()
arrays = [np.ones(8 * 2**20) for _ in range(24)]  # of 64 MB
before = resident()
arrays = arrays[::6]  # what is left keeps the others' room from the system
held, kept = resident(), freed_bytes() / 2**20
give_back_freed_memory(int(sys.argv[1]) * 2**20)
print(before, held, kept, resident(), float(sum(a.sum() for a in arrays)))
"""


@pytest.mark.skipif(not freed_bytes(), reason="the C library does not tell how much freed memory it keeps")
@pytest.mark.parametrize(("most_mb", "is_given_back"), [(512, True), (4096, False)])
def test_freed_memory_between_living_arrays_is_given_back_if_it_is_much(most_mb: int, is_given_back: bool) -> None:
    said = subprocess.run([sys.executable, "-c", HOLES, str(most_mb)], check=True, capture_output=True, text=True)
    before, held, kept, after, total = map(float, said.stdout.split())
    assert before > 1500.0
    assert held > 1200.0, "freed, and kept"
    assert kept > 1000.0
    assert (after < 700.0) is is_given_back
    assert total == 4 * 8 * 2**20, "what lives is untouched"
