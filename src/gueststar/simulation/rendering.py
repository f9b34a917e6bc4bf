"""Draw stars, galaxies and trails through a varying PSF, exact to the sub-pixel.

Every source is drawn in Fourier space: the transform of its shape (1 for a star, a Sersic disc and bulge for
a galaxy, a sinc for a trail) times that of the local PSF times the phase of its place; frequencies beyond
Nyquist are folded back as sampling does. Stamps of equal size are inverted together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import galsim
import numba
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gueststar.simulation.point_spread import PsfField

Floats = NDArray[np.float64]

SMALLEST_STAMP = 16
LARGEST_STAMP = 512
_BATCH_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Sources:
    """What is drawn: one entry a source, in detector pixels.

    A point has all of ``shape`` and ``trail`` zero.
    """

    x: Floats
    y: Floats
    flux: Floats
    """Electrons."""
    shape: Floats
    """``[n, 3]``: (xx, xy, yy) of the disc's half-light ellipse squared, pixel**2."""
    bulge_fraction: Floats
    bulge_ratio: Floats
    """Half-light radius of the bulge over that of the disc."""
    trail: Floats
    """``[n, 2]``: displacement during the exposure, pixels."""

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Sources:
        """Return the sources that an index picks."""
        return Sources(*(getattr(self, name)[index] for name in Sources.__dataclass_fields__))


def points(x: Floats, y: Floats, flux: Floats) -> Sources:
    """Return point sources."""
    n = x.size
    return Sources(x, y, flux, np.zeros((n, 3)), np.zeros(n), np.ones(n), np.zeros((n, 2)))


def add_sources_in_place(image: NDArray[np.float32], sources: Sources, psf: PsfField, *, noise: float) -> None:
    """Add ``sources`` to ``image``, electrons.

    Stamps reach to where a source's light per pixel falls below a twentieth of ``noise`` (the sky's, electrons);
    parts outside the image are lost.
    """
    sizes = stamp_sizes(sources, psf, noise=noise)
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        if size <= psf.size:
            batch = max(1, _BATCH_PIXELS // int(size) ** 2)
            for start in range(0, chosen.size, batch):
                _add_batch(image, sources.select(chosen[start : start + batch]), psf, int(size))
        else:
            for index in chosen:
                one = sources.select(np.array([index]))
                _add_batch(image, one, _extended_at(psf, one.x[0], one.y[0], int(size)), int(size))


def stamp_sizes(sources: Sources, psf: PsfField, *, noise: float) -> NDArray[np.int64]:
    """Return the side of each source's stamp, a power of two."""
    reach = np.maximum.accumulate(psf.profile[::-1])[::-1]
    radius = np.searchsorted(-reach, -0.05 * noise / np.maximum(sources.flux, 1e-3)).astype(np.float64)
    extent = np.sqrt(np.maximum(sources.shape[:, 0], sources.shape[:, 2]))
    brightness = sources.flux / np.maximum(0.05 * noise * (extent**2 + 1.0), 1e-9)
    radius += extent * np.clip(1.2 * np.log(np.maximum(brightness, 1.0)) * (1.0 + sources.bulge_fraction), 1.5, 12.0)
    radius += 0.5 * np.hypot(sources.trail[:, 0], sources.trail[:, 1])
    wanted = 2.0 ** np.ceil(np.log2(2.0 * np.maximum(radius + 2.0, 4.0)))
    is_point = (extent == 0.0) & (np.abs(sources.trail).max(axis=1, initial=0.0) == 0.0)
    smallest = max(SMALLEST_STAMP, psf.size // 4)
    return np.clip(wanted, smallest, np.where(is_point, psf.size, LARGEST_STAMP)).astype(np.int64)


def _extended_at(psf: PsfField, x: float, y: float, size: int) -> PsfField:
    """Return a field of one PSF, that at (x, y), padded to larger stamps."""
    corner, part = psf.node_weights(np.array([x]), np.array([y]))
    (row, column), (v, u) = corner[0], part[0]
    nodes = psf.otf[row : row + 2, column : column + 2].astype(np.complex128)
    weights = np.outer([1 - v, v], [1 - u, u])
    image = fft.irfft2(np.tensordot(weights, nodes, axes=2))
    small, large = psf.fold * psf.size, psf.fold * size
    padded = np.zeros((large, large))
    start = (large - small) // 2
    padded[start : start + small, start : start + small] = np.fft.fftshift(image)
    otf = np.asarray(fft.rfft2(np.fft.ifftshift(padded)), dtype=np.complex64)
    tiled = np.broadcast_to(otf, (2, 2, *otf.shape))
    return PsfField(tiled, size, psf.fold, psf.shape, psf.profile, psf.halo_scale, psf.halo_fraction, psf.wing)


def _add_batch(image: NDArray[np.float32], sources: Sources, psf: PsfField, size: int) -> None:
    corner, part = psf.node_weights(sources.x, sources.y)
    left = np.floor(sources.x).astype(np.int64) - size // 2
    bottom = np.floor(sources.y).astype(np.int64) - size // 2
    spectra = np.empty((sources.x.size, size, size // 2 + 1), dtype=np.complex64)
    _fill_spectra(
        psf.otf, _last_column(psf.otf), psf.size // size, psf.fold, corner, part,
        sources.x - left, sources.y - bottom, sources.flux, sources.shape, sources.bulge_fraction,
        sources.bulge_ratio**2, sources.trail, _bulge_table(), spectra,
    )  # fmt: skip
    stamps = np.asarray(fft.irfft2(spectra, s=(size, size), overwrite_x=True))
    _paste(image, stamps, left, bottom)


@numba.njit(cache=True)
def _paste(image, stamps, left, bottom):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    n, size, _ = stamps.shape
    for s in range(n):
        for j in range(max(0, -bottom[s]), min(size, ny - bottom[s])):
            for i in range(max(0, -left[s]), min(size, nx - left[s])):
                image[bottom[s] + j, left[s] + i] += stamps[s, j, i]


_TABLE_STEP = 0.005


@cache
def _bulge_table() -> Floats:
    """Transform of a Sersic n = 4 profile of half-light radius 1 at square roots of k of 0, 0.005, 0.01 ..."""
    profile = galsim.DeVaucouleurs(half_light_radius=1.0, trunc=25.0)
    k = (_TABLE_STEP * np.arange(5000)) ** 2
    return np.array([profile.kValue(float(value), 0.0).real for value in k])


_NEGLIGIBLE = 2e-6
"""Transform below which a frequency is left out."""
_DISC_SCALE2 = 1.6783469900166605**-2
"""Square of the scale length of an exponential disc over its half-light radius."""


def _last_column(otf: NDArray[np.complex64]) -> NDArray[np.int64]:
    """Return, for each ky, the number of kx up to the last that matters at any node."""
    matters = np.any(np.abs(otf.reshape(-1, *otf.shape[2:])) > _NEGLIGIBLE, axis=0)
    return np.asarray(matters.shape[1] - np.argmax(matters[:, ::-1], axis=1)) * matters.any(axis=1)


@numba.njit(cache=True)
def _shape_transform(kx, ky, shape, bulge, ratio2, trail, table):  # type: ignore[no-untyped-def]
    value = 1.0
    if shape[0] > 0.0:
        k2 = shape[0] * kx * kx + 2.0 * shape[1] * kx * ky + shape[2] * ky * ky
        disc = 1.0 + k2 * _DISC_SCALE2
        value = (1.0 - bulge) / (disc * np.sqrt(disc))
        if bulge > 0.0:
            place = np.sqrt(np.sqrt(k2 * ratio2)) / _TABLE_STEP
            if place < table.size - 1:
                low = int(place)
                value += bulge * (table[low] + (place - low) * (table[low + 1] - table[low]))
    if trail[0] != 0.0 or trail[1] != 0.0:
        half = 0.5 * (kx * trail[0] + ky * trail[1])
        if abs(half) > 1e-6:
            value *= np.sin(half) / half
    return value


@numba.njit(cache=True)
def _fill_spectra(  # type: ignore[no-untyped-def]
    otf, last, stride, fold, corner, part, dx, dy, flux, shape, bulge, ratio2, trail, table, spectra
):
    n, size, half_size = spectra.shape
    reach = fold * size // 2
    step = 2.0 * np.pi / size
    full = otf.shape[2]
    phase_x = np.empty(reach + 1, dtype=np.complex64)
    phase_y = np.empty(2 * reach + 1, dtype=np.complex64)
    spectra[:] = 0.0
    for s in range(n):
        is_point = shape[s, 0] == 0.0 and trail[s, 0] == 0.0 and trail[s, 1] == 0.0
        row, column = corner[s, 0], corner[s, 1]
        v, u = np.float32(part[s, 0]), np.float32(part[s, 1])
        one = np.float32(1.0)
        w00, w01, w10, w11 = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
        n00, n01, n10, n11 = otf[row, column], otf[row, column + 1], otf[row + 1, column], otf[row + 1, column + 1]
        brightness = np.float32(flux[s])
        for j in range(reach + 1):
            phase_x[j] = brightness * np.exp(-1j * step * j * dx[s])
        for j in range(-reach, reach + 1):
            phase_y[j + reach] = np.exp(-1j * step * j * dy[s])
        for jy in range(-reach, reach):
            row_phase = phase_y[jy + reach]
            # Frequencies fold onto the half plane of a real image; the other half is their conjugate.
            for start in range(-reach, reach, size):
                ky_index = ((jy if start >= 0 else -jy) * stride + full) % full
                columns = (last[ky_index] + stride - 1) // stride
                first = 0 if start >= 0 else max(0, -start - columns + 1)
                after = min(half_size, columns - start) if start >= 0 else half_size
                for ix in range(first, after):
                    jx = start + ix
                    kx_index = abs(jx) * stride
                    value = (
                        w00 * n00[ky_index, kx_index] + w01 * n01[ky_index, kx_index]
                        + w10 * n10[ky_index, kx_index] + w11 * n11[ky_index, kx_index]
                    )  # fmt: skip
                    if jx >= 0:
                        value = value * phase_x[jx] * row_phase
                    else:
                        value = np.conj(value * phase_x[-jx]) * row_phase
                    if not is_point:
                        transform = _shape_transform(
                            jx * step, jy * step, shape[s], bulge[s], ratio2[s], trail[s], table
                        )
                        value = value * np.float32(transform)
                    spectra[s, jy % size, ix] += value
