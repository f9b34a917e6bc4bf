"""Where artificial sources go and how bright they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
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
Positions = tuple[Floats, Floats]
"""(x, y), pixels."""
Stage = Literal["raw", "science", "difference"]


class Place(IntEnum):
    """Why an artificial source lies where it lies."""

    ANYWHERE = 0
    """Even over the usable pixels: what completeness of an image means."""
    HOST = 1
    """Beside a known source, a galaxy where there are any."""
    BRIGHT_STAR = 2
    """Within some tens of FWHM of a bright star."""


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
    """Fraction that is put beside known sources (extended ones of the reference, where there are any), not anywhere."""
    host_distance_fwhm: float = 1.0
    """How far from those, FWHM (standard deviation along each axis)."""
    bright_star_fraction: float = 0.0
    """Fraction that is put near bright stars (those of the detection's ``bright_mag``), not anywhere."""
    bright_star_distance_fwhm: tuple[float, float] = (2.0, 40.0)
    """Range of their distances from those, FWHM; even in the logarithm."""
    fading_fraction: float = 0.0
    """Fraction that shines on the reference, not on the image: gone since. Only differences show them."""
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


@dataclass(frozen=True)
class NightlyInjectionConfig:
    """The artificial sources that every night's differences get without being asked for."""

    fraction: float = 0.1
    """Fraction of each exposure's detectors, in turn; of a camera with few of them, of its exposures. 0: none."""
    sources: InjectionConfig = field(
        default_factory=lambda: InjectionConfig(stage="difference", n=200, host_fraction=0.35, bright_star_fraction=0.2)
    )
    """What they get."""


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
    """nJy; negative: the source has faded, and shines on the reference."""
    trail_length: Floats
    """Pixels; 0: a star."""
    trail_angle_deg: Floats
    """From +x towards +y."""
    place: NDArray[np.int8]
    """`Place`."""

    def select(self, is_chosen: Bools) -> ArtificialSources:
        """Return some of the sources."""
        return ArtificialSources(
            self.x[is_chosen], self.y[is_chosen], self.magnitude[is_chosen], self.flux[is_chosen],
            self.trail_length[is_chosen], self.trail_angle_deg[is_chosen], self.place[is_chosen],
        )  # fmt: skip


class PlaceSources:
    """Draw places, magnitudes and trails for one image."""

    def __init__(self, config: InjectionConfig = InjectionConfig()) -> None:
        self.config = config

    def run(
        self, image: CalibratedImage, *, limiting_mag: float, random: np.random.Generator,
        hosts: Positions | None = None, bright_stars: Positions | None = None,
    ) -> ArtificialSources:  # fmt: skip
        """Return sources, even over the pixels that carry usable flux, on stars and galaxies as beside them.

        ``hosts`` are the places (x, y) of sources near which ``host_fraction`` of them are put, and ``bright_stars``
        those for ``bright_star_fraction``. Raises DataError if no pixel is usable.
        """
        config, fwhm = self.config, image.psf.central_fwhm
        is_allowed = image.pixels.is_usable(UNUSABLE)
        if not is_allowed.any():
            raise DataError("no pixel is usable: nothing can be injected")
        x, y = choose_places(is_allowed, config.n, separation=config.separation_fwhm * fwhm, random=random)
        x, y, place = self._moved(x, y, hosts, bright_stars, is_allowed, fwhm, random)
        magnitude = limiting_mag + random.uniform(config.brightest, config.faintest, x.size)
        is_trailed = random.random(x.size) < config.trail_fraction
        length = np.where(is_trailed, fwhm * random.uniform(*config.trail_fwhm, x.size), 0.0)
        angle = np.where(is_trailed, random.uniform(-90.0, 90.0, x.size), 0.0)
        sign = np.where(random.random(x.size) < config.fading_fraction, -1.0, 1.0)
        return ArtificialSources(
            x, y, magnitude, sign * 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude)), length, angle, place
        )

    def _moved(
        self, x: Floats, y: Floats, hosts: Positions | None, bright_stars: Positions | None, is_allowed: Bools,
        fwhm: float, random: np.random.Generator,
    ) -> tuple[Floats, Floats, NDArray[np.int8]]:  # fmt: skip
        """Move some of the places to hosts and to bright stars, and tell which.

        Those that then lie on unusable pixels or too near to others are lost.
        """
        config, place = self.config, np.zeros(x.size, np.int8)
        if hosts is not None and hosts[0].size and config.host_fraction > 0:
            place[random.random(x.size) < config.host_fraction] = Place.HOST
            offset = random.normal(0.0, config.host_distance_fwhm * fwhm, (2, x.size))
            x, y = _beside(x, y, place == Place.HOST, hosts, offset, random)
        if bright_stars is not None and bright_stars[0].size and config.bright_star_fraction > 0:
            share = config.bright_star_fraction / max(1.0 - config.host_fraction * bool(np.any(place)), 1e-6)
            place[(place == Place.ANYWHERE) & (random.random(x.size) < share)] = Place.BRIGHT_STAR
            nearest, farthest = (float(np.log(value)) for value in config.bright_star_distance_fwhm)
            radius = fwhm * np.exp(random.uniform(nearest, farthest, x.size))
            angle = random.uniform(0.0, 2.0 * np.pi, x.size)
            offset = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
            x, y = _beside(x, y, place == Place.BRIGHT_STAR, bright_stars, offset, random)
        if not place.any():
            return x, y, place
        ny, nx = is_allowed.shape
        kept = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
        kept[kept] = is_allowed[np.rint(y[kept]).astype(int), np.rint(x[kept]).astype(int)]
        x, y, place = x[kept], y[kept], place[kept]
        apart = is_apart(x, y, separation=config.separation_fwhm * fwhm)
        return x[apart], y[apart], place[apart]


def _beside(
    x: Floats, y: Floats, is_moved: Bools, targets: Positions, offset: Floats, random: np.random.Generator
) -> Positions:
    """Return places of which the chosen ones lie off randomly drawn targets by ``offset``."""
    target = random.integers(targets[0].size, size=x.size)
    moved = (np.where(is_moved, targets[k][target] + offset[k], old) for k, old in enumerate((x, y)))
    return next(moved), next(moved)
