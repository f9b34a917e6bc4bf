"""Compile the numerical kernels once, so that the first night does not wait for it.

A tiny simulated night of one detector runs through every stage; numba keeps what it compiled beside the source
files. Only time is gained: without this, the first run of each stage compiles what it needs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SCENARIO = """\
description: As little sky as calls every stage.
first_night: 2025-03-27
fields:
  - {id: 301, choose: ecliptic}
nights:
  - day: 0
    blocks:
      - {fields: [301], filters: [r], n_rounds: 5, start_h: -0.8, every_minutes: 20}
transients: {n: 3, n_first_night: 3, magnitudes: [16.5, 18.0]}
asteroids: {n: 1}
variables: {n: 1}
satellites: {per_night: 1}
calibrations: {n_bias: 3, n_dark: 3, n_flat: 3}
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tiny.yaml").write_text(SCENARIO)
        commands = (
            "simulate sky --camera simcam --scenario tiny.yaml --detectors 0 --quiet",
            "init survey --camera simcam",
            "refcat import survey sky/refcat.parquet",
            "ingest survey sky/raw --transfer link",
            "process survey",
        )
        for command in commands:
            done = subprocess.run(
                [str(Path(sys.executable).with_name("gueststar")), *command.split()],
                cwd=folder, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode != 0:
                print(f"compiling ahead stopped at 'gueststar {command}' (it will be done when needed):")
                print(done.stdout[-2000:], done.stderr[-2000:])
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
