"""Kernels that lie compiled are read before they are needed, and nothing is compiled for that."""

import subprocess
import sys
import textwrap
from pathlib import Path

KERNEL = textwrap.dedent("""
    from numba import njit

    @njit(cache=True)
    def doubled(x):
        return 2 * x
""")

LOOK = textwrap.dedent("""
    import sys
    import gueststar.made_up as module
    from gueststar.pipelines.engine.kernels import read_kernels
    if "call" in sys.argv:
        module.doubled(1)
        module.doubled(1.0)
    n = read_kernels()
    print(n, len(module.doubled.overloads), sum(module.doubled.stats.cache_misses.values()))
""")


def looked(folder: Path, *words: str) -> str:
    """Return, from a new process: kernels read, kernels that the module has, kernels compiled."""
    code = f"import gueststar; gueststar.__path__.append({str(folder)!r})\n{LOOK}"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_one_process_compiled_another_reads_ahead(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(KERNEL)
    assert looked(tmp_path) == "0 0 0"
    assert looked(tmp_path, "call") == "2 2 2"
    assert looked(tmp_path) == "2 2 0"


def test_kernels_of_another_source_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(KERNEL)
    looked(tmp_path, "call")
    (tmp_path / "made_up.py").write_text(KERNEL.replace("2 * x", "3 * x + 0"))
    assert looked(tmp_path) == "0 0 0"
