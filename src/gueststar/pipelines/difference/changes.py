"""Artificial changes, brighter and fainter, in a real science image: labelled examples for the reliability model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.core.bits import UNUSABLE
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ChangesConfig:
    """Which sources are put in."""

    n_sources: int = 50
    """Sources for each image."""
    min_snr: float = 4.5
    """Of the faintest, on blank sky."""
    max_snr: float = 150.0
    """Of the brightest; significances are spread evenly in their logarithm."""
    fading_fraction: float = 0.3
    """Part of them that is taken away from the image: fainter than on the reference."""
    host_fraction: float = 0.4
    """Part of them that is put near a source of the image, at about one FWHM."""


class InjectedChanges(NamedTuple):
    """An image with artificial sources, and what they are."""

    image: CalibratedImage
    x: Floats
    """Pixels."""
    y: Floats
    flux: Floats
    """In the image's unit; negative: taken away."""


class InjectChanges:
    """Add point sources to a calibrated image, with their photon noise, and take others away."""

    def __init__(self, config: ChangesConfig = ChangesConfig()) -> None:
        self.config = config

    def run(
        self, science: CalibratedImage, *, seed: int, hosts: tuple[Floats, Floats] | None = None
    ) -> InjectedChanges:
        """Return a copy of the image with sources at random places of usable pixels.

        ``hosts`` are places (x, y) of sources near which some are put. Pixels are in electrons.
        """
        rng = np.random.default_rng(seed)
        x, y = self._places(science, rng, hosts)
        flux = self._fluxes(science, rng, x.size)
        image, variance = science.pixels.image.copy(), science.pixels.variance.copy()
        for stamp, x_k, y_k, flux_k in zip(science.psf.placed_stamps(x=x, y=y), x, y, flux, strict=True):
            _add(image, variance, rng, stamp, round(float(x_k)), round(float(y_k)), float(flux_k))
        pixels = MaskedImage(image, variance, science.pixels.mask)
        return InjectedChanges(replace(science, pixels=pixels), x, y, flux)

    def _places(
        self, science: CalibratedImage, rng: np.random.Generator, hosts: tuple[Floats, Floats] | None
    ) -> tuple[Floats, Floats]:
        ny, nx = science.shape
        n = self.config.n_sources
        x, y = rng.uniform(0, nx - 1, n), rng.uniform(0, ny - 1, n)
        if hosts is not None and hosts[0].size:
            near = np.flatnonzero(rng.random(n) < self.config.host_fraction)
            host = rng.integers(hosts[0].size, size=near.size)
            spread = science.psf.central_fwhm
            x[near], y[near] = (hosts[k][host] + rng.normal(0.0, spread, near.size) for k in range(2))
        inside = (x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1)
        x, y = x[inside], y[inside]
        is_usable = science.pixels.is_usable(UNUSABLE)[np.rint(y).astype(int), np.rint(x).astype(int)]
        return x[is_usable], y[is_usable]

    def _fluxes(self, science: CalibratedImage, rng: np.random.Generator, n: int) -> Floats:
        """Return fluxes of log-uniform significance on blank sky, some negative."""
        ny, nx = science.shape
        power = float(np.sum(science.psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2).astype(np.float64) ** 2))
        usable = science.pixels.is_usable(UNUSABLE)[::4, ::4]
        sigma = float(np.sqrt(np.median(science.pixels.variance[::4, ::4][usable]) / power))
        snr = np.exp(rng.uniform(np.log(self.config.min_snr), np.log(self.config.max_snr), n))
        sign = np.where(rng.random(n) < self.config.fading_fraction, -1.0, 1.0)
        return np.asarray(sign * snr * sigma)


def label_detections(
    found: Catalog, injected: InjectedChanges, *, known: tuple[Floats, Floats], radius: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the rows of `DIA_SOURCE` detections that can be labelled, and whether each is an injected source.

    A detection within ``radius`` (pixels) of an injected source of its sign is real. Those near a ``known`` (x, y)
    thing that changes by itself, and those near an injected source but of the wrong sign, belong to neither side.
    """
    places = np.stack([found["x"], found["y"]], axis=1).astype(np.float64)
    sign = np.where(found["is_positive"], 1.0, -1.0)
    is_real, is_unclear = np.zeros(found.n_rows, bool), np.zeros(found.n_rows, bool)
    if injected.x.size:
        tree = cKDTree(np.stack([injected.x, injected.y], axis=1))
        for row, near in enumerate(tree.query_ball_point(places, radius)):
            is_real[row] = any(sign[row] * injected.flux[k] > 0 for k in near)
            is_unclear[row] = bool(near) and not is_real[row]
    if known[0].size:
        distance, _ = cKDTree(np.stack(known, axis=1)).query(places)
        is_unclear |= ~is_real & (distance < 3.0 * radius)
    rows = np.flatnonzero(~is_unclear)
    return rows, is_real[rows]


def _add(
    image: NDArray[np.float32], variance: NDArray[np.float32], rng: np.random.Generator, stamp: NDArray[Any],
    x: int, y: int, flux: float,
) -> None:  # fmt: skip
    """Add a source in place; one that shines brings photon noise, one that fades takes none away."""
    half = stamp.shape[0] // 2
    y0, y1, x0, x1 = (
        max(y - half, 0),
        min(y + half + 1, image.shape[0]),
        max(x - half, 0),
        min(x + half + 1, image.shape[1]),
    )
    light = flux * stamp[y0 - y + half : y1 - y + half, x0 - x + half : x1 - x + half].astype(np.float64)
    if flux > 0:
        photons = np.maximum(light, 0.0)
        image[y0:y1, x0:x1] += (light + rng.normal(0.0, 1.0, light.shape) * np.sqrt(photons)).astype(np.float32)
        variance[y0:y1, x0:x1] += photons.astype(np.float32)
    else:
        image[y0:y1, x0:x1] += light.astype(np.float32)
