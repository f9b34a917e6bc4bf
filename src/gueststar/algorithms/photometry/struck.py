"""Cosmic rays on stars: what is left of them when the stars are subtracted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.cosmic_rays import CosmicRayConfig, are_hit, are_tails, touching
from gueststar.algorithms.psf.scene import Scene
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

_MODEL_ERRORS = 3.0
"""The model of a pixel may be off by so many times its typical error where its slope is steep."""
_LIT = 0.3
"""Pixels in the light of sources: where these hold more than this fraction of the sky's noise."""


def take_out_rays_in_place(
    scene: Scene,
    psf: SplinePsf,
    is_struck: Booleans,
    *,
    is_spike: Booleans | None = None,
    config: CosmicRayConfig,
    most_rounds: int = 8,
    planes: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> tuple[Integers, Integers]:
    """Follow cosmic rays on from the pixels that they are known to have struck, under the light of stars.

    Against the image itself a ray on a star is not sharp enough to tell. In ``scene.residual`` the star is gone: pixels
    no farther than two from a ray are struck as well if they stand out there, sharper than the PSF, against the noise,
    the star's photons and the model's error included; those that touch the ray even if they are not sharp, provided
    that nothing else is left about them. Only pixels in the light of sources are looked at: in dark sky the
    search on the image itself has decided. Diffraction spikes (``is_spike``), which no model takes away,
    are not looked at either. ``planes`` are two images of zeros to work with, for who calls this more than once: the
    first stays as it is, and of the second only what is written anew is read.

    Returned are y and x of the new pixels; ``is_struck`` and ``scene.is_masked`` are set there, ``scene.sky_variance``
    becomes infinite and ``scene.residual`` zero.
    """
    y, x = np.divmod(np.flatnonzero(is_struck), is_struck.shape[1])
    if y.size == 0:
        return y, x
    limits = (config.significance, config.sharpness * sharpest_ratio(psf), config.sharpness_sigma)
    # Both are looked at in the candidates' own pixels only.
    dark, noise = (np.zeros(is_struck.shape, np.float32) for _ in range(2)) if planes is None else planes
    found_y, found_x = [], []
    for _ in range(most_rounds):
        y, x, is_touching = _candidates(scene, is_struck, y, x, noise)
        if is_spike is not None:
            is_free = ~is_spike[y, x]
            y, x, is_touching = y[is_free], x[is_free], is_touching[is_free]
        is_hit = are_hit(scene.residual, dark, noise, scene.is_masked, y, x, *limits)
        is_tail = ~is_hit & is_touching
        is_tail[is_tail] = are_tails(
            scene.residual, dark, noise, is_struck, scene.is_masked, y[is_tail], x[is_tail],
            config.lit_tail_significance,
        )  # fmt: skip
        is_new = is_hit | is_tail
        found_y.append(y[is_new])
        found_x.append(x[is_new])
        is_struck[y[is_new], x[is_new]] = scene.is_masked[y[is_new], x[is_new]] = True
        scene.sky_variance[y[is_new], x[is_new]], scene.residual[y[is_new], x[is_new]] = np.inf, 0.0
        y, x = y[is_hit], x[is_hit]  # tails have no tails
        if y.size == 0:
            break
    return np.concatenate(found_y), np.concatenate(found_x)


def _candidates(
    scene: Scene, is_struck: Booleans, y: Integers, x: Integers, noise: NDArray[np.float32]
) -> tuple[Integers, Integers, Booleans]:
    """Return the lit pixels within two of the given ones, and which of these touch them; set the ``noise`` there."""
    near_y, near_x = touching(y, x, is_struck, scene.is_masked)
    y, x = touching(near_y, near_x, is_struck, scene.is_masked)  # the near ones too, unless they touch none other
    width = is_struck.shape[1]
    near = near_y * width + near_x
    flat = np.union1d(near, y * width + x)
    y, x = np.divmod(flat, width)
    light, sky = scene.image[y, x] - scene.residual[y, x], scene.sky_variance[y, x]
    noise[y, x] = np.sqrt(sky + scene.slope * np.maximum(light, 0.0) + (_MODEL_ERRORS * scene.model_error * light) ** 2)
    is_lit = light > _LIT * np.sqrt(sky)
    return y[is_lit], x[is_lit], np.isin(flat[is_lit], near)


def sharpest_ratio(psf: SplinePsf) -> float:
    """Return the mean of two opposite neighbours over the central pixel of a centred star, where it is least."""
    ny, nx = psf.shape
    x, y = np.array([0.0, nx - 1.0, 0.0, nx - 1.0, 0.5 * nx]), np.array([0.0, 0.0, ny - 1.0, ny - 1.0, 0.5 * ny])
    stamps = shifted_stamps(psf, x=x, y=y, dx=np.zeros(5), dy=np.zeros(5), radius=1)
    across, down = stamps[:, 1, 0] + stamps[:, 1, 2], stamps[:, 0, 1] + stamps[:, 2, 1]
    return float(np.clip(np.min(0.5 * np.minimum(across, down) / stamps[:, 1, 1]), 0.0, 1.0))
