"""The filters of a difference at any place of an image, for both families of method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.kernel import MatchingKernel
from gueststar.algorithms.subtraction.prepare import Pair
from gueststar.algorithms.subtraction.tiles import TransferAt
from gueststar.algorithms.subtraction.transfer import Transfer, kernel_transfer, proper_transfer, psf_stamp
from gueststar.algorithms.subtraction.wings import soften_wings
from gueststar.algorithms.warp.psf import fit_psf_polynomial
from gueststar.model.psf import Psf


def with_quiet_wings(psf: Psf, *, radius_fwhm: float) -> Psf:
    """Return a PSF of which the far wings are round and fade at the stamp's edge."""
    radius = radius_fwhm * psf.central_fwhm * psf.oversampling
    return replace(psf, coefficients=soften_wings(psf.coefficients, radius=radius))


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
    """Return the PSF of the difference as a model: the filters' P_D at a grid of places, fitted by a polynomial."""
    shape = science_psf.shape
    x, y = cell_centres(shape, (nodes, nodes))
    side = min(science_psf.coefficients.shape[1] // science_psf.oversampling | 1, grid - 1)
    stamps = np.stack(
        [psf_stamp(filters(float(px), float(py), (grid, grid)), side) for px, py in zip(x, y, strict=True)]
    )
    order = min(science_psf.order, 3)
    return Psf(fit_psf_polynomial(stamps, x=x, y=y, shape=shape, order=order), order, shape)


def _local_noise(variance: NDArray[np.float32], x: float, y: float, size: int) -> float:
    half = size // 2
    part = variance[max(int(y) - half, 0) : int(y) + half : 8, max(int(x) - half, 0) : int(x) + half : 8]
    return float(np.median(part))
