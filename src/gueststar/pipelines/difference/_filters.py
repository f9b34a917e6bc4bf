"""The filters of a difference at any place of an image, for both families of method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import crop_or_pad
from gueststar.algorithms.stats.select import median_of
from gueststar.algorithms.subtraction.fine_psf import cell_centres, interleaved
from gueststar.algorithms.subtraction.kernel import MatchingKernel
from gueststar.algorithms.subtraction.prepare import Pair
from gueststar.algorithms.subtraction.tiles import TransferAt
from gueststar.algorithms.subtraction.transfer import Transfer, filtered_stamp, kernel_transfer, proper_transfer
from gueststar.algorithms.subtraction.wings import common_wing, with_wing
from gueststar.algorithms.warp.psf import fit_psf_polynomial
from gueststar.model.psf import Psf
from gueststar.pipelines.difference._stars import stamps_at_phases

Floats = NDArray[np.float64]


def with_common_wings(science: Psf, reference: Psf, *, radius_fwhm: float, nodes: int = 6) -> tuple[Psf, Psf]:
    """Return both PSFs with one and the same round profile far out, as models of one size in image pixels."""
    x, y = cell_centres(science.shape, (nodes, nodes))
    side = max(_side(science), _side(reference))
    wing = common_wing(*(psf.stamps(x=x, y=y, side=side) for psf in (science, reference)))
    radius = radius_fwhm * max(science.central_fwhm, reference.central_fwhm)
    models = []
    for psf in (science, reference):
        samples = crop_or_pad(psf.samples(x=x, y=y), psf.oversampling * (side - 1) + 1)
        shared = with_wing(samples, wing, radius=radius, oversampling=psf.oversampling)
        coefficients = fit_psf_polynomial(shared, x=x, y=y, shape=psf.shape, order=psf.order)
        models.append(Psf(coefficients, psf.order, psf.shape, psf.oversampling))
    return models[0], models[1]


def _side(psf: Psf) -> int:
    """Return the side of a PSF's stamps, image pixels."""
    return 2 * (psf.coefficients.shape[1] // 2 // psf.oversampling) + 1


def proper_filters(noise: PairNoise, science_psf: Psf, reference_psf: Psf) -> TransferAt:
    """Return the filters of proper subtraction, from the two PSF models and the local noise."""

    def at(x: Floats, y: Floats, grid: tuple[int, int]) -> Transfer:
        return proper_transfer(
            science_psf.stamps(x=x, y=y), reference_psf.stamps(x=x, y=y), grid,
            science_noise=noise.science.at(x, y), reference_noise=noise.reference.at(x, y),
        )  # fmt: skip

    return at


def kernel_filters(
    noise: PairNoise, kernel: MatchingKernel, science_psf: Psf, *, convolves_science: bool
) -> TransferAt:
    """Return the filters of kernel matching with decorrelated noise."""
    convolved, target = noise if convolves_science else noise[::-1]

    def at(x: Floats, y: Floats, grid: tuple[int, int]) -> Transfer:
        return kernel_transfer(
            kernel.stamps(x=x, y=y), science_psf.stamps(x=x, y=y), grid,
            convolved_noise=convolved.at(x, y), target_noise=target.at(x, y), convolves_science=convolves_science,
        )  # fmt: skip

    return at


def difference_psf(filters: TransferAt, science_psf: Psf, *, nodes: int = 5, grid: int = 128) -> Psf:
    """Return the PSF of the difference as a model: what the filters make of a star of the science image.

    The filters work on pixels. Of a star that the pixels sample too coarsely they make something else at every phase
    within a pixel, so the model has as many samples a pixel as that of the science image.
    """
    shape, n = science_psf.shape, science_psf.oversampling
    x, y = cell_centres(shape, (nodes, nodes))
    side = min(_side(science_psf), grid - 1)
    phases = crop_or_pad_all(stamps_at_phases(science_psf, x=x, y=y, n=n), side)
    made = np.empty_like(phases)
    transfer = filters(x, y, (grid, grid))
    for b in range(n):
        for a in range(n):
            made[b, a] = filtered_stamp(transfer, phases[b, a])
    order = min(science_psf.order, 3)
    return Psf(fit_psf_polynomial(interleaved(made), x=x, y=y, shape=shape, order=order), order, shape, n)


def crop_or_pad_all(stamps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return stamps ``[..., k, k]`` cut or padded to ``side``."""
    return crop_or_pad(stamps.reshape(-1, *stamps.shape[-2:]), side).reshape(*stamps.shape[:-2], side, side)


class PairNoise(NamedTuple):
    """The local noise of both images of a pair."""

    science: LocalNoise
    reference: LocalNoise

    @classmethod
    def of(cls, pair: Pair, *, size: int) -> PairNoise:
        """Return the noise of a pair, in boxes of ``size`` pixels."""
        return cls(LocalNoise(pair.science_variance, size), LocalNoise(pair.reference_variance, size))


class LocalNoise:
    """Median variance in boxes of ``size`` pixels about places of an image."""

    def __init__(self, variance: NDArray[np.float32], size: int) -> None:
        self._variance, self._half = variance, size // 2
        self._known: dict[tuple[int, int], float] = {}

    def at(self, x: Floats, y: Floats) -> NDArray[np.float32]:
        """Return the noise at positions (x, y); what was asked before is remembered."""
        return np.array([self._one(int(px), int(py)) for px, py in zip(x, y, strict=True)], np.float32)

    def _one(self, x: int, y: int) -> float:
        if (x, y) not in self._known:
            half = self._half
            part = self._variance[max(y - half, 0) : y + half : 8, max(x - half, 0) : x + half : 8]
            self._known[x, y] = median_of(part)
        return self._known[x, y]
