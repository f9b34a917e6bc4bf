"""Cosmic rays found and good pixels lost, in all seeings and crowded fields, ours and astroscrappy in the same run.

    python benchmarks/cosmic_rays.py [--side 1024] [--seed 1] [hl gp]

Star fields of our own simulation (`star_fields.py`) get tracks whose charge is known pixel by pixel. *Found* are pixels
with more charge than three times the noise of sky and stars there that are marked. *Lost* are marked pixels without any
charge, as a fraction of the image. *Cores* are the central pixels of stars of more than 50 sigma, free of charge,
that are marked. "image" is the search on the image alone, "stars" what is marked after the stars were subtracted.
With ``hl`` or ``gp`` the bench quadrants are looked at too: their files tell which pixels rays struck if the charge is
above a level, so that *lost* counts pixels that neither are such nor touch one. Spikes of stars count as good pixels.
"""

from __future__ import annotations

import argparse
import time

import astroscrappy
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from catalogs import data_folder, science_pixels
from gueststar.algorithms.background.estimate import BackgroundConfig, estimate_background
from gueststar.algorithms.detrend.cosmic_rays import remove_cosmic_rays_in_place
from gueststar.algorithms.detrend.star_sharpness import measure_star_sharpness
from gueststar.core.bits import MaskPlane
from gueststar.model.image import MaskedImage
from gueststar.pipelines.science.catalogs import MakeCatalogs
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.simulation.cosmic_rays import add_cosmic_rays_in_place
from star_fields import FIELDS, READ_NOISE, SKY, Field, simulate

Booleans = NDArray[np.bool_]


def marked(pixels: MaskedImage) -> Booleans:
    return (pixels.mask & int(MaskPlane.COSMIC_RAY)) != 0


def after_catalogs(pixels: MaskedImage) -> Booleans:
    """Return what is marked once the stars have been subtracted."""
    psf = MeasurePsf().run(pixels, expected_fwhm=2.5).psf
    rays = MakeCatalogs().run(pixels, psf).rays
    is_marked = marked(pixels)
    is_marked[rays.y, rays.x] = True
    return is_marked


def run(field: Field, *, side: int, seed: int) -> None:
    n_stars = round(field.stars_per_arcmin2 * side**2 / 3600.0)
    pixels, truth = simulate(field, side=side, seed=seed, n_stars=n_stars)
    charge = np.zeros(pixels.shape, np.float32)
    add_cosmic_rays_in_place(charge, np.random.default_rng(seed + 1000), per_mpix_s=1.5, seconds=30.0)
    image, is_saturated = pixels.image + charge, ~pixels.is_usable()
    sky = estimate_background(image, is_saturated, config=BackgroundConfig(box=256, iterations=3))
    start = time.process_time()
    sharpness = measure_star_sharpness(image, sky.level, sky.rms, is_saturated)
    rays = remove_cosmic_rays_in_place(
        image, sky.level, sky.rms, is_saturated, neighbour_ratio=sharpness.neighbour_ratio
    )  # fmt: skip
    seconds = time.process_time() - start
    mask = pixels.mask.copy()
    mask[rays.y, rays.x] |= int(MaskPlane.COSMIC_RAY)
    cleaned = MaskedImage(image, pixels.variance, mask)
    start = time.process_time()
    theirs, _ = astroscrappy.detect_cosmics(
        pixels.image + charge + SKY, inmask=is_saturated, gain=1.0, readnoise=READ_NOISE, satlevel=np.inf,
        sigclip=4.5, sigfrac=0.3, objlim=5.0, cleantype="medmask",
    )  # fmt: skip
    their_seconds = time.process_time() - start
    is_clear = (charge > 3.0 * np.sqrt(pixels.variance)) & ~is_saturated
    is_good = (charge <= 0) & ~is_saturated
    bright = truth.flux > 50.0 * np.sqrt(SKY + READ_NOISE**2) * 2.1 * field.fwhm
    core = np.zeros(pixels.shape, bool)
    core[tuple(np.clip(np.rint(a[bright]).astype(int), 0, side - 1) for a in (truth.y, truth.x))] = True
    print(f"{field.name}: FWHM {field.fwhm} pixels, {n_stars} stars, {is_clear.sum()} pixels clearly struck")
    for who, found, cpu in (
        ("image", marked(cleaned), seconds), ("stars", after_catalogs(cleaned), np.nan),
        ("astroscrappy", theirs, their_seconds),
    ):  # fmt: skip
        print(f"  {who:12s} found {found[is_clear].mean():.3f}  lost {(found & is_good).mean():.1e}", end="")
        print(f"  cores {int((found & core & is_good).sum())} of {int((core & is_good).sum())}  {cpu:.2f} s")


def run_bench(name: str) -> None:
    pixels = science_pixels(data_folder() / f"bench_{name}", 0)
    struck = (fits.getdata(data_folder() / f"bench_{name}" / "sci00_truth.fits", "TMASK") & 1) != 0
    usable = pixels.is_usable(MaskPlane.BAD | MaskPlane.SATURATED | MaskPlane.BLEED)
    near = binary_dilation(struck, np.ones((3, 3)))
    print(f"bench_{name}: {(struck & usable).sum()} pixels struck")
    for who, found in (("image", marked(pixels)), ("stars", after_catalogs(pixels))):
        print(f"  {who:12s} found {found[struck & usable].mean():.3f}  lost {(found & ~near).mean():.1e}", end="")
        print(f"  marked without being in the truth {(found & ~struck).mean():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quadrants", nargs="*", metavar="hl gp", help="bench quadrants")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    for number, field in enumerate(FIELDS):
        run(field, side=chosen.side, seed=chosen.seed + number)
    for name in chosen.quadrants:
        run_bench(name)


if __name__ == "__main__":
    main()
