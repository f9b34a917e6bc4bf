"""Where artificial sources go and how bright they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.artificial import choose_places, is_apart
from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage
from gueststar.model.photocal import NJY_ZERO_POINT

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Stage = Literal["raw", "science", "difference"]


@dataclass(frozen=True)
class InjectionConfig:
    """How many artificial sources an image gets, of what kind, and where in the chain they enter."""

    stage: Stage = "science"
    """raw: into the raw file's counts, and the whole chain is run again; science: into the calibrated image, before
    catalogs and difference; difference: the same, and only the difference is made."""
    n: int = 200
    """Sources of an image; fewer where they would lie nearer to each other than ``separation_fwhm``."""
    brightest: float = -4.0
    """Magnitude of the brightest over the image's computed 5-sigma limit..."""
    faintest: float = 1.0
    """...and of the faintest; between them magnitudes are even."""
    separation_fwhm: float = 8.0
    """Least distance between artificial sources, FWHM: they must not hide each other."""
    host_fraction: float = 0.0
    """Fraction that is put beside known sources (of the reference, where there is one), not anywhere."""
    host_distance_fwhm: float = 1.0
    """How far from those, FWHM (standard deviation along each axis)."""
    fading_fraction: float = 0.0
    """Fraction that is taken away from the image, not added: fainter than on the reference (not at the raw stage)."""
    trail_fraction: float = 0.0
    """Fraction that is trailed."""
    trail_fwhm: tuple[float, float] = (2.0, 8.0)
    """Range of the trails' lengths, FWHM."""
    match_radius_fwhm: float = 0.75
    """A detection is an artificial source's if it lies within this, FWHM (and at least one pixel)..."""
    flux_factor: float = 2.0
    """...and its flux is right to this factor."""
    bright_snr: float = 10.0
    """Flux errors are judged on sources whose true flux is so many times its error: of fainter ones luck decides."""


LABELLING = InjectionConfig(
    stage="difference", n=50, brightest=-3.7, faintest=0.1, separation_fwhm=2.0, host_fraction=0.4, fading_fraction=0.3
)
"""Brightenings and fadings, many of them in galaxies: what examples for the reliability model are made of."""


class ArtificialSources(NamedTuple):
    """Sources that nature did not make, arrays of one length."""

    x: Floats
    """Pixels."""
    y: Floats
    magnitude: Floats
    """AB."""
    flux: Floats
    """nJy; negative: taken away."""
    trail_length: Floats
    """Pixels; 0: a star."""
    trail_angle_deg: Floats
    """From +x towards +y."""


class PlaceSources:
    """Draw places, magnitudes and trails for one image."""

    def __init__(self, config: InjectionConfig = InjectionConfig()) -> None:
        self.config = config

    def run(
        self, image: CalibratedImage, *, limiting_mag: float, random: np.random.Generator,
        hosts: tuple[Floats, Floats] | None = None,
    ) -> ArtificialSources:  # fmt: skip
        """Return sources, even over the pixels that carry usable flux, on stars and galaxies as beside them.

        ``hosts`` are the places (x, y) of sources near which ``host_fraction`` of them are put. Raises DataError if
        no pixel is usable.
        """
        config, fwhm = self.config, image.psf.central_fwhm
        is_allowed = image.pixels.is_usable(UNUSABLE)
        if not is_allowed.any():
            raise DataError("no pixel is usable: nothing can be injected")
        x, y = choose_places(is_allowed, config.n, separation=config.separation_fwhm * fwhm, random=random)
        if hosts is not None and hosts[0].size and config.host_fraction > 0:
            x, y = self._beside_hosts(x, y, hosts, is_allowed, fwhm, random)
        magnitude = limiting_mag + random.uniform(config.brightest, config.faintest, x.size)
        is_trailed = random.random(x.size) < config.trail_fraction
        length = np.where(is_trailed, fwhm * random.uniform(*config.trail_fwhm, x.size), 0.0)
        angle = np.where(is_trailed, random.uniform(-90.0, 90.0, x.size), 0.0)
        sign = np.where(random.random(x.size) < config.fading_fraction, -1.0, 1.0)
        return ArtificialSources(x, y, magnitude, sign * 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude)), length, angle)

    def _beside_hosts(
        self, x: Floats, y: Floats, hosts: tuple[Floats, Floats], is_allowed: Bools, fwhm: float,
        random: np.random.Generator,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """Move some of the places to hosts; those that then lie on unusable pixels or too near to others are lost."""
        moved = random.random(x.size) < self.config.host_fraction
        host = random.integers(hosts[0].size, size=x.size)
        offset = random.normal(0.0, self.config.host_distance_fwhm * fwhm, (2, x.size))
        x, y = (np.where(moved, hosts[k][host] + offset[k], old) for k, old in enumerate((x, y)))
        ny, nx = is_allowed.shape
        kept = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
        kept[kept] = is_allowed[np.rint(y[kept]).astype(int), np.rint(x[kept]).astype(int)]
        x, y = x[kept], y[kept]
        apart = is_apart(x, y, separation=self.config.separation_fwhm * fwhm)
        return x[apart], y[apart]
