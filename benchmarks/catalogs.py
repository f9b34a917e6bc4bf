"""How accurate, complete, pure and fast PSFs and catalogs are, on simulated quadrants with truth.

Run ``python benchmarks/catalogs.py [FIELD:EPOCH ...]`` (default ``hl:0 gp:0``). The data lie in
``$GUESTSTAR_SHARED/data`` or ``../shared/data``: bench_hl (high galactic latitude) and bench_gp (Galactic plane), raw
exposures, masters and truth. Times are seconds of CPU of the second of two runs.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.cameras.load import load_camera
from gueststar.cameras.translate import translate
from gueststar.core.bits import MaskPlane
from gueststar.formats.raw import read_detector, read_headers
from gueststar.model.calibration import CalibrationKind, CalibrationMaster
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import MakeCatalogs
from gueststar.pipelines.science.detrend import Detrend
from gueststar.pipelines.science.psf import MeasurePsf

Floats = NDArray[np.float64]
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parent.parent
CAMERA = ROOT / "benchmarks/cameras/quadrant.yaml"
GAIN, SCALE_MAS, EXPECTED_FWHM = 6.0, 1010.0, 2.2
MAGNITUDES = (13.5, 15.0, 16.5, 18.0, 19.0, 20.0, 20.5, 21.0)
STAR_NEIGHBOUR_PIXELS = 6.0
"""On the sparse field, stars count for the scatter only if no other object lies nearer than this."""


class Truth(NamedTuple):
    """What lies in the image: positions (0-based), electrons, magnitudes, kinds."""

    x: Floats
    y: Floats
    flux: Floats
    magnitude: Floats
    is_star: NDArray[np.bool_]
    is_saturated: NDArray[np.bool_]
    events: Floats
    """``[n, 2]`` positions of transients, variables and asteroids, which are real too."""


def data_folder() -> Path:
    """Return the folder of the shared data."""
    shared = Path(os.environ.get("GUESTSTAR_SHARED", ROOT.parent / "shared"))
    return shared / "data" if (shared / "data").is_dir() else ROOT.parent.parent / "shared/data"


def read_master(path: Path, kind: CalibrationKind, bad: NDArray[Any]) -> CalibrationMaster:
    values = fits.getdata(path).astype(np.float32)
    mask = np.where(bad > 0, int(MaskPlane.BAD), 0)
    # The masters are taken to be nearly noiseless: their own variance enters that of the exposure.
    pixels = MaskedImage(values, np.full_like(values, 1e-6), mask)
    return CalibrationMaster(kind, 0, pixels, 60400.0, 20, "r" if kind == "flat" else None)


def science_pixels(folder: Path, epoch: int) -> MaskedImage:
    """Return a detrended, sky-subtracted exposure."""
    camera = load_camera(CAMERA)
    raw = read_headers(folder / f"sci{epoch:02d}_raw.fits.fz")
    bad = fits.getdata(folder / "cal_badpix.fits.fz")
    detrended = Detrend().run(
        read_detector(raw.path, camera.detectors[0], translate(camera, raw).info),
        bias=read_master(folder / "cal_bias.fits.fz", "bias", bad),
        flat=read_master(folder / "cal_flat.fits.fz", "flat", bad),
    )
    return SubtractBackground().run(detrended.pixels).pixels


def read_truth(folder: Path, epoch: int) -> Truth:
    with fits.open(folder / f"sci{epoch:02d}_truth.fits") as hdus:
        t, events = hdus["SOURCES"].data, hdus["EVENTS"].data
        places = np.column_stack([events["x"] - 1.0, events["y"] - 1.0])
        return Truth(
            t["x"] - 1.0, t["y"] - 1.0, t["flux"].astype(float) * GAIN, t["m_inst"].astype(float),
            t["type"] == 0, t["sat"] > 0, places,
        )  # fmt: skip


def timed(what: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result and the CPU seconds of a second run (the first may compile)."""
    what()
    start = time.process_time()
    result = what()
    return result, time.process_time() - start


def spread(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def tree(x: Floats, y: Floats) -> cKDTree:
    return cKDTree(np.column_stack([x, y]))


def without_plate(x: Floats, y: Floats, offset: Floats, is_fitted: NDArray[np.bool_]) -> Floats:
    """Return offsets less a clipped fourth-order polynomial of position."""
    terms = polynomial_terms(*normalised(x, y, (3080, 3072)), 4).T
    used = is_fitted.copy()
    for _ in range(4):
        left = offset - terms @ np.linalg.lstsq(terms[used], offset[used], rcond=None)[0]
        used = is_fitted & (np.abs(left) < 0.1)
    return left


def report(name: str, truth: Truth, x: Floats, y: Floats, flux: Floats, errors: tuple[Floats, Floats] | None) -> None:
    """Print scatter, pulls, completeness and purity of a catalog against the truth."""
    to_truth, nearest = tree(truth.x, truth.y).query(np.column_stack([x, y]))
    to_source, back = tree(x, y).query(np.column_stack([truth.x, truth.y]))
    row = np.flatnonzero((to_truth < 1.0) & (back[nearest] == np.arange(x.size)))
    own = nearest[row]
    second = tree(truth.x, truth.y).query(np.column_stack([truth.x, truth.y]), k=2)[0][:, 1]
    is_sparse = truth.x.size < 20_000
    is_good = truth.is_star & ~truth.is_saturated & ((second > STAR_NEIGHBOUR_PIXELS) | (not is_sparse))
    is_event = tree(*truth.events.T).query(np.column_stack([x, y]))[0] < 2.0
    ratio = flux[row] / truth.flux[own]
    bright = is_good[own] & (truth.magnitude[own] < 17)
    ratio /= np.median(ratio[bright])
    left = [without_plate(truth.x[own], truth.y[own], a[row] - b[own], bright) for a, b in ((x, truth.x), (y, truth.y))]
    purity = np.mean((to_truth < 1.5) | is_event)
    print(f"  {name}: {x.size} sources, purity {purity:.3f}")
    for low, high in itertools.pairwise(MAGNITUDES):
        inside = (truth.magnitude >= low) & (truth.magnitude < high)
        s = (is_good & inside)[own]
        found = to_source[truth.is_star & ~truth.is_saturated & inside] < 1.5
        line = f"    {low:4.1f}-{high:4.1f}  scatter {1085.7 * spread(ratio[s]):6.1f} mmag"
        line += f"  position {SCALE_MAS * spread(left[0][s]):5.1f} {SCALE_MAS * spread(left[1][s]):5.1f} mas"
        line += f"  complete {found.mean():.3f}"
        if errors is not None:
            pull = (ratio[s] - 1.0) * flux[row][s] / ratio[s] / errors[0][row][s]
            line += f"  pulls flux {np.median(pull):5.2f} +- {spread(pull):.2f}"
            line += f", x {spread(left[0][s] / errors[1][row][s]):.2f}"
        print(line)


def sep_catalog(pixels: MaskedImage) -> tuple[Floats, Floats, Floats]:
    """Return positions and fluxes as sep's usual recipe gives them: windowed centres, aperture of 3 pixels."""
    error, mask = np.sqrt(pixels.variance), ~pixels.is_usable()
    objects = sep.extract(pixels.image, 1.5, err=error, mask=mask, deblend_cont=0.005, minarea=5)
    radius, _ = sep.flux_radius(pixels.image, objects["x"], objects["y"], 6.0 * objects["a"], 0.5, subpix=5)
    x, y, _ = sep.winpos(pixels.image, objects["x"], objects["y"], radius * 2.0 / 2.35, mask=mask)
    flux, _, _ = sep.sum_circle(pixels.image, x, y, 3.0, mask=mask, subpix=0)
    return x, y, flux


def report_psf(metrics: dict[str, Any], seconds: float) -> None:
    size, e1, e2 = (metrics[f"{name}_difference"] for name in ("size", "e1", "e2"))
    print(f"  PSF {seconds:.2f} s: order {metrics['order']}, fwhm {metrics['fwhm']:.3f} pixels,", end=" ")
    print(f"{metrics['n_used']} stars used, {metrics['n_reserved']} reserved")
    print(f"    dT/T {size['mean']:.5f} +- {size['mean_err']:.5f} (rms {size['rms']:.4f})", end="")
    print(f"  de1 {e1['mean']:.5f} +- {e1['mean_err']:.5f}  de2 {e2['mean']:.5f} +- {e2['mean_err']:.5f}")
    for part in metrics["size_difference_by_flux"]:
        print(f"      at {part['flux']:9.0f} e-: dT/T {part['mean']:.5f} +- {part['mean_err']:.5f}")


def run(field: str, epoch: int) -> None:
    folder = data_folder() / f"bench_{field}"
    pixels, truth = science_pixels(folder, epoch), read_truth(folder, epoch)
    print(f"bench_{field} epoch {epoch}: {np.mean(~pixels.is_usable()):.2%} of the pixels masked")
    measured, psf_seconds = timed(lambda: MeasurePsf().run(pixels, expected_fwhm=EXPECTED_FWHM))
    report_psf(measured.metrics, psf_seconds)
    catalogs, seconds = timed(lambda: MakeCatalogs().run(pixels, measured.psf))
    m = catalogs.metrics
    print(f"  catalogs {seconds:.2f} s: by pass {m['n_by_pass']}, noise ratio {m['noise_ratio']:.3f}", end=" ")
    print(f"model error {m['model_error']:.4f}, floor {m['flux_floor']:.4f}", end=" ")
    print(f"aperture correction {m['aperture_correction']:.4f}")
    source: Catalog = catalogs.psf
    errors = (source["flux_err"].astype(float), source["x_err"].astype(float))
    report("PSF fits", truth, source["x"], source["y"], source["flux"], errors)
    aperture = catalogs.aperture
    report("total fluxes", truth, aperture["x"], aperture["y"], aperture["total_flux"], None)
    (x, y, flux), sep_seconds = timed(lambda: sep_catalog(pixels))
    report(f"sep, aperture of 3 pixels ({sep_seconds:.2f} s)", truth, x, y, flux.astype(float), None)


if __name__ == "__main__":
    sep.set_extract_pixstack(5_000_000)
    for argument in sys.argv[1:] or ["hl:0", "gp:0"]:
        run(argument.split(":")[0], int(argument.split(":")[1]))
