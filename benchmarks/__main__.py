"""Every benchmark in turn: `python -m benchmarks`, or `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run each script beside this one in a process of its own; exit status 1 if one fails."""
    failed = []
    for script in sorted(Path(__file__).parent.glob("[!_]*.py")):
        print(f"\n== {script.name}", flush=True)
        if subprocess.run([sys.executable, str(script)]).returncode != 0:
            failed.append(script.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
