"""The filters of a difference at any place of an image, for both families of method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import crop_or_pad
from gueststar.algorithms.subtraction.fine_psf import cell_centres, interleaved
from gueststar.algorithms.subtraction.kernel import MatchingKernel
from gueststar.algorithms.subtraction.prepare import Pair
from gueststar.algorithms.subtraction.tiles import TransferAt
from gueststar.algorithms.subtraction.transfer import Transfer, filtered_stamp, kernel_transfer, proper_transfer
from gueststar.algorithms.subtraction.wings import common_wing, with_wing
from gueststar.algorithms.warp.psf import fit_psf_polynomial
from gueststar.model.psf import Psf
from gueststar.pipelines.difference._stars import stamps_at_phases


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


def proper_filters(pair: Pair, science_psf: Psf, reference_psf: Psf, *, tile_size: int) -> TransferAt:
    """Return the filters of proper subtraction, from the two PSF models and the local noise."""

    def at(x: float, y: float, grid: tuple[int, int]) -> Transfer:
        return proper_transfer(
            science_psf.stamp(x=x, y=y), reference_psf.stamp(x=x, y=y), grid,
            science_noise=_local_noise(pair.science_variance, x, y, tile_size),
            reference_noise=_local_noise(pair.reference_variance, x, y, tile_size),
        )  # fmt: skip

    return at


def kernel_filters(
    pair: Pair, kernel: MatchingKernel, science_psf: Psf, *, convolves_science: bool, tile_size: int
) -> TransferAt:
    """Return the filters of kernel matching with decorrelated noise."""

    def at(x: float, y: float, grid: tuple[int, int]) -> Transfer:
        noise = [_local_noise(v, x, y, tile_size) for v in (pair.science_variance, pair.reference_variance)]
        return kernel_transfer(
            kernel.stamp(x=x, y=y), science_psf.stamp(x=x, y=y), grid,
            convolved_noise=noise[0 if convolves_science else 1],
            target_noise=noise[1 if convolves_science else 0],
            convolves_science=convolves_science,
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
    for k, (px, py) in enumerate(zip(x, y, strict=True)):
        transfer = filters(float(px), float(py), (grid, grid))
        for b in range(n):
            for a in range(n):
                made[b, a, k] = filtered_stamp(transfer, phases[b, a, k])
    order = min(science_psf.order, 3)
    return Psf(fit_psf_polynomial(interleaved(made), x=x, y=y, shape=shape, order=order), order, shape, n)


def crop_or_pad_all(stamps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return stamps ``[..., k, k]`` cut or padded to ``side``."""
    return crop_or_pad(stamps.reshape(-1, *stamps.shape[-2:]), side).reshape(*stamps.shape[:-2], side, side)


def _local_noise(variance: NDArray[np.float32], x: float, y: float, size: int) -> float:
    half = size // 2
    part = variance[max(int(y) - half, 0) : int(y) + half : 8, max(int(x) - half, 0) : int(x) + half : 8]
    return float(np.median(part))
