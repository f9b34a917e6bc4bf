"""How often, how well and how fast the astrometric solution succeeds, and how often it believes a wrong field.

Run ``python benchmarks/astrometry.py [TRIALS]``. Fields are made here: exponential star counts, galaxies left out,
unknown cubic distortion, catalogs deeper or shallower than the image, blended and spurious detections.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import identity_tpv
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import SolveAstrometry

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One kind of field and how little is known of it."""

    name: str
    n_stars: int = 1000
    """On the detector, down to the image's limit."""
    shape: tuple[int, int] = (2048, 2048)
    scale_arcsec: float = 1.0
    pointing_arcmin: float = 5.0
    rotation_deg: float = 5.0
    scale_tolerance: float = 0.05
    is_parity_known: bool = True
    distortion: float = 0.003
    """Relative, at the corner."""
    is_distortion_told: bool = False
    """Told to the solver, 3 % wrong."""
    spurious: float = 0.0
    """Spurious detections per star."""
    depth: float = 0.5
    """Magnitudes by which the catalog goes deeper than the image (negative: shallower)."""
    bright_limit: float = -99.0
    """Magnitudes above the image's limit at which the catalog begins (its own saturation)."""
    completeness: float = 0.9
    """Of detections and of the catalog."""
    centroid_pixel: float = 0.1
    dec: float | None = None


def star_magnitudes(rng: np.random.Generator, n: int) -> Floats:
    """Return magnitudes below 0 (the image's limit) with counts rising as 10**(0.3 m)."""
    return np.maximum(np.log10(rng.uniform(size=n)) / 0.3, -20.0)


def true_wcs(rng: np.random.Generator, case: Case, dec: float) -> tuple[Wcs, Wcs]:
    """Return the WCS that is told and the true one."""
    ny, nx = case.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    ra, turn = rng.uniform(0, 360), rng.uniform(-180, 180)
    told = Wcs.tangent(ra=ra, dec=dec, x=x, y=y, scale_arcsec=case.scale_arcsec, rotation_deg=turn)
    offset = np.sqrt(rng.uniform()) * case.pointing_arcmin / 60.0
    angle = rng.uniform(0, 2 * np.pi)
    plane = Wcs.tangent(ra=ra, dec=dec, x=0, y=0, scale_arcsec=3600.0)
    ra_true, dec_true = plane.pixel_to_sky(x=offset * np.cos(angle), y=offset * np.sin(angle))
    plain = Wcs.tangent(
        ra=float(ra_true), dec=float(dec_true), x=x, y=y,
        scale_arcsec=case.scale_arcsec * (1 + rng.uniform(-1, 1) * case.scale_tolerance),
        rotation_deg=turn + rng.uniform(-1, 1) * case.rotation_deg,
        parity=1 if case.is_parity_known else int(rng.choice([-1, 1])),
    )  # fmt: skip
    pv1, pv2 = identity_tpv(), identity_tpv()
    corner = 0.5 * np.hypot(nx, ny) * case.scale_arcsec / 3600.0
    cubic = case.distortion / corner**2 * rng.uniform(-1, 1)
    square = (0.0 if case.is_distortion_told else 0.3) * case.distortion / corner * rng.uniform(-1, 1, 4)
    pv1[[4, 5, 7, 9]] = square[0], square[1], cubic, cubic
    pv2[[4, 5, 7, 9]] = square[2], square[3], cubic, cubic
    if case.is_distortion_told:
        near = [pv.copy() for pv in (pv1, pv2)]
        near[0][4:] *= 1.03
        near[1][4:] *= 0.97
        told = Wcs(told.crval, told.crpix, told.cd, *near)
    return told, Wcs(plain.crval, plain.crpix, plain.cd, pv1, pv2)


def make_field(rng: np.random.Generator, case: Case) -> tuple[Catalog, Catalog, Wcs, Wcs]:
    """Return sources, reference catalog, the told and the true WCS."""
    dec = case.dec if case.dec is not None else float(np.degrees(np.arcsin(rng.uniform(-0.98, 0.98))))
    told, truth = true_wcs(rng, case, dec)
    ny, nx = case.shape
    half = 0.5 * np.hypot(nx, ny) * 1.15 + 1.2 * case.pointing_arcmin * 60 / case.scale_arcsec
    deeper = 10 ** (0.3 * max(case.depth, 0.0))
    n = rng.poisson(case.n_stars * deeper / case.completeness * (2 * half) ** 2 / (nx * ny))
    x, y = nx / 2 + rng.uniform(-half, half, n), ny / 2 + rng.uniform(-half, half, n)
    magnitude = star_magnitudes(rng, n) + max(case.depth, 0.0)
    ra, dec_stars = truth.pixel_to_sky(x=x, y=y)
    known = (rng.uniform(size=n) < case.completeness) & (magnitude < case.depth) & (magnitude > case.bright_limit)
    seen = (x > 0) & (x < nx - 1) & (y > 0) & (y < ny - 1) & (magnitude < 0)
    seen &= rng.uniform(size=n) < case.completeness
    return (
        sources(rng, case, x[seen], y[seen], magnitude[seen]),
        refcat(rng, ra, dec_stars, magnitude, known),
        told,
        truth,
    )


def sources(rng: np.random.Generator, case: Case, x: Floats, y: Floats, magnitude: Floats) -> Catalog:
    """Return noisy detections, some of them spurious."""
    n_false = rng.poisson(case.spurious * x.size)
    error = np.maximum(case.centroid_pixel * 10 ** (0.4 * np.minimum(magnitude, 0)), 0.02)
    x, y = x + rng.normal(0, error), y + rng.normal(0, error)
    ny, nx = case.shape
    x = np.r_[x, rng.uniform(0, nx, n_false)]
    y = np.r_[y, rng.uniform(0, ny, n_false)]
    colour = rng.normal(0, 0.3, magnitude.size)
    every = np.r_[magnitude + colour, star_magnitudes(rng, n_false)]
    error = np.r_[error, np.full(n_false, case.centroid_pixel)]
    return Catalog({"x": x, "y": y, "x_err": error, "y_err": error, "flux": 10 ** (-0.4 * every) * 100})


def refcat(rng: np.random.Generator, ra: Floats, dec: Floats, magnitude: Floats, known: NDArray[np.bool_]) -> Catalog:
    """Return the known stars as a reference catalog."""
    n = int(known.sum())
    columns = {c.name: np.full(n, np.nan) if c.dtype == "f4" else np.zeros(n) for c in REFCAT.columns}
    columns |= {"ra": ra[known] + rng.normal(0, 5 / 3.6e6, n) / np.cos(np.radians(dec[known])), "dec": dec[known]}
    columns |= {"mag_r": magnitude[known], "ra_err": np.full(n, 5.0), "dec_err": np.full(n, 5.0)}
    columns |= {"epoch": np.full(n, 2016.0), "pm_ra": np.zeros(n), "pm_dec": np.zeros(n)}
    return REFCAT.catalog(columns)


def worst_error_pixel(solved: Wcs, truth: Wcs, shape: tuple[int, int], scale: float) -> float:
    """Return the largest error over a grid on the detector, pixels."""
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, 9), np.linspace(0, shape[0] - 1, 9))
    ra, dec = truth.pixel_to_sky(x=x, y=y)
    ra2, dec2 = solved.pixel_to_sky(x=x, y=y)
    da = (ra2 - ra + 180) % 360 - 180
    return float(np.max(np.hypot(da * np.cos(np.radians(dec)), dec2 - dec)) * 3600 / scale)


def solve(case: Case, found: Catalog, reference: Catalog, told: Wcs) -> Wcs:
    """Return the solution's WCS; DataError if refused."""
    solution = SolveAstrometry().run(
        found, start=told, shape=case.shape, reference=reference, epoch_year=2016.0,
        pointing_tolerance_arcmin=case.pointing_arcmin, rotation_tolerance_deg=case.rotation_deg,
        scale_tolerance=case.scale_tolerance, is_parity_known=case.is_parity_known,
    )  # fmt: skip
    return solution.wcs


WRONG_PIXELS = 5.0


class Tally(NamedTuple):
    """What became of fields that can be solved."""

    right: int
    """Off by less than a pixel everywhere on the detector."""
    rough: int
    """The right stars, but more than a pixel off in some corner: too few to tell the distortion."""
    refused: int
    wrong: int
    worst: list[float]
    """Largest error on the detector of each solution, pixels."""
    cpu: list[float]


def count(case: Case, trials: int, *, seed: int = 0) -> Tally:
    """Solve fields and compare with the truth: wrong is more than `WRONG_PIXELS` off somewhere."""
    right = rough = wrong = 0
    worst: list[float] = []
    cpu: list[float] = []
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        found, reference, told, truth = make_field(rng, case)
        begin = time.process_time()
        try:
            error = worst_error_pixel(solve(case, found, reference, told), truth, case.shape, case.scale_arcsec)
        except DataError as reason:
            cpu.append(time.process_time() - begin)
            if "-v" in sys.argv:
                print(trial, reason)
            continue
        cpu.append(time.process_time() - begin)
        worst.append(error)
        right, wrong = right + (error < 1.0), wrong + (error >= WRONG_PIXELS)
        rough += 1.0 <= error < WRONG_PIXELS
    return Tally(right, rough, trials - right - rough - wrong, wrong, worst, cpu)


def try_case(case: Case, trials: int) -> str:
    """Return a line of figures for right fields."""
    found = count(case, trials)
    return (
        f"{case.name:34s} right {found.right:4d} rough {found.rough:2d} refused {found.refused:4d} "
        f"wrong {found.wrong:3d} of {trials}; "
        f"worst error median {np.median(found.worst or [np.nan]):.3f} max {max(found.worst or [np.nan]):.2f} pixel; "
        f"CPU median {np.median(found.cpu):.3f} max {max(found.cpu):.2f} s"
    )


def try_wrong(case: Case, trials: int, *, seed: int = 1) -> str:
    """Return a line of figures for catalogs of another field."""
    believed, cpu = 0, []
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        found, _, told, _ = make_field(rng, case)
        _, other, there, _ = make_field(rng, case)
        begin = time.process_time()
        try:
            solve(case, found, other, Wcs(there.crval, told.crpix, told.cd, told.pv1, told.pv2))
            believed += 1
        except DataError:
            pass
        cpu.append(time.process_time() - begin)
    return (
        f"{case.name + ', wrong field':34s} believed {believed} of {trials}; "
        f"CPU median {np.median(cpu):.3f} max {max(cpu):.2f} s"
    )


CASES = (
    Case("usual"),
    Case("nearly right", pointing_arcmin=0.5, rotation_deg=0.2, scale_tolerance=0.01),
    Case("any rotation", rotation_deg=180),
    Case("any rotation, parity, 10 % scale", rotation_deg=180, is_parity_known=False, scale_tolerance=0.1),
    Case("20 arcmin off, any rotation", rotation_deg=180, pointing_arcmin=20, is_parity_known=False),
    Case("10 stars", n_stars=10, is_distortion_told=True),
    Case("10 stars, any rotation", n_stars=10, rotation_deg=180, is_distortion_told=True),
    Case(
        "20 stars, any rotation, parity",
        n_stars=20,
        rotation_deg=180,
        is_parity_known=False,
        scale_tolerance=0.1,
        is_distortion_told=True,
    ),
    Case("3 spurious a star", spurious=3.0),
    Case("3 spurious, any rotation, parity", spurious=3.0, rotation_deg=180, is_parity_known=False),
    Case("20 stars, 3 spurious a star", n_stars=20, spurious=3.0, is_distortion_told=True),
    Case("strong distortion (3 %)", distortion=0.03),
    Case("strong distortion, any rotation", distortion=0.03, rotation_deg=180),
    Case("catalog 3 mag deeper", depth=3.0),
    Case("catalog 3 mag shallower", depth=-3.0, n_stars=2000),
    Case("catalog lacks the bright stars", bright_limit=-4.0, n_stars=2000),
    Case("lacks the bright, any rotation", bright_limit=-4.0, n_stars=2000, rotation_deg=180),
    Case("lacks the brightest quarter", bright_limit=-2.0, n_stars=2000),
    Case("completeness 0.5", completeness=0.5),
    Case("near the pole", dec=89.95, rotation_deg=180),
    Case("20,000 stars", n_stars=20000),
    Case("100,000 stars, any rotation", n_stars=100000, rotation_deg=180),
)


HARDEST = Case(
    "", pointing_arcmin=20.0, rotation_deg=180.0, scale_tolerance=0.1, is_parity_known=False, distortion=0.01
)  # fmt: skip
"""Pointing 20 arcmin off on a field of 34, any rotation, either parity, 10 % of scale."""
GRID_STARS = (10, 20, 50, 200, 1000, 10000, 100000)
GRID_KINDS: dict[str, dict[str, Any]] = {
    "complete to 90 %": {},
    "complete to 50 %": {"completeness": 0.5},
    "1 false detection a star": {"spurious": 1.0},
    "3 false detections a star": {"spurious": 3.0},
    "catalog 2 mag deeper": {"depth": 2.0},
    "catalog 1.5 mag shallower": {"depth": -1.5},
    "catalog lacks the brightest 1 %": {"bright_limit": -6.67},
    "distortion of 3 %": {"distortion": 0.03},
    "shallower, half complete, 1 false a star": {"depth": -1.0, "completeness": 0.5, "spurious": 1.0},
}


def grid(trials: int) -> None:
    """Print the table of the whole stated range, and of other fields."""
    print("right / rough / refused / WRONG; median and largest CPU, s. Columns: stars on the detector")
    print(f"{'':42s}" + "".join(f"{n:>24d}" for n in GRID_STARS))
    for name, changes in GRID_KINDS.items():
        print(f"{name:42s}", end="", flush=True)
        for n in GRID_STARS:
            case = replace(HARDEST, n_stars=n, is_distortion_told=n < 200, **changes)
            tally = count(case, trials if n <= 1000 else max(trials // 4, 2))
            cell = "/".join(map(str, tally[:4])) + f" {np.median(tally.cpu):.2f} {max(tally.cpu):.1f}"
            print(f"{cell:>24s}", end="", flush=True)
        print()
    for n in GRID_STARS:
        case = replace(HARDEST, name=f"{n} stars", n_stars=n)
        print(try_wrong(case, trials if n <= 1000 else max(trials // 4, 2)), flush=True)


def main() -> None:
    trials = next((int(a) for a in sys.argv[1:] if a.isdigit()), 50)
    if "--grid" in sys.argv:
        grid(trials)
        return
    for case in CASES:
        print(try_case(case, trials if case.n_stars < 10000 else max(trials // 10, 3)), flush=True)
    for case in (CASES[0], CASES[3], CASES[6], replace(CASES[0], name="5,000 stars", n_stars=5000)):
        print(try_wrong(case, 4 * trials), flush=True)


if __name__ == "__main__":
    main()
