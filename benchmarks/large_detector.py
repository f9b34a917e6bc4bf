"""One detector as large as a whole camera of others: what it costs, and what is found on it.

Run: python benchmarks/large_detector.py [--side 10560] [--keep FOLDER]
A simulated detector of 10560 x 10560 pixels of 0.564 arcsec (the size of BlackGEM's), read out by 16 amplifiers, with
the bad columns that the simulation gives it (1.4 % of its pixels). Five exposures of one field at high latitude make
the reference, all of them parts of it; one comes six nights later. Everything from raw files to alerts is made by
`gueststar process` in one process on one core. Forty minutes at full size.

Printed: CPU seconds and peak memory of each stage, and, by the night, what is true of the detections that score and
flags let become alerts, beside bad pixels and elsewhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

from gueststar.core.bits import SourceFlag
from gueststar.formats.parquet import read_catalog
from gueststar.pipelines.alerts.packet import AlertConfig
from gueststar.store.repo import SurveyRepo

CAMERAS = Path(__file__).parents[1] / "src/gueststar/cameras"

N_ACROSS = 8
"""Amplifiers in each of the two rows of them."""

NEAR_PIXELS = 4.0
"""About a FWHM: how near to a true change a detection is taken for it."""

CHANGES = (2, 3, 4)
"""Kinds of the truth tables that change: transients, asteroids, variables."""

BLOCK = {"fields": [601], "filters": ["r"], "every_minutes": 20}

SCENARIO = {
    "description": "One large detector at high latitude.",
    "first_night": "2025-03-27",
    "fields": [{"id": 601, "choose": "high_latitude"}],
    "nights": [
        {"day": 0, "blocks": [BLOCK | {"n_rounds": 5, "start_h": -1.0}]},
        {"day": 6, "blocks": [BLOCK | {"n_rounds": 1, "start_h": 0.0}]},
    ],
    "transients": {"n": 300, "magnitudes": [17.0, 21.0]},
    "asteroids": {"n": 20},
    "variables": {"n": 30},
    "calibrations": {"n_bias": 4, "n_dark": 3, "n_flat": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10560, help="pixels, a multiple of 16")
    parser.add_argument("--keep", type=Path, help="folder of sky and survey; a sky that is there is used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sky, survey = folder / "sky", folder / "survey"
        if not sky.exists():
            make_sky(folder, sky, options.side)
        process(folder, sky, survey)
        print(f"{options.side} x {options.side} pixels, {options.side**2 / 1e6:.0f} million")
        print_costs(survey)
        print_found(survey, sky / "truth" / "observed")


def camera(side: int) -> dict[str, object]:
    """Return the description of a camera with one detector of that side, otherwise as the simulated one."""
    described = yaml.safe_load((CAMERAS / "simcam" / "camera.yaml").read_text())
    width, height = side // N_ACROSS, side // 2
    amplifiers = []
    for k in range(2 * N_ACROSS):
        row, column = divmod(k, N_ACROSS)
        x, y = column * width, row * height
        amplifiers.append({
            "name": f"A{k + 1}", "extension": f"A{k + 1}", "data_section": f"[1:{width},1:{height}]",
            "detector_section": f"[{x + 1}:{x + width},{y + 1}:{y + height}]",
            "overscans": [{"section": f"[{width + 1}:{width + 32},1:{height}]"}],
            "gain": 2.0 + 0.02 * k, "read_noise": 6.0 + 0.1 * k, "saturation": 60000, "bias_level": 1000,
            "flip_y": row == 1,
        })  # fmt: skip
    template = described["detector_template"] | {"name": "D1", "shape": [side, side], "amplifiers": amplifiers}
    template["focal_plane"] = {"x_arcsec": 0.0, "y_arcsec": 0.0, "rotation_deg": 0.0}
    table = {"columns": ["id", "ccd"], "rows": [[0, 1]]}
    return described | {"pixel_scale_arcsec": 0.564, "detector_template": template, "detector_table": table}


def make_sky(folder: Path, sky: Path, side: int) -> None:
    described, scenario = folder / "camera.yaml", folder / "scenario.yaml"
    described.write_text(yaml.safe_dump(camera(side), sort_keys=False))
    scenario.write_text(yaml.safe_dump(SCENARIO, sort_keys=False))
    gueststar("simulate", sky, "--camera", described, "--scenario", scenario, "--workers", "2", "--quiet")


def process(folder: Path, sky: Path, survey: Path) -> None:
    gueststar("init", survey, "--camera", folder / "camera.yaml")
    gueststar("refcat", "import", survey, sky / "refcat.parquet")
    gueststar("ingest", survey, sky / "raw", "--transfer", "link")
    gueststar("process", survey, "--workers", "1")


def gueststar(*words: object) -> None:
    """Run a command; what it says goes to the error stream, beside the table."""
    subprocess.run([sys.executable, "-m", "gueststar", *map(str, words)], check=True, stdout=sys.stderr)


def print_costs(survey: Path) -> None:
    by_kind = defaultdict(list)
    with SurveyRepo.open(survey) as repo:
        for job in repo.ledger.jobs():
            if job.cpu_s is not None:
                by_kind[job.kind].append(job)
    print(f"{'stage':16}{'units':>7}{'CPU s, median':>16}{'largest':>10}{'peak memory, MB':>18}")
    for kind, jobs in by_kind.items():
        seconds = [job.cpu_s or 0.0 for job in jobs]
        peak = max(job.peak_rss_mb or 0.0 for job in jobs)
        print(f"{kind:16}{len(jobs):7d}{np.median(seconds):16.1f}{max(seconds):10.1f}{peak:18.0f}")


def print_found(survey: Path, truth: Path) -> None:
    config = AlertConfig()
    print(f"{'exposure':>14}{'detections':>12}{'real / false: clean':>22}{'beside bad pixels':>20}")
    for path in sorted((survey / "products" / "dia_source").glob("*/*.parquet")):
        visit = re.findall(r"dia_source_(\d+)_", path.name)[0]
        rows, true = read_catalog(path), read_catalog(truth / f"{visit}.parquet")
        changes = np.isin(true["kind"], CHANGES)
        x, y = true["x"][changes], true["y"][changes]
        real = np.array([np.hypot(x - a, y - b).min() < NEAR_PIXELS for a, b in zip(rows["x"], rows["y"], strict=True)])
        flags = rows["flags"]
        likely = (rows["reliability"] >= config.min_reliability) & ((flags & int(config.never_alert)) == 0)
        bad = (flags & int(SourceFlag.BAD_PIXEL)) != 0
        counts = [np.count_nonzero(likely & a & b) for a in (~bad, bad) for b in (real, ~real)]
        clean, beside = f"{counts[0]} / {counts[1]}", f"{counts[2]} / {counts[3]}"
        print(f"{visit:>14}{rows.n_rows:12d}{clean:>22}{beside:>20}")


if __name__ == "__main__":
    main()
