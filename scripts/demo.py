"""The demonstration: simulate a small survey, process it, report it against the truth.

Everything runs through the `gueststar` command, as a user would. Usage: demo.py FOLDER
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path


def run(*words: str, n_shown: int = 10_000) -> str:
    """Run one command, show it and the first lines of what it says, and return all of that; stop if it fails."""
    print("\n$ gueststar " + " ".join(words), flush=True)
    process = subprocess.Popen(["gueststar", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if len(said) < n_shown:
            print(line, end="", flush=True)
        said.append(line)
    if len(said) > n_shown:
        print(f"... and {len(said) - n_shown} more lines")
    if process.wait() != 0:
        sys.exit(f"gueststar {words[0]} ended with status {process.returncode}")
    return "".join(said)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    start = time.monotonic()
    workers = str(min(os.cpu_count() or 1, 4))
    run("simulate", "sky", "--camera", "simcam", "--scenario", "demo", "--seed", "1", "--workers", workers)
    run("init", "survey", "--camera", "simcam")
    run("refcat", "import", "survey", "sky/refcat.parquet")
    run("ingest", "survey", "sky/raw", "--transfer", "link")
    run("process", "survey", "--workers", workers)
    pages = []
    for line in run("night", "list", "survey").splitlines():
        night = line.split()[0]
        page = f"night_{night}.html"
        run("inject", "survey", "--night", night, "--images", "6", "--workers", workers)
        run("night", "report", "survey", "--night", night, "--truth", "sky/truth", "--html", page)
        pages.append(folder / page)
    run("alerts", "list", "survey", n_shown=6)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"\nDone in {time.monotonic() - start:.0f} s; the largest process took {peak / 1024:.0f} MB.")
    print("Open in a browser:")
    for page in pages:
        print(f"  {page}")


if __name__ == "__main__":
    main()
