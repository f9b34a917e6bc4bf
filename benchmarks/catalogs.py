"""How accurate, complete, pure and fast PSFs and catalogs are, on simulated quadrants with truth.

Run ``python benchmarks/catalogs.py [--photutils] [FIELD:EPOCH ...]`` (default ``hl:0 gp:0``). The data lie in
``$GUESTSTAR_SHARED/data`` or ``../shared/data``: bench_hl (high galactic latitude) and bench_gp (Galactic plane), raw
exposures, masters and truth. Times are seconds of CPU of the second of two runs; peers run in the same process
on the same pixels, and their time is told as a multiple of ours for PSF and catalogs together. ``--photutils``
fits the sources that sep found with `photutils.psf.PSFPhotometry` (minutes). Floors are what photon, sky and read
noise leave of an isolated star, optimally weighted with the PSF used; the flat's noise is not in them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
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
from gueststar.model.calibration import CalibrationKind, CalibrationMaster, Calibrations
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.model.psf import Psf
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
"""Stars count for scatter and pulls only if no other object, however faint, lies nearer than this."""


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
        Calibrations(
            bias=read_master(folder / "cal_bias.fits.fz", "bias", bad),
            flat=read_master(folder / "cal_flat.fits.fz", "flat", bad),
        ),
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


def without_plate(x: Floats, y: Floats, offset: Floats, is_fitted: NDArray[np.bool_], *, order: int) -> Floats:
    """Return offsets less a clipped polynomial of position, of less than ``order`` where there are few stars."""
    while order > 0 and is_fitted.sum() < 2 * (order + 1) * (order + 2):
        order -= 1
    terms = polynomial_terms(*normalised(x, y, (3080, 3072)), order).T
    used = is_fitted.copy()
    for _ in range(4):
        left = offset - terms @ np.linalg.lstsq(terms[used], offset[used], rcond=None)[0]
        used = is_fitted & (np.abs(left) < 5.0 * spread(left[is_fitted]))
    return left


class Floor(NamedTuple):
    """What noise leaves of an isolated star: the PSF in the middle of the image, and the sky's variance."""

    stamp: Floats
    slope: Floats
    """Derivative of the stamp by the star's x."""
    sky_variance: float

    def errors(self, flux: float) -> tuple[float, float]:
        """Return the least relative error of the flux and the least error of a position along x, pixels."""
        information = 1.0 / (self.sky_variance + flux * np.maximum(self.stamp, 0.0))
        in_flux, in_x = np.sum(information * self.stamp**2), flux**2 * np.sum(information * self.slope**2)
        return float(1.0 / np.sqrt(in_flux) / flux), float(1.0 / np.sqrt(in_x))


def floor_of(psf: Psf, pixels: MaskedImage) -> Floor:
    sky = float(np.percentile(pixels.variance[pixels.is_usable()][::37], 20))
    x, y = psf.shape[1] / 2, psf.shape[0] / 2
    slope = (psf.stamp(x=x, y=y, dx=0.1) - psf.stamp(x=x, y=y, dx=-0.1)) / 0.2
    return Floor(psf.stamp(x=x, y=y).astype(float), slope.astype(float), sky)


def report(
    name: str,
    truth: Truth,
    x: Floats,
    y: Floats,
    flux: Floats,
    errors: tuple[Floats, Floats, Floats] | None = None,
    floor: Floor | None = None,
    *,
    match: float = 1.5,
    neighbour: float = STAR_NEIGHBOUR_PIXELS,
    bins: tuple[float, ...] = MAGNITUDES,
    plate_order: int = 4,
) -> None:
    """Print scatter beside its floor, pulls, completeness and purity of a catalog against the truth."""
    to_truth, nearest = tree(truth.x, truth.y).query(np.column_stack([x, y]))
    to_source, back = tree(x, y).query(np.column_stack([truth.x, truth.y]))
    row = np.flatnonzero((to_truth < match / 1.5) & (back[nearest] == np.arange(x.size)))
    own = nearest[row]
    second = tree(truth.x, truth.y).query(np.column_stack([truth.x, truth.y]), k=2)[0][:, 1]
    is_good = truth.is_star & ~truth.is_saturated & (second > neighbour)
    is_event = tree(*truth.events.T).query(np.column_stack([x, y]))[0] < 2.0
    ratio = flux[row] / truth.flux[own]
    bright = is_good[own] & (truth.magnitude[own] < 17)
    ratio /= np.median(ratio[bright]) if bright.any() else 1.0
    left = [
        without_plate(truth.x[own], truth.y[own], a[row] - b[own], bright, order=plate_order)
        for a, b in ((x, truth.x), (y, truth.y))
    ]
    print(f"  {name}: {x.size} sources, purity {np.mean((to_truth < match) | is_event):.3f}")
    for low, high in itertools.pairwise(bins):
        inside = (truth.magnitude >= low) & (truth.magnitude < high)
        s = (is_good & inside)[own]
        found = to_source[truth.is_star & ~truth.is_saturated & inside] < match
        if not s.any():
            continue
        line = f"    {low:4.1f}-{high:4.1f}  scatter {1085.7 * spread(ratio[s]):6.1f} mmag"
        in_flux, in_x = floor.errors(float(np.median(truth.flux[own][s]))) if floor else (np.nan, np.nan)
        line += f" (floor {1085.7 * in_flux:5.1f})" if floor else ""
        line += f"  position {SCALE_MAS * spread(left[0][s]):5.1f} {SCALE_MAS * spread(left[1][s]):5.1f} mas"
        line += f" (floor {SCALE_MAS * in_x:5.1f})" if floor else ""
        line += f"  complete {found.mean():.3f}"
        if errors is not None:
            pull = (ratio[s] - 1.0) * flux[row][s] / ratio[s] / errors[0][row][s]
            line += f"  pulls flux {np.median(pull):5.2f} +- {spread(pull):.2f}"
            line += f", x {spread(left[0][s] / errors[1][row][s]):.2f} y {spread(left[1][s] / errors[2][row][s]):.2f}"
        print(line)


def report_classes(aperture: Catalog, truth: Truth) -> None:
    """Print how many stars and galaxies are on the right side of a star-likeness of one half."""
    distance, nearest = tree(truth.x, truth.y).query(np.column_stack([aperture["x"], aperture["y"]]))
    for low, high in ((16.0, 18.0), (18.0, 19.0), (19.0, 20.0)):
        near = (distance < 1.0) & (truth.magnitude[nearest] >= low) & (truth.magnitude[nearest] < high)
        is_star, is_said = truth.is_star[nearest], aperture["class_star"] > 0.5
        if (near & ~is_star).sum() >= 10:
            right = [np.mean(is_said[near & is_star]), np.mean(~is_said[near & ~is_star])]
            print(
                f"    {low:.0f}-{high:.0f}: stars called stars {right[0]:.2f}, galaxies called galaxies {right[1]:.2f}"
            )


def photutils_catalog(pixels: MaskedImage, psf: Psf, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the given sources fitted by photutils with the PSF of the middle of the image, close ones together."""
    from astropy.table import Table
    from photutils.psf import ImagePSF, PSFPhotometry, SourceGrouper

    fwhm = psf.central_fwhm
    model = ImagePSF(psf.stamp(x=psf.shape[1] / 2, y=psf.shape[0] / 2).astype(float))
    fit = PSFPhotometry(
        model, (7, 7), grouper=SourceGrouper(1.6 * fwhm), aperture_radius=fwhm, progress_bar=False
    )  # fmt: skip
    found = fit(
        pixels.image, mask=~pixels.is_usable(), error=np.sqrt(pixels.variance),
        init_params=Table({"x": x, "y": y}),
    )  # fmt: skip
    good = np.isfinite(found["flux_fit"]) & np.isfinite(found["x_fit"])
    return tuple(np.asarray(found[f"{name}_fit"][good], dtype=float) for name in ("x", "y", "flux"))  # type: ignore[return-value]


class PeakMemory:
    """The largest resident memory of this process since it was made, MiB (Linux; else not a number)."""

    def __init__(self) -> None:
        self.before = self._field("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.before = float("nan")

    def added(self) -> float:
        return self._field("VmHWM") - self.before

    @staticmethod
    def _field(name: str) -> float:
        try:
            found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        except OSError:
            return float("nan")
        return int(found.group(1)) / 1024.0 if found else float("nan")


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
    if size["mean"] is None:
        print("    too few stars to test the model")
        return
    print(f"    dT/T {size['mean']:.5f} +- {size['mean_err']:.5f} (rms {size['rms']:.4f})", end="")
    print(f"  de1 {e1['mean']:.5f} +- {e1['mean_err']:.5f}  de2 {e2['mean']:.5f} +- {e2['mean_err']:.5f}")
    for part in metrics["size_difference_by_flux"]:
        if part["mean"] is not None:
            print(f"      at {part['flux']:9.0f} e-: dT/T {part['mean']:.5f} +- {part['mean_err']:.5f}")


def run(field: str, epoch: int, *, is_with_photutils: bool) -> None:
    folder = data_folder() / f"bench_{field}"
    pixels, truth = science_pixels(folder, epoch), read_truth(folder, epoch)
    print(f"bench_{field} epoch {epoch}: {np.mean(~pixels.is_usable()):.2%} of the pixels masked")
    memory = PeakMemory()
    measured, psf_seconds = timed(lambda: MeasurePsf().run(pixels, expected_fwhm=EXPECTED_FWHM))
    report_psf(measured.metrics, psf_seconds)
    catalogs, seconds = timed(lambda: MakeCatalogs().run(pixels, measured.psf))
    m = catalogs.metrics
    print(f"  catalogs {seconds:.2f} s: by pass {m['n_by_pass']}, noise ratio {m['noise_ratio']:.3f}", end=" ")
    print(f"model error {m['model_error']:.4f}, floor {m['flux_floor']:.4f} to {m['flux_floor_corner']:.4f},", end=" ")
    print(f"aperture correction {m['aperture_correction']:.4f}, memory beyond the image {memory.added():.0f} MiB")
    source: Catalog = catalogs.psf
    errors = tuple(source[name].astype(float) for name in ("flux_err", "x_err", "y_err"))
    report("PSF fits", truth, source["x"], source["y"], source["flux"], errors, floor_of(measured.psf, pixels))
    aperture = catalogs.aperture
    report("total fluxes", truth, aperture["x"], aperture["y"], aperture["total_flux"])
    report_classes(aperture, truth)
    ours = psf_seconds + seconds
    (x, y, flux), sep_seconds = timed(lambda: sep_catalog(pixels))
    report(f"sep, aperture of 3 pixels ({sep_seconds / ours:.2f} of our time)", truth, x, y, flux.astype(float))
    if is_with_photutils:
        start = time.process_time()
        x, y, flux = photutils_catalog(pixels, measured.psf, x, y)
        report(f"photutils PSF ({(time.process_time() - start) / ours:.0f} times our time)", truth, x, y, flux)


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy, completeness, purity and speed of PSFs and catalogs.")
    parser.add_argument("fields", nargs="*", default=["hl:0", "gp:0"], metavar="FIELD:EPOCH")
    parser.add_argument("--photutils", action="store_true", help="also photutils' PSF photometry, which takes minutes")
    chosen = parser.parse_args()
    sep.set_extract_pixstack(5_000_000)
    for name in ("source-extractor", "psfex"):
        print(f"not compared: {name} ({'not ' if shutil.which(name) is None else ''}installed)")
    for argument in chosen.fields:
        run(argument.split(":")[0], int(argument.split(":")[1]), is_with_photutils=chosen.photutils)


if __name__ == "__main__":
    main()
