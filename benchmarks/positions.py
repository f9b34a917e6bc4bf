"""How good positions on the sky are, against the truth of the simulated quadrants, and how few stars suffice.

Run ``python benchmarks/positions.py [FIELD:EPOCH ...]`` (default ``hl:0 hl:1 hl:2 hl:3 gp:0``); the data lie in
``$GUESTSTAR_SHARED/data`` or ``../shared/data`` (see benchmarks/catalogs.py). Nothing is fitted to the truth.
Scatter is 1.4826 times the median absolute offset of isolated, unsaturated stars, mas per axis; the pull is offsets by
their errors. The second table solves few stars of the last high-latitude epoch (drawn at random from half as many
again, the brightest), without and with the distortion that was learned from the others: the rms over the detector, per
axis, of the difference from the solution of all stars.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs import EXPECTED_FWHM, data_folder, science_pixels
from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.learn_distortion import LearnDistortionConfig, MatchedStars, learn_distortion
from gueststar.algorithms.astrometry.tangent import tangent_project
from gueststar.core.errors import DataError
from gueststar.formats.named_table import read_named_table
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.catalog import Catalog
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import AstrometrySolution, SolveAstrometry
from gueststar.pipelines.science.catalogs import MakeCatalogs
from gueststar.pipelines.science.psf import MeasurePsf

Floats = NDArray[np.float64]

SHAPE = (3080, 3072)
BINS = ((13.5, 15.0), (15.0, 16.5), (16.5, 18.0), (18.0, 19.0))
FEW = (8, 10, 15, 25, 50, 100, 300)
DRAWS = 20


class Epoch(NamedTuple):
    """An exposure's measured sources and where they truly are."""

    sources: Catalog
    reference: Catalog
    start: Wcs
    ra: Floats
    """True place of the nearest true object, degrees."""
    dec: Floats
    magnitude: Floats
    is_clean: NDArray[np.bool_]
    """An unsaturated star with no other object within 6 pixels."""


def read_epoch(field: str, epoch: int) -> Epoch:
    """Detrend an exposure, measure its sources and join them with the truth."""
    folder = data_folder() / f"bench_{field}"
    pixels = science_pixels(folder, epoch)
    sources = MakeCatalogs().run(pixels, MeasurePsf().run(pixels, expected_fwhm=EXPECTED_FWHM).psf).psf
    return joined(field, epoch, sources)


def joined(field: str, epoch: int, sources: Catalog) -> Epoch:
    folder = data_folder() / f"bench_{field}"
    reference = refcat_from_table(read_named_table(folder / "refcat.fits.gz")).catalog
    start = Wcs.from_header(fits.getheader(folder / f"sci{epoch:02d}_raw.fits.fz", 1))
    truth, sky = (
        fits.getdata(folder / f"sci{epoch:02d}_truth.fits", "SOURCES"), fits.getdata(folder / "truth_sky.fits.gz", 1)
    )  # fmt: skip
    row = np.argsort(sky["id"])[np.searchsorted(np.sort(sky["id"]), truth["id"])]
    places = np.column_stack([truth["x"] - 1.0, truth["y"] - 1.0])
    tree = cKDTree(places)
    is_alone = tree.query(places, k=2)[0][:, 1] > 6.0
    distance, near = tree.query(np.column_stack([sources["x"], sources["y"]]))
    clean = (distance < 1.0) & (truth["type"][near] == 0) & (truth["sat"][near] == 0) & is_alone[near]
    return Epoch(
        sources,
        reference,
        start,
        sky["ra"][row][near],
        sky["dec"][row][near],
        truth["m_inst"][near].astype(float),
        clean,
    )


def solve(epoch: Epoch, sources: Catalog | None = None, distortion: Distortion | None = None) -> AstrometrySolution:
    return SolveAstrometry().run(
        epoch.sources if sources is None else sources, start=epoch.start, shape=SHAPE, reference=epoch.reference,
        epoch_year=2024.0, distortion=distortion,
    )  # fmt: skip


def scatter(offsets: Floats) -> float:
    return float(1.4826 * np.median(np.abs(offsets)))


def offsets_mas(epoch: Epoch, places: tuple[Floats, Floats]) -> Floats:
    east = ((places[0] - epoch.ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(epoch.dec))
    return np.column_stack([east, places[1] - epoch.dec]) * 3.6e6


def report(name: str, epoch: Epoch) -> AstrometrySolution:
    solve(epoch)
    begin = time.process_time()
    solution = solve(epoch)
    seconds = time.process_time() - begin
    found, m = epoch.sources, solution.metrics
    print(f"{name}: {m.n_fitted} stars fitted, order {m.order}, CPU {seconds:.2f} s; displacement by the air", end=" ")
    if solution.displacement is None:
        print("not found")
    else:
        print(f"{m.displacement_mas:.1f} mas over {m.displacement_length_arcsec:.0f} arcsec", end=", ")
        print(f"gain {m.displacement_gain:.0%}")
    wcs = offsets_mas(epoch, solution.wcs.pixel_to_sky(x=found["x"], y=found["y"]))
    final = offsets_mas(epoch, solution.places(found["x"], found["y"]))
    error = 1000.0 * np.hypot(
        solution.wcs.pixel_scale_arcsec * 0.5 * (found["x_err"] + found["y_err"]),
        solution.error_arcsec(found["x"], found["y"]),
    )
    snr = found["flux"] / found["flux_err"]
    rows = [(f"{a:.1f}-{b:.1f}", (epoch.magnitude >= a) & (epoch.magnitude < b)) for a, b in BINS]
    for label, chosen in (*rows, ("S/N >= 10", snr >= 10.0)):
        used = epoch.is_clean & chosen
        pull = scatter(final[used] / error[used][:, None])
        print(f"  {label:10s} {used.sum():5d} stars: map {scatter(wcs[used]):5.1f},", end=" ")
        print(f"catalog {scatter(final[used]):5.1f} mas, pull {pull:.2f}")
    return solution


def matched(epoch: Epoch, solution: AstrometrySolution) -> MatchedStars:
    """Return the fitted stars with their catalog places."""
    row = {int(s): int(r) for s, r in zip(solution.matches.source, solution.matches.reference, strict=True)}
    fitted = np.array([s for s in solution.fitted if int(s) in row])
    fitted = fitted[np.argsort(-epoch.sources["flux"][fitted])]
    star = np.array([row[int(s)] for s in fitted])
    ra0, dec0 = solution.wcs.crval
    plane = np.column_stack(
        tangent_project(epoch.reference["ra"][star], epoch.reference["dec"][star], ra0=ra0, dec0=dec0)
    )
    x, y, error = (epoch.sources[name][fitted].astype(float) for name in ("x", "y", "x_err"))
    return MatchedStars(x, y, 3600.0 * plane, np.hypot(error, 0.005))


def few_stars(epochs: list[Epoch], solutions: list[AstrometrySolution]) -> None:
    """Print the error of solutions of few stars of the last epoch."""
    learned = learn_distortion(
        [matched(e, s) for e, s in zip(epochs[:-1], solutions[:-1], strict=True)], SHAPE, LearnDistortionConfig()
    )
    if learned is None:
        print("too little to learn the distortion from")
        return
    print(f"distortion learned from {learned.n_stars} stars of {learned.n_exposures} exposures")
    epoch, whole, rng = epochs[-1], solutions[-1], np.random.default_rng(0)
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, SHAPE[1] - 1, 12), np.linspace(0, SHAPE[0] - 1, 12)))
    expected = whole.wcs.pixel_to_sky(x=x, y=y)
    bright = whole.fitted[np.argsort(epoch.magnitude[whole.fitted])]
    for n in FEW:
        print(f"  {n:4d} stars:", end="")
        for name, distortion in (("without", None), ("with", learned.distortion)):
            errors = []
            for _ in range(DRAWS):
                chosen = rng.choice(bright[: int(1.5 * n)], n, replace=False)
                try:
                    found = solve(epoch, epoch.sources.select(chosen), distortion).wcs.pixel_to_sky(x=x, y=y)
                except DataError:
                    continue
                east = ((found[0] - expected[0] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(expected[1]))
                errors.append(3.6e6 * np.sqrt(np.mean(np.square([east, found[1] - expected[1]]))))
            median = f"{np.median(errors):7.0f} mas" if errors else "          -"
            print(f"  {name} {median}, solved {len(errors):2d} of {DRAWS}", end=";")
        print()


def main() -> None:
    names = sys.argv[1:] or ["hl:0", "hl:1", "hl:2", "hl:3", "gp:0"]
    epochs, solutions = [], []
    for name in names:
        field, number = name.split(":")
        epoch = read_epoch(field, int(number))
        solution = report(name, epoch)
        if field == "hl":
            epochs.append(epoch)
            solutions.append(solution)
    if len(epochs) >= 4:
        few_stars(epochs, solutions)


if __name__ == "__main__":
    main()
