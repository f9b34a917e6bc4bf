#!/usr/bin/env python3
"""Delete cached kernels whose imports have changed since they were compiled.

numba looks only at the file of a kernel itself: code that it took in from another module stays as it was when that
module changes. Here a cached kernel is dropped when any numerical module that its own imports, however many steps
away, is newer. Run before tests and demo; an installed package never needs it, for all its files are new.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
NUMERICAL = ("gueststar.algorithms", "gueststar.core.bits", "gueststar.formats", "gueststar.simulation")
"""Where kernels are, and what they take constants from."""


def file_of(module: str) -> Path | None:
    """Return the file of a module of the package; None if there is none."""
    stem = SOURCE.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)


@cache
def imports_of(path: Path) -> frozenset[Path]:
    """Return the files of the package that a module imports."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    files = (file_of(name) for name in named if name.startswith(NUMERICAL))
    return frozenset(file for file in files if file is not None)


def taken_in(path: Path) -> set[Path]:
    """Return a module and all that it imports, directly or not."""
    found, waiting = set(), [path]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(imports_of(one))
    return found


def main() -> None:
    """Drop what is stale and say how many it was."""
    n_stale = 0
    for index in sorted(SOURCE.rglob("__pycache__/*.nbi")):
        source = index.parent.parent / f"{index.name.split('.')[0]}.py"
        newest = max(path.stat().st_mtime for path in taken_in(source)) if source.exists() else float("inf")
        if index.stat().st_mtime < newest:
            n_stale += 1
            for compiled in index.parent.glob(f"{index.stem}.*"):
                compiled.unlink()
    if n_stale:
        print(f"kernels to be compiled anew, for what they import has changed: {n_stale}")


if __name__ == "__main__":
    main()
