"""The true PSF of one exposure: Kolmogorov air, guiding, aberrated optics and an aureole.

The core is kept as its Fourier transform (pixel integration included) at nodes over a detector, so that
`gueststar.simulation.rendering` draws sources of any shape at any sub-pixel place exactly. What lies outside
the stamps, the far aureole with spikes and ghosts of bright stars, is in `gueststar.simulation.bright_stars`.
"""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special

from gueststar.model.camera import Camera, Detector
from gueststar.simulation.optics import Aberrations, Optics, focal_plane_position

Floats = NDArray[np.float64]

HALO_BETA = 1.5
"""The aureole falls as r**-3 (King 1971 found r**-2; dust and ripples steepen it at arc minutes)."""


@dataclass(frozen=True)
class PsfState:
    """What makes the PSF of one exposure."""

    fwhm_arcsec: float
    """Delivered full width at half maximum at the centre of the field, pixel integration included."""
    guiding: tuple[float, float, float]
    """Covariance (xx, xy, yy) of image motion in focal-plane axes, arcsec**2."""
    aberrations: Aberrations


@dataclass(frozen=True, eq=False)
class PsfField:
    """The PSF over one detector in one exposure.

    ``otf`` is complex64 ``[ny, nx, ky, kx]``: at nodes that span the detector from edge to edge, the Fourier
    transform of the PSF within the largest stamp. kx runs over 0 ... fold * size / 2, ky in FFT order, in steps of
    ``2 pi / size`` radians per pixel; ``fold`` is how many times the Nyquist frequency is reached, so that
    aliasing by the pixels is in it.
    """

    otf: NDArray[np.complex64]
    size: int
    """Side of the largest stamp, pixels."""
    fold: int
    shape: tuple[int, int]
    """(ny, nx) of the detector."""
    profile: Floats
    """Azimuthal mean at the middle of the detector at radii 0, 1, 2... pixels."""
    halo_scale: float
    """Scale radius of the aureole, pixels."""
    halo_fraction: float
    wing: float
    """Far wings of the Kolmogorov core: surface brightness times the radius (pixels) to the power 11/3."""

    def node_weights(self, x: Floats, y: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Return corner node ``[n, 2]`` (y, x) and fractional position ``[n, 2]`` for bilinear interpolation."""
        n_y, n_x = self.otf.shape[:2]
        v = np.clip((np.asarray(y) + 0.5) / self.shape[0], 0.0, 1.0) * (n_y - 1)
        u = np.clip((np.asarray(x) + 0.5) / self.shape[1], 0.0, 1.0) * (n_x - 1)
        corner = np.stack([np.minimum(v.astype(np.int64), n_y - 2), np.minimum(u.astype(np.int64), n_x - 2)], axis=1)
        return corner, np.stack([v, u], axis=1) - corner


def taper(radius: Floats, size: int) -> Floats:
    """Return the weight of the stamp part of the PSF: 1 in the middle, falling to 0 before the stamp's edge."""
    inner, outer = 0.36 * size, 0.47 * size
    phase = np.clip((radius - inner) / (outer - inner), 0.0, 1.0)
    return np.asarray(np.cos(0.5 * np.pi * phase) ** 2)


def halo_profile(radius: Floats, scale: float) -> Floats:
    """Return the aureole's surface brightness for unit total flux, per pixel."""
    return np.asarray((HALO_BETA - 1.0) / (np.pi * scale**2) * (1.0 + (radius / scale) ** 2) ** -HALO_BETA)


def stamp_size(fwhm_pixels: float) -> int:
    """Return the side of the largest stamp, a power of two of at least 24 FWHM and 64 pixels."""
    return int(max(64, 2 ** np.ceil(np.log2(24.0 * fwhm_pixels))))


def make_psf_field(
    camera: Camera, optics: Optics, detector: Detector, state: PsfState, *, air_fwhm_arcsec: float, n_nodes: int = 4
) -> PsfField:
    """Return the PSF over one detector; ``air_fwhm_arcsec`` comes from `air_fwhm`."""
    scale = camera.pixel_scale_arcsec
    size = stamp_size(state.fwhm_arcsec / scale)
    fold = 2 if state.fwhm_arcsec / scale > 1.6 else 4
    ny, nx = detector.shape
    base = _base_otf(camera, detector, state, air_fwhm_arcsec, size, fold)
    plan = optics.plan
    halo_scale = 1.5 * state.fwhm_arcsec / scale
    halo = plan.halo_fraction * _halo_image(size, fold, halo_scale)
    core = 1.0 - plan.halo_fraction - plan.spike_fraction - plan.ghost_fraction
    otf = np.empty((n_nodes, n_nodes, fold * size, fold * size // 2 + 1), dtype=np.complex64)
    for row, y in enumerate(np.linspace(-0.5, ny - 0.5, n_nodes)):
        for column, x in enumerate(np.linspace(-0.5, nx - 0.5, n_nodes)):
            field = focal_plane_position(camera, optics, detector, np.array(x), np.array(y))
            spots = _spot_otf(camera, detector, state.aberrations, field, size, fold)
            otf[row, column] = _tapered(base * spots, halo, core, size, fold)
    middle = otf[n_nodes // 2 - 1 : n_nodes // 2 + 1, n_nodes // 2 - 1 : n_nodes // 2 + 1].mean(axis=(0, 1))
    wing = core * _kolmogorov_wing(air_fwhm_arcsec / scale)
    profile = _radial_profile(middle, size, fold)
    return PsfField(otf, size, fold, detector.shape, profile, halo_scale, plan.halo_fraction, wing)


def air_fwhm(camera: Camera, optics: Optics, state: PsfState) -> float:
    """Return the width of the Kolmogorov PSF, arcsec, that gives the delivered width at the centre of the field.

    Where optics, guiding and pixels alone are wider, the narrowest air (0.1 arcsec) is returned.
    """
    detector = camera.detectors[0]
    scale = camera.pixel_scale_arcsec
    size, fold = stamp_size(state.fwhm_arcsec / scale), 4
    spots = _spot_otf(camera, detector, state.aberrations, np.zeros(2), size, fold)
    core = 1.0 - optics.plan.halo_fraction - optics.plan.spike_fraction - optics.plan.ghost_fraction
    halo = optics.plan.halo_fraction * _halo_image(size, fold, 1.5 * state.fwhm_arcsec / scale)

    def excess(width: float) -> float:
        base = _base_otf(camera, detector, state, width, size, fold)
        image = fft.irfft2(_tapered(base * spots, halo, core, size, fold).astype(np.complex128))
        return _area_fwhm(np.asarray(image), fold) * scale - state.fwhm_arcsec

    if excess(0.1) >= 0.0:
        return 0.1
    return float(optimize.brentq(excess, 0.1, 1.5 * state.fwhm_arcsec, xtol=0.005))


def _wave_numbers(size: int, fold: int) -> tuple[Floats, Floats]:
    """Return kx ``[fold*size/2 + 1]`` and ky ``[fold*size]``, radians per pixel."""
    n = fold * size
    along_x = np.asarray(2 * np.pi * fold * np.fft.rfftfreq(n), dtype=np.float64)
    return along_x, np.asarray(2 * np.pi * fold * np.fft.fftfreq(n), dtype=np.float64)


def _kolmogorov_wing(fwhm: float) -> float:
    """Return the coefficient of r**(-11/3) far from the centre of a Kolmogorov PSF.

    The transform exp(-a k**(5/3)) has the inverse transform a 2**(5/3) Gamma(11/6) / (-pi Gamma(-5/6)) r**(-11/3).
    """
    k = 0.2 / fwhm
    a = -np.log(galsim.Kolmogorov(fwhm=fwhm).kValue(k, 0.0).real) / k ** (5 / 3)
    return float(a * 2 ** (5 / 3) * special.gamma(11 / 6) / (-np.pi * special.gamma(-5 / 6)))


def _base_otf(
    camera: Camera, detector: Detector, state: PsfState, air_fwhm_arcsec: float, size: int, fold: int
) -> Floats:
    """Return the transform of air, guiding and pixel."""
    kx, ky = _wave_numbers(size, fold)
    k = np.hypot(kx[None, :], ky[:, None])
    air = galsim.Kolmogorov(fwhm=air_fwhm_arcsec / camera.pixel_scale_arcsec)
    grid = np.linspace(0.0, float(k.max()), 600)
    transform = np.interp(k, grid, [air.kValue(float(value), 0.0).real for value in grid])
    to_pixels = _focal_to_pixels(camera, detector)
    xx, xy, yy = state.guiding
    motion = to_pixels @ np.array([[xx, xy], [xy, yy]]) @ to_pixels.T
    quadratic = motion[0, 0] * kx[None, :] ** 2 + motion[1, 1] * ky[:, None] ** 2
    quadratic += 2 * motion[0, 1] * kx[None, :] * ky[:, None]
    pixel = np.sinc(kx / (2 * np.pi))[None, :] * np.sinc(ky / (2 * np.pi))[:, None]
    return np.asarray(transform * np.exp(-0.5 * quadratic) * pixel)


def _spot_otf(
    camera: Camera, detector: Detector, aberrations: Aberrations, field: Floats, size: int, fold: int
) -> NDArray[np.complex128]:
    """Return the transform of the spot diagram at one place of the focal plane."""
    kx, ky = _wave_numbers(size, fold)
    dx, dy = _focal_to_pixels(camera, detector) @ np.array(aberrations.rays(field))
    along_x = np.exp(-1j * np.outer(dx, kx)) / dx.size
    along_y = np.exp(-1j * np.outer(ky, dy))
    return np.asarray(along_y @ along_x)


def _focal_to_pixels(camera: Camera, detector: Detector) -> Floats:
    """Return the matrix from focal-plane axes (arcsec west, north at rotation 0) to detector pixels."""
    turn, parity = np.radians(detector.focal_plane.rotation_deg), detector.focal_plane.parity
    forward = camera.pixel_scale_arcsec * np.array(
        [[parity * np.cos(turn), -np.sin(turn)], [parity * np.sin(turn), np.cos(turn)]]
    )
    return np.asarray(np.linalg.inv(forward), dtype=np.float64)


def _halo_image(size: int, fold: int, halo_scale: float) -> Floats:
    return halo_profile(_radii(size, fold), halo_scale)


def _radii(size: int, fold: int) -> Floats:
    offset = np.fft.fftfreq(fold * size) * size
    return np.hypot(offset[None, :], offset[:, None])


def _tapered(otf: NDArray[np.complex128], halo: Floats, core: float, size: int, fold: int) -> NDArray[np.complex64]:
    """Return the transform of the PSF within the stamp: core of flux ``core`` plus the inner aureole."""
    weight = taper(_radii(size, fold), size)
    image = core * np.asarray(fft.irfft2(otf)) * fold**2 * weight
    return np.asarray(fft.rfft2(image + halo * weight) / fold**2, dtype=np.complex64)


def _radial_profile(otf: NDArray[np.complex64], size: int, fold: int) -> Floats:
    image = np.asarray(fft.irfft2(otf.astype(np.complex128))) * fold**2
    ring = np.rint(_radii(size, fold)).astype(np.int64).ravel()
    total = np.bincount(ring, weights=image.ravel())
    return np.asarray(total / np.maximum(np.bincount(ring), 1))


def _area_fwhm(image: Floats, fold: int) -> float:
    """Return the diameter of the circle of the same area as the half-maximum contour, pixels; peak at [0, 0]."""
    half = 8 * fold
    cut = np.roll(image, (half, half), axis=(0, 1))[: 2 * half + 1, : 2 * half + 1]
    fine = galsim.Image(np.ascontiguousarray(cut), scale=1.0)
    smooth = (
        galsim.InterpolatedImage(fine, x_interpolant="quintic")
        .drawImage(nx=8 * cut.shape[1], ny=8 * cut.shape[0], scale=0.125, method="no_pixel")
        .array
    )
    return float(2.0 * np.sqrt(np.count_nonzero(smooth >= 0.5 * smooth.max()) / np.pi) / 8.0 / fold)
