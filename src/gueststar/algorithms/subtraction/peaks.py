"""Peaks of a score image, without the side lobes of brighter ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from gueststar.algorithms.detection.lit import local_maxima

Float32Image = NDArray[np.float32]


class Peaks(NamedTuple):
    """Pixels of extreme score, one sign: sorted by falling |score|, then y, then x."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    score: NDArray[np.float64]


def find_peaks(score: Float32Image, *, threshold: float, is_positive: bool) -> Peaks:
    """Return local extremes (of their 8 neighbours) at or beyond ``threshold`` of one sign."""
    sign = 1.0 if is_positive else -1.0
    top = local_maxima(score, threshold, sign=sign, border=1)
    order = np.lexsort((top.x, top.y, -np.abs(score[top.y, top.x])))
    y, x = top.y[order].astype(np.int64), top.x[order].astype(np.int64)
    return Peaks(x, y, score[y, x].astype(np.float64))


def drop_side_lobes(
    positive: Peaks,
    negative: Peaks,
    response: NDArray[np.float32],
    *,
    threshold: float,
    merge_radius: float,
    tolerance: float = 0.02,
) -> tuple[Peaks, Peaks]:
    """Return the peaks that brighter ones near them do not explain.

    ``response`` ``[k, k]`` is the score about a point source of score one (the autocorrelation of the
    difference's PSF). A peak is dropped if one of the same sign and greater height lies within
    ``merge_radius`` pixels, or if, less the response of a brighter peak (of either sign) and less
    ``tolerance`` of that peak's height for what the PSF model does not know, it falls below ``threshold``.
    """
    x = np.concatenate([positive.x, negative.x])
    y = np.concatenate([positive.y, negative.y])
    score = np.concatenate([positive.score, negative.score])
    order = np.lexsort((x, y, -np.abs(score)))
    kept = np.zeros(x.size, bool)
    kept[order] = _explained(x[order], y[order], score[order], response, threshold, merge_radius, tolerance)
    n = positive.x.size
    return _select(positive, kept[:n]), _select(negative, kept[n:])


def _select(peaks: Peaks, index: NDArray[np.bool_]) -> Peaks:
    return Peaks(peaks.x[index], peaks.y[index], peaks.score[index])


def score_response(psf: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score about a point source of score one: the autocorrelation of the PSF, one at its middle."""
    stamp, (height, width) = psf.astype(np.float64), (2 * n - 1 for n in psf.shape)
    padded = [fft.next_fast_len(n, real=True) for n in (height, width)]
    product = fft.rfftn(stamp, padded) * fft.rfftn(stamp[::-1, ::-1], padded)
    response = fft.irfftn(product, padded)[:height, :width]
    return np.asarray(response / response.max(), dtype=np.float32)


@njit(cache=True)
def _explained(x, y, score, response, threshold, merge_radius, tolerance):  # type: ignore[no-untyped-def]
    """Walk from the highest peak down; a cell list keeps the search local."""
    kept = np.zeros(x.size, np.bool_)
    if x.size == 0:
        return kept
    half = response.shape[0] // 2
    nx, ny = x.max() // half + 1, y.max() // half + 1
    head = np.full((ny, nx), -1, np.int64)
    following = np.full(x.size, -1, np.int64)
    for k in range(x.size):
        cy, cx = y[k] // half, x[k] // half
        good = True
        for j in range(max(cy - 1, 0), min(cy + 2, ny)):
            for i in range(max(cx - 1, 0), min(cx + 2, nx)):
                other = head[j, i]
                while other >= 0 and good:
                    dx, dy = x[k] - x[other], y[k] - y[other]
                    if abs(dx) <= half and abs(dy) <= half:
                        same_sign = score[k] * score[other] > 0
                        if same_sign and dx * dx + dy * dy <= merge_radius * merge_radius:
                            good = False
                        lobe = score[other] * response[half + dy, half + dx]
                        if abs(score[k] - lobe) < threshold + tolerance * abs(score[other]):
                            good = False
                    other = following[other]
        if good:
            kept[k] = True
            following[k] = head[cy, cx]
            head[cy, cx] = k
    return kept
