"""The filters of a difference at any place of an image, for both families of method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.kernel import MatchingKernel
from gueststar.algorithms.subtraction.prepare import Pair
from gueststar.algorithms.subtraction.tiles import TransferAt
from gueststar.algorithms.subtraction.transfer import Transfer, kernel_transfer, proper_transfer, psf_stamp
from gueststar.algorithms.subtraction.wings import share_wings
from gueststar.algorithms.warp.psf import fit_psf_polynomial
from gueststar.model.psf import Psf


def with_common_wings(science: Psf, reference: Psf, *, radius_fwhm: float, nodes: int = 6) -> tuple[Psf, Psf]:
    """Return both PSFs with one and the same round profile far out, as image-sampled models of one size."""
    x, y = cell_centres(science.shape, (nodes, nodes))
    side = max(_side(science), _side(reference))
    stamps = [psf.stamps(x=x, y=y, side=side) for psf in (science, reference)]
    shared = share_wings(*stamps, radius=radius_fwhm * max(science.central_fwhm, reference.central_fwhm))
    models = [
        Psf(fit_psf_polynomial(s, x=x, y=y, shape=psf.shape, order=psf.order), psf.order, psf.shape)
        for s, psf in zip(shared, (science, reference), strict=True)
    ]
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
    """Return the PSF of the difference as a model: the filters' P_D at a grid of places, fitted by a polynomial."""
    shape = science_psf.shape
    x, y = cell_centres(shape, (nodes, nodes))
    side = min(_side(science_psf), grid - 1)
    stamps = np.stack(
        [psf_stamp(filters(float(px), float(py), (grid, grid)), side) for px, py in zip(x, y, strict=True)]
    )
    order = min(science_psf.order, 3)
    return Psf(fit_psf_polynomial(stamps, x=x, y=y, shape=shape, order=order), order, shape)


def _local_noise(variance: NDArray[np.float32], x: float, y: float, size: int) -> float:
    half = size // 2
    part = variance[max(int(y) - half, 0) : int(y) + half : 8, max(int(x) - half, 0) : int(x) + half : 8]
    return float(np.median(part))
