"""Does the map of limiting magnitudes say what is found? Artificial stars against it, region by region.

Run: python benchmarks/limits.py [--rounds N] [--data FOLDER]
Skies of our own (even, with a bright side, soft at the corners; 1024 x 1024 pixels), and the simulated quadrants
bench_hl (high galactic latitude) and bench_gp (Galactic plane) where they are. Each is cut into 3 x 3 regions; stars
are put into the calibrated image in rounds, and the catalog is made anew. Printed are, region by region, the map's
median and the magnitude at which half of the stars is found, with its error. In crowded fields some are lost to
neighbours before noise hides them: the map is then fainter than what is found.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs import data_folder, science_pixels
from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.algorithms.stats.completeness import fit_completeness
from gueststar.model.catalog import concatenate
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.place import InjectionConfig
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.pipelines.science.depth import MapDepth
from gueststar.pipelines.science.psf import MeasurePsf

N_REGIONS = 3


def completed(pixels: MaskedImage, psf: Psf) -> CalibratedImage:
    """Return a calibrated image with its map; zero point and WCS are made up."""
    ny, nx = pixels.shape
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=nx / 2, y=ny / 2, scale_arcsec=1.0)
    image = CalibratedImage(pixels, wcs, psf, PhotoCal(27.0, 0.01, band="r"))
    return replace(image, depth=MapDepth().run(pixels, psf, image.photocal))


def own_sky(kind: str, *, side: int = 1024, seed: int = 1) -> CalibratedImage:
    """Return a sky without stars: its noise is what the variance says."""
    rng = np.random.default_rng(seed)
    x = np.broadcast_to(np.linspace(0.0, 1.0, side), (side, side))
    variance = np.full((side, side), 400.0)
    if kind == "bright side":
        variance = 200.0 * np.exp(2.0 * x)
    stamps = [moffat_stamp(fwhm, reach_fwhm=12.0 / fwhm) for fwhm in (2.5, 4.5)]
    if kind == "soft corners":  # a quadratic in position, from the middle outwards
        growth = 0.5 * (stamps[1] - stamps[0])
        coefficients = np.stack([stamps[0], 0 * growth, 0 * growth, growth, 0 * growth, growth])
        psf = Psf(coefficients.astype(np.float32), 2, (side, side))
    else:
        psf = Psf(stamps[0][None], 0, (side, side))
    image = rng.poisson(variance) - variance
    return completed(MaskedImage(image, variance, np.zeros((side, side))), psf)


def bench_image(folder: Path) -> CalibratedImage:
    pixels = science_pixels(folder, 0)
    return completed(pixels, MeasurePsf().run(pixels, expected_fwhm=2.2).psf)


def compare(name: str, image: CalibratedImage, *, rounds: int, n: int) -> None:
    """Print the map and what is found of stars, region by region."""
    assert image.depth is not None
    limit = image.depth.median
    assert limit is not None
    config = InjectionConfig(n=n, brightest=-1.6, faintest=1.2, separation_fwhm=5.0)
    start, scores = time.process_time(), []
    for k in range(rounds):
        made = InjectSources(config).run(image, limiting_mag=limit, random=np.random.default_rng(k))
        found = MakeCatalogs().run(made.image.pixels, image.psf)
        sources = calibrate_sources(found.psf, image.wcs, image.photocal, visit=1, detector=1)
        scores.append(ScoreInjections(config).run(made, Detections(sources)).catalog)
    stars = concatenate(scores)
    ny, nx = image.shape
    region = [
        np.minimum((stars[axis] * N_REGIONS / size).astype(int), N_REGIONS - 1) for axis, size in (("x", nx), ("y", ny))
    ]
    stars_map = image.depth.at(x=stars["x"], y=stars["y"])
    print(
        f"\n{name}: {stars.n_rows} stars in {rounds} rounds, {time.process_time() - start:.0f} s of CPU;"
        " map / half found / difference, by region"
    )
    rows = []
    for j in reversed(range(N_REGIONS)):
        shown = []
        for i in range(N_REGIONS):
            mine = (region[0] == i) & (region[1] == j)
            rows.append(_of_region(stars_map[mine], stars["mag"][mine], stars["is_source_found"][mine]))
            mapped, half, error = rows[-1]
            shown.append(f"{mapped:.2f} / {half:.2f} +- {error:.2f} / {half - mapped:+.2f}")
        print("  " + "    ".join(shown))
    difference = np.array([half - mapped for mapped, half, _ in rows])
    print(f"  found less map: mean {np.nanmean(difference):+.3f}, scatter {np.nanstd(difference):.3f} mag")


def _of_region(
    mapped: NDArray[np.float64], magnitude: NDArray[np.float32], found: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Return the map's median, the magnitude at which half is found, and its error."""
    middle = float(np.nanmedian(mapped))
    # Stars are compared with the limit of their own place, so that a slope within a region does not blur the fall.
    fit = fit_completeness(np.asarray(magnitude, np.float64) - mapped + middle, found)
    return middle, fit.magnitude_50, fit.magnitude_50_err


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    for kind in ("even sky", "bright side", "soft corners"):
        compare(kind, own_sky(kind), rounds=options.rounds, n=500)
    for field in ("hl", "gp"):
        folder = (options.data or data_folder()) / f"bench_{field}"
        if not folder.is_dir():
            print(f"bench_{field}: left out, {folder} is not there")
            continue
        compare(f"bench_{field}", bench_image(folder), rounds=1, n=3000)


if __name__ == "__main__":
    main()
