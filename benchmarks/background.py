"""Sky estimates against the truth where the sky is hard: ours, `sep` and photutils' `Background2D` in the same run.

    python benchmarks/background.py [--side 1024] [--seed 1]

Each scene has a sky of 800 electrons, read noise of 8 and stars, and one difficulty: none; a galaxy 0.3 of the frame
wide; the halo of a bright star; a gradient of 40 %; smooth nebulosity; filaments as narrow as a mesh; 30,000 stars on
a million pixels; galaxy, halo, gradient and nebulosity together. What an estimator should return is the sky without the
sources: gradient and nebulosity count as sky, galaxy and halo do not. Printed are mean and rms of estimate less truth,
electrons, over the pixels where no source is brighter than the noise of the sky, and over those that galaxy or halo
light ("under"); for ours also the pull, by the error that the estimate gives of itself. Times are seconds of CPU. All
use boxes of 128 pixels.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sep
from astropy.stats import SigmaClip
from numpy.typing import NDArray
from photutils.background import Background2D, SExtractorBackground
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from gueststar.algorithms.background.estimate import estimate_background

SKY, READ_NOISE, FWHM, BOX = 800.0, 8.0, 2.4, 128
Image = NDArray[np.float64]


class Scene(NamedTuple):
    """A noisy image and what is in it, electrons."""

    data: NDArray[np.float32]
    sky: Image
    sources: Image
    extended: Image
    """Galaxy and halo alone."""


def stars(side: int, n: int, random: np.random.Generator) -> Image:
    """Return stars whose numbers rise by 10**0.3 per magnitude."""
    light = np.zeros((side, side))
    flux = 300.0 * random.uniform(0, 1, n) ** (-1.0 / 0.75)
    np.add.at(light, tuple(random.integers(0, side, (2, n))), np.minimum(flux, 1e6))
    g = np.arange(-40, 41)
    r2 = g[:, None] ** 2 + g**2
    kernel = (1.0 + r2 / (0.5 * FWHM) ** 2 * (2.0 ** (1 / 2.5) - 1.0)) ** -2.5
    return np.maximum(fftconvolve(light, kernel / kernel.sum(), mode="same"), 0.0)


def simulate(name: str, *, side: int, random: np.random.Generator) -> Scene:
    y, x = np.mgrid[:side, :side] / side - 0.5
    is_all = name == "all together"
    sky = np.full((side, side), SKY)
    if is_all or name == "gradient":
        sky *= 1.0 + 0.4 * (0.8 * x + 0.6 * y) + 0.1 * x * y
    if is_all or name in ("nebulosity", "filaments"):
        cloud = gaussian_filter(random.normal(size=(side, side)), 0.2 * side, mode="wrap")
        thread = gaussian_filter(random.normal(size=(side, side)), 0.12 * side, mode="wrap")
        width = 0.25 if name == "filaments" else 1.0
        sky += 60.0 * cloud / cloud.std() + 100.0 * np.exp(-((thread / thread.std() / width) ** 2))
    extended = np.zeros((side, side))
    if is_all or name == "galaxy":
        r = np.hypot((x - 0.08) / 1.0, (y + 0.05) / 0.6)
        extended += 2500.0 * np.exp(-r / 0.045)  # 0.3 of the frame wide where it fades into the noise
    if is_all or name == "halo":
        r = np.hypot(x + 0.25, y - 0.2) * side
        extended += 3e6 / (60.0 + r) ** 2.2
    sources = stars(side, 30_000 if name == "crowded" else 1_500, random) * (side / 1024.0) ** 2 + extended
    expected = sky + sources
    data = random.poisson(expected) + random.normal(0.0, READ_NOISE, sky.shape)
    return Scene(data.astype(np.float32), sky, sources, extended)


def ours(scene: Scene) -> tuple[Image, Image]:
    found = estimate_background(scene.data, np.zeros(scene.data.shape, bool), box=BOX)
    return found.level.astype(float), found.error_map().astype(float)


def by_sep(scene: Scene) -> tuple[Image, None]:
    return sep.Background(scene.data, bw=BOX, bh=BOX).back().astype(float), None


def by_photutils(scene: Scene) -> tuple[Image, None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Background2D(
            scene.data, BOX, filter_size=3, sigma_clip=SigmaClip(3.0), bkg_estimator=SExtractorBackground()
        )  # fmt: skip
    return np.asarray(found.background, dtype=float), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    estimators: dict[str, Callable[[Scene], tuple[Image, Image | None]]] = {
        "ours": ours, "sep": by_sep, "photutils": by_photutils,
    }  # fmt: skip
    noise = np.sqrt(SKY + READ_NOISE**2)
    for name in ("plain", "galaxy", "halo", "gradient", "nebulosity", "filaments", "crowded", "all together"):
        scene = simulate(name, side=chosen.side, random=np.random.default_rng(chosen.seed))
        is_dark = scene.sources < noise
        is_under = scene.extended > 0.2 * noise
        print(f"{name}: {is_dark.mean():.0%} of the pixels dark")
        for who, estimate in estimators.items():
            start = time.process_time()
            level, error = estimate(scene)
            seconds, off = time.process_time() - start, level - scene.sky
            line = f"  {who:10s} {np.mean(off[is_dark]):+7.2f} rms {np.sqrt(np.mean(off[is_dark] ** 2)):6.2f}"
            if is_under.any():
                line += f"  under {np.mean(off[is_under]):+7.2f} rms {np.sqrt(np.mean(off[is_under] ** 2)):6.2f}"
            if error is not None:
                pull = (off / error)[is_dark]
                line += f"  pull {np.median(pull):+.2f} +- {0.5 * np.ptp(np.percentile(pull, [15.87, 84.13])):.2f}"
                line += f" (error {np.median(error):.2f})"
            print(f"{line}  {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
