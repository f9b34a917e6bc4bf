"""How far zero points are off when calibrators are not what they seem, and how well exposures are tied together.

Run: python benchmarks/zero_points.py [--seeds N]
Stars of 14 to 18 mag, signal to noise 30 to 300, catalog errors of 10 to 14 mmag, 5 mmag of scatter that no error
tells, a colour term of -0.1. Of them some vary (0.15 mag), some hold the light of a neighbour (0.05 to 0.75 mag too
bright), some are another star's match (up to 2 mag off); none is flagged. Bias is the mean over seeds, the pull is
error over stated error.
The night: 12 exposures of 150 stars, each seen in four of five, one in ten variable, errors of 2 to 12 mmag.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from gueststar.algorithms.photocal.relative import Measurements, solve_relative
from gueststar.algorithms.photocal.zero_point import Calibrators, fit_zero_point

ZERO_POINT, COLOUR_TERM = 26.0, -0.1
KINDS = {
    "as they seem": (0.0, 0.0, 0.0),
    "20 % variable": (0.2, 0.0, 0.0),
    "10 % blended": (0.0, 0.1, 0.0),
    "30 % wrong matches": (0.0, 0.0, 0.3),
    "all three": (0.2, 0.1, 0.3),
}


def calibrators(rng: np.random.Generator, n: int, shares: tuple[float, float, float]) -> Calibrators:
    colour, snr = rng.normal(0.6, 0.4, n), rng.uniform(30, 300, n)
    error = 1.0857 / snr
    difference = ZERO_POINT + COLOUR_TERM * colour + rng.normal(0, 1, n) * np.hypot(error, np.hypot(0.01, 0.005))
    order = rng.permutation(n)
    ends = np.cumsum([0, *(int(share * n) for share in shares)])
    parts = [order[a:b] for a, b in itertools.pairwise(ends)]
    difference[parts[0]] += rng.normal(0.0, 0.15, parts[0].size)
    difference[parts[1]] += rng.uniform(0.05, 0.75, parts[1].size)
    difference[parts[2]] += rng.uniform(-2.0, 2.0, parts[2].size)
    squares = np.full(n, 1e-4), np.full(n, 1e-4)
    return Calibrators(difference, error**2, np.full(n, 1e-4), colour + rng.normal(0, 0.014, n), squares, 2)


def zero_points(seeds: int) -> None:
    print("zero points, mmag          stars    bias  scatter  stated   pull  taken for good")
    for kind, shares in KINDS.items():
        for n in (30, 100, 500):
            rows = []
            for seed in range(seeds):
                stars = calibrators(np.random.default_rng(seed), n, shares)
                fit = fit_zero_point(stars, colour_prior=0.0, colour_prior_err=0.2, clip_sigma=3.5)
                rows.append((fit.parameters[0] - ZERO_POINT, np.sqrt(fit.covariance[0, 0]), fit.is_used.mean()))
            off, stated, used = np.array(rows).T
            print(
                f"  {kind:<22} {n:7d} {1e3 * off.mean():7.1f} {1e3 * off.std():8.1f} {1e3 * np.median(stated):7.1f}"
                f" {np.std(off / stated):6.2f} {used.mean():8.2f}"
            )


def nights(seeds: int) -> None:
    n_images, n_stars = 12, 150
    off, pulls, cost = [], [], 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        offset, magnitude = rng.normal(0, 0.05, n_images), rng.uniform(14, 18, n_stars)
        image, star = (g.ravel() for g in np.meshgrid(np.arange(n_images), np.arange(n_stars), indexing="ij"))
        kept = rng.random(image.size) < 0.8
        image, star = image[kept], star[kept]
        x, y = (rng.uniform(0, 1000, n_stars)[star] for _ in range(2))
        error = 0.002 + 0.01 * 10 ** (0.4 * (magnitude[star] - 18.0))
        seen = magnitude[star] + offset[image] + rng.normal(0.0, error)
        seen += np.where(star < n_stars // 10, rng.normal(0.0, 0.2, star.size), 0.0)
        start = time.process_time()
        found = solve_relative(
            Measurements(image, star, x, y, seen, error), n_images=n_images, n_stars=n_stars, shape=(1000, 1000)
        )
        cost += time.process_time() - start
        wrong = found.offset - offset
        off.append(wrong - wrong.mean())
        pulls.append(off[-1] / found.offset_err)
    print(
        f"relative zero points of a night: scatter {1e3 * np.std(off):.2f} mmag, pull {np.std(pulls):.2f},"
        f" {cost / seeds:.3f} s of CPU a night"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    zero_points(options.seeds)
    nights(options.seeds)


if __name__ == "__main__":
    main()
