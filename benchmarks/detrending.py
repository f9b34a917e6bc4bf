"""CPU seconds and accuracy of detrending and sky subtraction on the bench quadrants.

    python benchmarks/detrending.py ../shared/data/bench_hl [--repeat 5]

Prints the medians over the repeats, cosmic rays against the truth mask of the files, and the sky against `sep`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits

from gueststar.core.bits import MaskPlane
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Amplifier, Detector, Overscan, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.detrend import Detrend

AMPLIFIER = Amplifier(
    name="a", data_section="[1:3072,1:3080]", detector_section="[1:3072,1:3080]",
    overscans=(Overscan(section="[3073:3102,1:3080]"),), gain=6.0, read_noise=9.0, saturation=48000.0,
)  # fmt: skip
DETECTOR = Detector(id=1, name="bench", shape=(3080, 3072), amplifiers=(AMPLIFIER,))
COSMIC_RAY_TRUTH = 1
"""Bit of the files' TMASK."""


def read(folder: Path) -> tuple[RawDetector, CalibrationMaster, CalibrationMaster]:
    data = fits.getdata(folder / "sci00_raw.fits.fz").astype(np.float32)
    sections = (AMPLIFIER.data_section, *(o.section for o in AMPLIFIER.overscans))
    cut = [np.ascontiguousarray(data[parse_section(section)]) for section in sections]
    info = ExposureInfo("bench", "science", 60400.2, 30.0, 20240330, Program.PUBLIC, physical_filter="r", band="r")
    bad = fits.getdata(folder / "cal_badpix.fits.fz").astype(np.int32) * int(MaskPlane.BAD)
    masters = []
    for kind, variance in (("bias", 0.1), ("flat", 1e-6)):
        image = fits.getdata(folder / f"cal_{kind}.fits.fz").astype(np.float32)
        pixels = MaskedImage(image, np.full_like(image, variance), bad)
        masters.append(CalibrationMaster(kind, 1, pixels, 60400.0, 20, "r" if kind == "flat" else None))
    return RawDetector(info, DETECTOR, (AmplifierPixels(AMPLIFIER, cut[0], tuple(cut[1:])),)), *masters


def true_mean_sky(folder: Path) -> float:
    """Return the mean sky of the first epoch, electrons; of the gradient's terms u, v, uv, uu, vv two have a mean."""
    gradient = json.loads((folder / "epochs.json").read_text())[0]["skygrad"]
    level = fits.getheader(folder / "sci00_truth.fits")["T_SKYDN"]
    return AMPLIFIER.gain * level * (1.0 + (gradient[3] + gradient[4]) / 12.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    raw, bias, flat = read(options.folder)
    seconds: dict[str, list[float]] = {"detrend": [], "background": []}
    for _ in range(options.repeat + 1):  # the first compiles
        start = time.process_time()
        detrended = Detrend().run(raw, Calibrations(bias=bias, flat=flat))
        seconds["detrend"].append(time.process_time() - start)
        start = time.process_time()
        subtracted = SubtractBackground().run(detrended.pixels)
        seconds["background"].append(time.process_time() - start)
    for step, values in seconds.items():
        print(f"{step:12s} {np.median(values[1:]):.3f} s of CPU")
    truth = fits.getdata(options.folder / "sci00_truth.fits", "TMASK")
    usable = detrended.pixels.is_usable(MaskPlane.BAD | MaskPlane.SATURATED | MaskPlane.BLEED)
    rays = ((truth & COSMIC_RAY_TRUTH) != 0) & usable
    found = (detrended.pixels.mask & int(MaskPlane.COSMIC_RAY)) != 0
    print(f"cosmic-ray pixels found {found[rays].mean():.3f}; marked in all {found.sum()} of {rays.sum()} true")
    sky = true_mean_sky(options.folder)
    theirs = sep.Background(detrended.pixels.image, mask=~detrended.pixels.is_usable(), bw=128, bh=128).back()
    ours = subtracted.background.level
    print(f"mean sky less the truth: {ours.mean() - sky:+.2f} e-, sep {theirs.mean() - sky:+.2f} e-")
    print({k: v for k, v in detrended.metrics.items() if not isinstance(v, dict)})


if __name__ == "__main__":
    main()
