"""How deep an image is for point sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def point_source_limit(variance: NDArray[np.float32], psf_stamp: NDArray[np.float32], *, n_sigma: float = 5.0) -> float:
    """Return the flux (image units) at which a PSF fit on the typical background reaches ``n_sigma``.

    ``variance`` is that of usable background pixels (any shape, at least one); its median stands for the
    image. The error of an optimally weighted PSF flux in white noise is sigma / sqrt(sum psf**2).
    """
    sigma = np.sqrt(np.median(variance))
    return float(n_sigma * sigma / np.sqrt(np.sum(psf_stamp.astype(np.float64) ** 2)))
