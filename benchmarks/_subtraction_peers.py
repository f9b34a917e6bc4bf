"""Other subtractions of the same two images, for comparison: a plain ZOGY, SFFT and hotpants.

All get our calibrated science image and our warped reference (one grid, one flux scale) and our PSF models, and all are
searched alike, by sep on what they leave. hotpants is a program that is not packaged anywhere; where it is not on the
PATH it is left out.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import binary_dilation, maximum_filter

from gueststar.core.bits import UNUSABLE
from gueststar.model.image import CalibratedImage

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

TILES, MARGIN = 6, 32


class PeerCandidates(NamedTuple):
    """What was found on a difference."""

    x: Floats
    y: Floats
    passes_cuts: NDArray[np.bool_]
    """Shaped like a point source: round, as wide as the PSF, no unusable pixel in it."""


class PeerResult(NamedTuple):
    """A peer's subtraction of one image."""

    seconds: float
    """CPU of the subtraction and the search."""
    candidates: PeerCandidates


def run_peer(name: str, science: CalibratedImage, warped: CalibratedImage) -> PeerResult | None:
    """Subtract with a peer and search what is left at 5 sigma; None where it is not installed."""
    bad = ~(science.pixels.is_usable(UNUSABLE) & warped.pixels.is_usable(UNUSABLE))
    bad |= ~np.isfinite(science.pixels.image) | ~np.isfinite(warped.pixels.image)
    start = time.process_time(), _children()
    if name == "zogy":
        found = _search_score(*_zogy(science, warped, bad), bad, science.psf.central_fwhm)
    else:
        difference = {"sfft": _sfft, "hotpants": _hotpants}[name](science, warped, bad)
        if difference is None:
            return None
        found = _search_difference(difference, science, bad)
    return PeerResult(time.process_time() - start[0] + _children() - start[1], found)


def _children() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _filled(image: CalibratedImage, bad: NDArray[np.bool_], other: CalibratedImage) -> Image:
    """Return the pixels with unusable ones taken from the other image, so that they cancel."""
    return np.where(bad, np.nan_to_num(other.pixels.image), image.pixels.image).astype(np.float32)


def _zogy(science: CalibratedImage, warped: CalibratedImage, bad: NDArray[np.bool_]) -> tuple[Image, Image]:
    """Return score and difference of Zackay, Ofek & Gal-Yam (2016), eq. 13 and 17, PSF and noise by tiles."""
    n, r = _filled(science, bad, warped), _filled(warped, bad, warped)
    ny, nx = n.shape
    score, left = np.zeros_like(n), np.zeros_like(n)
    edges_y, edges_x = np.linspace(0, ny, TILES + 1).astype(int), np.linspace(0, nx, TILES + 1).astype(int)
    for y0, y1 in itertools.pairwise(edges_y):
        for x0, x1 in itertools.pairwise(edges_x):
            rows = slice(max(y0 - MARGIN, 0), min(y1 + MARGIN, ny))
            columns = slice(max(x0 - MARGIN, 0), min(x1 + MARGIN, nx))
            centre = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2}
            variances = [float(np.median(i.pixels.variance[rows, columns][::8, ::8])) for i in (science, warped)]
            s, d = _zogy_tile(
                n[rows, columns], r[rows, columns], science.psf.stamp(**centre), warped.psf.stamp(**centre), *variances
            )
            inner = slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start)
            score[y0:y1, x0:x1], left[y0:y1, x0:x1] = s[inner], d[inner]
    return score, left


def _zogy_tile(n: Image, r: Image, psf_n: Image, psf_r: Image, var_n: float, var_r: float) -> tuple[Image, Image]:
    shape = (fft.next_fast_len(n.shape[0], real=True), fft.next_fast_len(n.shape[1], real=True))
    p_n, p_r = (_centred_spectrum(p, shape) for p in (psf_n, psf_r))
    f_n, f_r = fft.rfft2(n, s=shape), fft.rfft2(r, s=shape)
    power = var_n * np.abs(p_r) ** 2 + var_r * np.abs(p_n) ** 2 + 1e-9 * (var_n + var_r)
    f_d = (p_r * f_n - p_n * f_r) / np.sqrt(power)
    f_s = np.conj(p_n * p_r) / np.sqrt(power) * f_d
    s, d = (fft.irfft2(f, s=shape)[: n.shape[0], : n.shape[1]] for f in (f_s, f_d))
    low, high = np.percentile(s[::3, ::3], [25, 75])
    return (s / ((high - low) / 1.349)).astype(np.float32), d.astype(np.float32)


def _centred_spectrum(stamp: Image, shape: tuple[int, int]) -> NDArray[np.complex64]:
    padded = np.zeros(shape, np.float32)
    padded[: stamp.shape[0], : stamp.shape[1]] = stamp
    return fft.rfft2(np.roll(padded, (-(stamp.shape[0] // 2), -(stamp.shape[1] // 2)), axis=(0, 1)))


def _search_score(score: Image, left: Image, bad: NDArray[np.bool_], fwhm: float) -> PeerCandidates:
    """Return positive peaks of a unit-variance score, and whether the difference is a point source there."""
    near = binary_dilation(bad, iterations=2)
    peaks = (score == maximum_filter(score, size=2 * round(fwhm) + 1)) & (score >= 5.0) & ~near
    y, x = np.nonzero(peaks)
    return PeerCandidates(x.astype(float), y.astype(float), _is_point_like(left, x, y, fwhm, bad))


def _is_point_like(
    left: Image, x: NDArray[np.intp], y: NDArray[np.intp], fwhm: float, bad: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return simple cuts: the light in the box is positive and concentrated, no lobe of the other sign, nothing bad."""
    ny, nx = left.shape
    half = max(3, round(1.5 * fwhm))
    keep = np.zeros(x.size, bool)
    for k, (px, py) in enumerate(zip(x, y, strict=True)):
        if not (half <= px < nx - half and half <= py < ny - half):
            continue
        box = np.s_[py - half : py + half + 1, px - half : px + half + 1]
        values = left[box]
        peak = values[half - 1 : half + 2, half - 1 : half + 2].max()
        keep[k] = values.min() > -0.5 * peak and values.sum() > 0.3 * np.abs(values).sum() and not bad[box].any()
    return keep


def _search_difference(difference: Image, science: CalibratedImage, bad: NDArray[np.bool_]) -> PeerCandidates:
    """Return sep's detections at 5 sigma on the difference filtered by a Gaussian of the PSF's width."""
    fwhm = science.psf.central_fwhm
    image = np.ascontiguousarray(np.where(bad, 0.0, difference), dtype=np.float32)
    near = binary_dilation(bad, iterations=2)
    background = sep.Background(image, mask=near, bw=256, bh=256)
    r = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (r[:, None] ** 2 + r[None, :] ** 2) * (2.3548 / fwhm) ** 2)
    sigma = np.hypot(
        background.rms(), np.sqrt(np.maximum(science.pixels.variance - np.median(science.pixels.variance), 0))
    )
    # sep's threshold counts for filtered pixels: 5 sigma of the matched filter, its noise from white pixels.
    found = sep.extract(
        image - background.back(), 5.0, err=sigma.astype(np.float32), mask=near, minarea=1, filter_kernel=kernel,
        filter_type="matched", deblend_cont=1.0,
    )  # fmt: skip
    width = 2.3548 * np.sqrt(found["a"] * found["b"])
    is_round = (found["b"] > 0.5 * found["a"]) & (width > 0.4 * fwhm) & (width < 1.6 * fwhm)
    x, y = np.rint(found["x"]).astype(int), np.rint(found["y"]).astype(int)
    return PeerCandidates(found["x"], found["y"], is_round & _is_point_like(image, x, y, fwhm, bad))


def _sfft(science: CalibratedImage, warped: CalibratedImage, bad: NDArray[np.bool_]) -> Image | None:
    """Return science minus reference convolved by SFFT (Hu et al. 2022), or the other way about if it is sharper.

    In 3 x 3 parts that overlap: on the CPU a whole quadrant wants more than 24 GB.
    """
    try:
        from sfft.CustomizedPacket import Customized_Packet
    except ImportError:
        return None
    n, r = _filled(science, bad, warped), _filled(warped, bad, warped)
    # The fit must not see the sky's noise alone: SFFT's masked images hold stars only, as its sparse mode makes them.
    bright = binary_dilation(r > 20.0 * np.sqrt(np.median(science.pixels.variance)), iterations=8) & ~bad
    convolved = "SCI" if science.psf.central_fwhm < warped.psf.central_fwhm else "REF"
    out = np.zeros_like(n)
    for inner, wide in _parts(n.shape, 3):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            paths = {name: str(Path(folder) / f"{name}.fits") for name in ("ref", "sci", "mref", "msci", "diff")}
            for name, values in (("ref", r), ("sci", n), ("mref", r * bright), ("msci", n * bright)):
                fits.writeto(paths[name], values[wide].astype(np.float64))
            Customized_Packet.CP(
                FITS_REF=paths["ref"], FITS_SCI=paths["sci"], FITS_mREF=paths["mref"], FITS_mSCI=paths["msci"],
                ForceConv=convolved, GKerHW=6, FITS_DIFF=paths["diff"], KerPolyOrder=1, BGPolyOrder=1,
                BACKEND_4SUBTRACT="Numpy", NUM_CPU_THREADS_4SUBTRACT=1, VERBOSE_LEVEL=0,
            )  # fmt: skip
            made = np.asarray(fits.getdata(paths["diff"]), dtype=np.float32)
        out[inner] = made[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, wide, strict=True))]
    return out


def _parts(shape: tuple[int, int], n: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yield the n x n parts of an image, and each with a margin."""
    edges = [np.linspace(0, size, n + 1).astype(int) for size in shape]
    for y0, y1 in itertools.pairwise(edges[0]):
        for x0, x1 in itertools.pairwise(edges[1]):
            wide = (
                slice(max(y0 - MARGIN, 0), min(y1 + MARGIN, shape[0])),
                slice(max(x0 - MARGIN, 0), min(x1 + MARGIN, shape[1])),
            )
            yield (slice(y0, y1), slice(x0, x1)), wide


def _hotpants(science: CalibratedImage, warped: CalibratedImage, bad: NDArray[np.bool_]) -> Image | None:
    """Return what the program hotpants leaves, reference convolved unless the science image is sharper."""
    if shutil.which("hotpants") is None:
        return None
    n, r = _filled(science, bad, warped), _filled(warped, bad, warped)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{name}.fits") for name in ("sci", "ref", "diff")}
        fits.writeto(paths["sci"], n)
        fits.writeto(paths["ref"], r)
        level = str(5.0 * float(np.sqrt(np.median(science.pixels.variance))))
        words = ["-inim", paths["sci"], "-tmplim", paths["ref"], "-outim", paths["diff"], "-n", "i"]
        words += ["-il", f"-{level}", "-tl", f"-{level}", "-iu", "280000", "-tu", "280000", "-ko", "2", "-bgo", "1"]
        words += [
            "-nrx",
            "1",
            "-nry",
            "1",
            "-r",
            "10",
            "-c",
            "i" if science.psf.central_fwhm < warped.psf.central_fwhm else "t",
        ]
        done = subprocess.run(["hotpants", *words], capture_output=True)
        return np.asarray(fits.getdata(paths["diff"]), dtype=np.float32) if done.returncode == 0 else None
