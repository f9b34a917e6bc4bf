"""Real pairs of DECam stamps: the score is white, stars leave little, and sources put in are found with their flux.

The stamps are aligned and sky-subtracted, 256 pixels a side, and hold cosmic rays; nothing else is known to change.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.model.catalog import Catalog
from gueststar.model.columns import SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference
from gueststar.pipelines.injection.faded import ShowFaded
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.place import LABELLING
from gueststar.pipelines.night.science import limiting_magnitude
from gueststar.pipelines.science.psf import MeasurePsf

CONTEXT = DetectionContext(1, 0, 0, 60000.0, 60000.0, 1, 1)


def stamp_of(path: Path) -> CalibratedImage:
    """Return a stamp in electrons with a variance from its own sky; its WCS is made up."""
    with fits.open(path) as hdus:
        image = np.asarray(hdus[0].data, np.float32) * np.float32(hdus[0].header["GAIN"])
        full = float(hdus[0].header["SATURATE"] * hdus[0].header["GAIN"])
    sigma = median_and_sigma(image.ravel())[1]
    variance = (sigma**2 + np.maximum(image, 0.0)).astype(np.float32)
    pixels = MaskedImage(image, variance, np.where(image > 0.9 * full, int(MaskPlane.SATURATED), 0).astype(np.int32))
    wcs = Wcs.tangent(ra=150.0, dec=0.0, x=128.0, y=128.0, scale_arcsec=0.263)
    psf = MeasurePsf().run(pixels, expected_fwhm=4.5).psf
    return CalibratedImage(pixels, wcs, psf, PhotoCal(30.0, 0.0), {"group": path.name[:9]})


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[tuple[CalibratedImage, CalibratedImage]]:
    folder = shared_data / "decam_minis_sfft"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    stamps = [stamp_of(path) for path in sorted(folder.glob("*.fits.gz"))]
    return [(a, b) for a, b in itertools.pairwise(stamps) if a.metadata["group"] == b.metadata["group"]]


def is_like_a_ray(found: Catalog) -> np.ndarray:
    """Return which detections are cosmic rays: the stamps are not cleaned, and rays of the reference are negative."""
    return ((found["flags"] & int(SourceFlag.COSMIC_RAY)) != 0) | (found["pixel_excess"] > 0.4)


def test_real_pairs_leave_a_white_score_and_little_but_cosmic_rays(pairs) -> None:
    n_found, noise = [], []
    for reference, science in pairs:
        result = MakeDifference(DifferenceConfig(background_box=0)).run(science, reference)
        assert result.metrics["method"] == "proper"  # a handful of stars do not fit a kernel
        values = result.score[(result.score != 0) & (result.inflation < 1.1)]
        noise.append(float(np.subtract(*np.percentile(values, [75, 25]))) / 1.349)
        found = DetectCandidates().run(result, science, reference, context=CONTEXT).catalog
        n_found.append(int((~is_like_a_ray(found)).sum()))
    assert 0.98 < np.median(noise) < 1.02
    assert np.mean(n_found) <= 1.0


def test_sources_put_into_real_pairs_are_found_with_their_flux(pairs) -> None:
    n_seen, pulls = [], []
    for number, (reference, science) in enumerate(pairs):
        limit = limiting_magnitude(science)
        config = replace(LABELLING, n=12, host_fraction=0.0)
        injected = InjectSources(config).run(science, limiting_mag=limit, random=np.random.default_rng(number))
        faded = ShowFaded(injected.sources, science.wcs, random=np.random.default_rng([number, 1]))
        before, _ = faded(reference, SOURCE.empty())
        result = MakeDifference(DifferenceConfig(background_box=0)).run(injected.image, before)
        found = DetectCandidates().run(result, injected.image, before, context=CONTEXT).catalog
        put, sigma = injected.sources, result.metrics["psf_flux_sigma"]
        flux = np.sign(put.flux) * science.photocal.flux(put.magnitude)
        for x, y, f in zip(put.x, put.y, flux, strict=True):
            distance = np.hypot(found["x"] - x, found["y"] - y)
            is_found = bool(distance.size) and float(distance.min()) < 2.0
            if abs(f) > 7.0 * sigma:
                n_seen.append(is_found)
            if is_found:
                k, unit = int(np.argmin(distance)), science.photocal.njy_per_unit
                pulls.append((found["psf_flux"][k] / unit - f) / (found["psf_flux_err"][k] / unit))
    assert np.mean(n_seen) > 0.85  # places are random: some lie on bright stars and rays
    assert abs(np.median(pulls)) < 0.4
    assert 0.7 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.4
