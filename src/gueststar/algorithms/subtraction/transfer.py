"""Transfer functions of a difference D = A_n * N - A_r * R, for two families of method.

Whatever the method, a difference is one linear filter on the science image N minus another on the
reference R (already on the science flux scale). From these two filters follow the PSF of D, the
matched filter, and how the noise of both images enters the score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

Stamp = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Noise = NDArray[np.float32]


FADE_POWER = 1e-3
"""Power of the PSFs' transfer below which the difference is damped (1: no frequency lost). A point source has a
thousandth of its signal there, but a bright star's residuals would ring at the pixel frequency."""


class Transfer(NamedTuple):
    """Filters on a real-FFT grid, unit gain at zero frequency for a point source's flux.

    Arrays are ``[..., ny, nx / 2 + 1]``: of one place, or of many along the first axis.
    """

    science: Spectrum
    """A_n, applied to the science image."""
    reference: Spectrum
    """A_r, applied to the reference."""
    psf: Spectrum
    """P_D, the PSF of the difference for a source in the science image (its sum is one)."""

    def of(self, k: int) -> Transfer:
        """Return the filters of one of many places."""
        return Transfer(self.science[k], self.reference[k], self.psf[k])


def stamp_spectrum(stamp: Stamp, shape: tuple[int, int]) -> Spectrum:
    """Return the real FFT of odd-sided stamps ``[..., k, k]`` on grids of ``shape``, their middle at the origin."""
    k = stamp.shape[-1]
    half = k // 2
    rows = np.zeros((*stamp.shape[:-1], shape[1]), np.float32)
    rows[..., : half + 1] = stamp[..., half:]
    rows[..., shape[1] - half :] = stamp[..., :half]
    along_x = fft.rfft(rows, axis=-1)
    full = np.zeros((*stamp.shape[:-2], shape[0], along_x.shape[-1]), np.complex64)
    full[..., : half + 1, :] = along_x[..., half:, :]
    full[..., shape[0] - half :, :] = along_x[..., :half, :]
    return np.asarray(fft.fft(full, axis=-2, overwrite_x=True), dtype=np.complex64)


def matched_kernels(transfer: Transfer) -> tuple[Stamp, Stamp]:
    """Return the kernels that take science image and reference to the score, as odd-sided stamps.

    The transfer must be on a square grid of even side that holds the kernels; its last row and column are lost.
    """
    size = transfer.psf.shape[-2]
    matched = np.conj(transfer.psf)
    kernels = [
        fft.fftshift(fft.irfft2(matched * a, s=(size, size)), axes=(-2, -1))[..., 1:, 1:]
        for a in (transfer.science, transfer.reference)
    ]
    return kernels[0], kernels[1]


def psf_power(transfer: Transfer) -> float:
    """Return the sum of the squares of the difference's PSF at one place (its noise-equivalent area, inverted)."""
    size = transfer.psf.shape[0]
    return float(np.sum(fft.irfft2(transfer.psf, s=(size, size)).astype(np.float64) ** 2))


def filtered_stamp(transfer: Transfer, stamp: Stamp) -> Stamp:
    """Return what the science image's filter makes of a star on it; the grid must be square and larger than it."""
    size, side = transfer.psf.shape[-2], stamp.shape[-1]
    index = np.arange(-(side // 2), side // 2 + 1)
    made = fft.irfft2(transfer.science * stamp_spectrum(stamp, (size, size)), s=(size, size))
    return np.asarray(made[..., index[:, None], index], dtype=np.float32)


def proper_transfer(
    science_psf: Stamp,
    reference_psf: Stamp,
    shape: tuple[int, int],
    *,
    science_noise: float | Noise,
    reference_noise: float | Noise,
) -> Transfer:
    """Return the filters of proper image subtraction (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27, eq. 13 to 16).

    ``*_noise`` are the variances per pixel of the two images' backgrounds. With D normalised to the
    science image's flux, its noise is white with the variance ``science_noise + reference_noise``.
    """
    p_n, p_r = stamp_spectrum(science_psf, shape), stamp_spectrum(reference_psf, shape)
    own, other = np.asarray(science_noise, np.float32), np.asarray(reference_noise, np.float32)
    shares = np.broadcast_to(own / (own + other), p_n.shape[:-2]).ravel()
    made = [np.empty_like(p_n) for _ in range(3)]
    planes = (a.reshape(-1, *p_n.shape[-2:]) for a in (p_n, p_r, *made))
    _proper(*planes, shares.astype(np.float32), np.float32(FADE_POWER))
    return Transfer(*made)


@njit(cache=True, error_model="numpy")
def _proper(p_n, p_r, a_n, a_r, p_d, shares, fade):  # type: ignore[no-untyped-def]
    """Write the filters and the difference's PSF; ``shares`` are those of the science image in the noise."""
    one = np.float32(1)
    gain = np.sqrt(one + fade)
    for k in range(p_n.shape[0]):
        a, b = shares[k], one - shares[k]
        for j in range(p_n.shape[1]):
            for i in range(p_n.shape[2]):
                n, r = p_n[k, j, i], p_r[k, j, i]
                power = a * (r.real * r.real + r.imag * r.imag) + b * (n.real * n.real + n.imag * n.imag)
                # Where both PSFs are below a few per cent their ratio is that of the models' errors: let D fade there.
                scale = gain / np.sqrt(power + fade)
                first = r * scale
                a_n[k, j, i], a_r[k, j, i], p_d[k, j, i] = first, n * scale, n * first


def kernel_transfer(
    kernel: Stamp,
    psf: Stamp,
    shape: tuple[int, int],
    *,
    convolved_noise: float | Noise,
    target_noise: float | Noise,
    convolves_science: bool,
) -> Transfer:
    """Return the filters of a kernel-matched difference with its noise decorrelated.

    The kernel takes the reference (or, with ``convolves_science``, the science image) to the PSF of the
    other. The decorrelation filter (Reiss & Lupton 2016, DMTN-021) makes the noise white again.
    ``psf`` is that of the science image.
    """
    k = stamp_spectrum(kernel, shape)
    convolved, target = _for_spectra(convolved_noise), _for_spectra(target_noise)
    total = convolved + target
    power = target + convolved * (k.real**2 + k.imag**2)
    phi = np.sqrt(total / np.maximum(power, np.float32(1e-6) * total)).astype(np.float32)
    p = stamp_spectrum(psf, shape)
    if not convolves_science:
        return Transfer(phi.astype(np.complex64), phi * k, p * phi)
    gain = (1.0 / np.maximum(kernel.sum(axis=(-2, -1), dtype=np.float64), 1e-6)).astype(np.float32)[..., None, None]
    # The kernel's sum is the flux scale of the other image: divide it out, so that D is in science units.
    return Transfer(phi * k * gain, (phi * gain).astype(np.complex64), p * phi * k * gain)


def _for_spectra(noise: float | Noise) -> NDArray[np.float32]:
    """Return noise of one place or of many so that it multiplies their spectra."""
    return np.asarray(noise, np.float32)[..., None, None]
