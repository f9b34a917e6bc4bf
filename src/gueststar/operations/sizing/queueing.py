"""How long images wait for a core: all of an exposure come at once, exposure after exposure (a D^X/G/c queue)."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Waits(NamedTuple):
    """From the end of the exposure to the end of the work, seconds."""

    p50: float
    p95: float
    p99: float
    is_stable: bool
    """Whether the cores keep up: the last exposures waited no longer than the first."""


def simulate(
    *, images: int, interval_s: float, cpu_s: Floats, cores: int, n_exposures: int, before_s: float = 0.0
) -> Waits:
    """Return the delays of the images of ``n_exposures`` that come every ``interval_s``, first come first served.

    ``cpu_s`` ``[n_exposures]`` are seconds an image of each exposure takes; ``before_s`` passes from the end of the
    exposure until its images are there. Each core does one image at a time.
    """
    free = [0.0] * cores
    heapq.heapify(free)
    delays = np.empty(n_exposures * images)
    for number in range(n_exposures):
        there = number * interval_s + before_s
        for image in range(images):
            begin = max(heapq.heappop(free), there)
            end = begin + float(cpu_s[number])
            heapq.heappush(free, end)
            delays[number * images + image] = end - number * interval_s
    parts = np.array_split(delays, 4)
    is_stable = float(np.mean(parts[3])) < float(np.mean(parts[1])) + interval_s
    p50, p95, p99 = (float(value) for value in np.percentile(delays, (50, 95, 99)))
    return Waits(p50, p95, p99, is_stable)


def fewest_cores(
    *, images: int, interval_s: float, cpu_s: Floats, limit_s: float, least: int = 1, before_s: float = 0.0
) -> tuple[int, Waits]:
    """Return the fewest cores, not under ``least``, that do 95 % of the images within ``limit_s``, and their delays.

    If one image alone takes longer than the limit allows, those that keep up.
    """
    load = images * float(np.mean(cpu_s)) / interval_s
    low = max(int(np.ceil(load)), least, 1)
    high = max(images, int(np.ceil(images * float(np.max(cpu_s)) / interval_s)) + 1, low)

    def waits(cores: int) -> Waits:
        return simulate(images=images, interval_s=interval_s, cpu_s=cpu_s, cores=cores, n_exposures=len(cpu_s),
                        before_s=before_s)  # fmt: skip

    best = waits(high)
    limit = max(limit_s, best.p95)
    while low < high:
        middle = (low + high) // 2
        found = waits(middle)
        if found.is_stable and found.p95 <= limit:
            high, best = middle, found
        else:
            low = middle + 1
    return high, best
