"""Planes and flags that tell where an image is doubtful and what its sources were used for."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

import gueststar
from gueststar.algorithms.detrend.edges import EdgeLines, find_vignetted, measure_edge_lines
from gueststar.algorithms.photometry.bright_stars import mark_discs_in_place, measure_wings
from gueststar.algorithms.subtraction.footprints import detected_regions
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.model.columns import REFCAT
from gueststar.model.image import MaskedImage
from gueststar.model.instrumental_columns import INSTRUMENTAL_SOURCE, PSF_STAR
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.catalogs import flag_halos, flag_psf_stars
from gueststar.pipelines.science.halos import MarkHalos

NY, NX = 400, 500
FWHM = 3.0


def vignetted_flat(rng, *, depth: float = 0.3) -> np.ndarray:
    y, x = np.mgrid[:NY, :NX]
    shape = 1.0 - depth * ((x - NX / 2) ** 2 + (y - NY / 2) ** 2) / (NX / 2) ** 2
    return (shape * rng.normal(1.0, 0.01, (NY, NX))).astype(np.float32)


def test_edge_is_where_the_response_leaves_the_illumination() -> None:
    rng = np.random.default_rng(1)
    flat = vignetted_flat(rng)
    bad = np.zeros(flat.shape, bool)
    assert measure_edge_lines(flat, bad) == EdgeLines(0, 0, 0, 0)
    flat[:, :5] *= 0.85
    flat[-3:] *= 1.2
    bad[:, 200] = True
    flat[100, 100], flat[:, 200] = np.nan, 0.0
    assert measure_edge_lines(flat, bad) == EdgeLines(bottom=0, top=3, left=5, right=0)
    assert measure_edge_lines(flat[:7, :9], bad[:7, :9]) is not None


def test_vignetted_blocks_are_those_with_less_than_half_of_the_light() -> None:
    rng = np.random.default_rng(2)
    flat = vignetted_flat(rng, depth=0.6)
    y, x = np.mgrid[:NY, :NX]
    truth = 1.0 - 0.6 * ((x - NX / 2) ** 2 + (y - NY / 2) ** 2) / (NX / 2) ** 2
    found = find_vignetted(flat, np.zeros(flat.shape, bool))
    assert found[truth < 0.40].all()
    assert not found[truth > 0.55].any()
    assert not find_vignetted(vignetted_flat(rng), np.zeros(flat.shape, bool)).any()


def haloed_image(rng, stars, *, noise: float, fraction: float, slope: float) -> np.ndarray:
    """Return noise with stars (x, y, flux): a Gaussian, and wings that fall as a power of the distance."""
    y, x = np.mgrid[:NY, :NX]
    image = rng.normal(0.0, noise, (NY, NX))
    for px, py, flux in stars:
        r = np.hypot(x - px, y - py)
        image += flux * np.exp(-0.5 * (r * 2.3548 / FWHM) ** 2) / (2 * np.pi * (FWHM / 2.3548) ** 2)
        image += flux * fraction * np.maximum(r, FWHM) ** -slope
    return image.astype(np.float32)


def gaussian_psf() -> Psf:
    c = np.arange(-12, 13)
    line = np.exp(-0.5 * (c * 2.3548 / FWHM) ** 2)
    stamp = np.outer(line, line)
    return Psf((stamp / stamp.sum())[None].astype(np.float32), 0, (NY, NX), 1)


@pytest.mark.parametrize("slope", [2.5, 3.0])
def test_wings_reach_as_far_as_they_truly_do(slope: float) -> None:
    rng = np.random.default_rng(3)
    stars = [(x, y, 10.0 ** rng.uniform(5, 6)) for x, y in rng.uniform(60, 340, (3, 2))]
    image = haloed_image(rng, stars, noise=5.0, fraction=0.05, slope=slope)
    x, y, flux = np.array(stars).T
    stamp = gaussian_psf().stamp(x=NX / 2, y=NY / 2)
    wings = measure_wings(image, np.ones(image.shape, bool), x=x, y=y, flux=flux, sky_rms=5.0, stamp=stamp, fwhm=FWHM)
    truth = (1e6 * 0.05 / 5.0) ** (1 / slope)
    assert wings.reach(np.array([5.0 / 1e6]))[0] == pytest.approx(truth, rel=0.25)


def marked_fraction(*, magnitude: float, zero_point: float, scale: float = 1.0, x: float = 250.0) -> float:
    rng = np.random.default_rng(4)
    flux = 10.0 ** (0.4 * (zero_point - magnitude))
    places = np.array([x, 400.0])[: 1 if x > 0 else 2]
    stars = [(px, 200.0, flux) for px in places]
    image = haloed_image(rng, stars, noise=5.0 * scale, fraction=0.05, slope=3.0)
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=250.0, y=200.0, scale_arcsec=1.0)
    ra, dec = wcs.pixel_to_sky(x=places, y=np.full(places.size, 200.0))
    columns = {c.name: np.zeros(places.size) for c in REFCAT.columns} | {
        "ra": ra, "dec": dec, "mag_r": np.full(places.size, magnitude), "epoch": np.full(places.size, 2020.0),
    }  # fmt: skip
    pixels = MaskedImage(image, np.full(image.shape, 25.0), np.zeros(image.shape))
    made = MarkHalos().run(
        pixels, psf=gaussian_psf(), wcs=wcs, photocal=PhotoCal(zero_point, 0.01, band="r"),
        reference=REFCAT.catalog(columns), sources=INSTRUMENTAL_SOURCE.empty(), epoch_year=2020.0,
    )  # fmt: skip
    is_halo = (made.pixels.mask & int(MaskPlane.HALO)) != 0
    return float(is_halo.mean() if x > 0 else is_halo[:, :100].mean())


def test_halos_grow_with_brightness_and_follow_the_zero_point() -> None:
    truth = [np.pi * (10.0 ** (0.4 * (26.0 - m)) * 0.05 / 5.0) ** (2 / 3) / (NX * NY) for m in (10.5, 12.0)]
    bright, fainter = marked_fraction(magnitude=10.5, zero_point=26.0), marked_fraction(magnitude=12.0, zero_point=26.0)
    assert [bright, fainter] == pytest.approx(truth, rel=0.4)
    # Three times the light at three times the noise is the same picture.
    deeper = marked_fraction(magnitude=12.0, zero_point=26.0 + 2.5 * np.log10(3.0), scale=3.0)
    assert deeper == pytest.approx(fainter, rel=0.05)
    assert marked_fraction(magnitude=17.0, zero_point=26.0) == 0.0


def test_halo_of_a_star_off_the_image_reaches_in() -> None:
    assert marked_fraction(magnitude=9.5, zero_point=26.0, x=-20.0) > 0.0


def test_discs_are_round_and_stop_at_the_edge() -> None:
    mask = np.zeros((40, 50), np.int32)
    mark_discs_in_place(mask, np.array([25.3, -2.0]), np.array([20.1, 5.0]), np.array([9.0, 4.0]), 8)
    y, x = np.mgrid[:40, :50]
    expected = (np.hypot(x - 25.3, y - 20.1) <= 9.0) | (np.hypot(x + 2.0, y - 5.0) <= 4.0)
    np.testing.assert_array_equal(mask != 0, expected)


def test_footprints_are_the_regions_of_detections_only() -> None:
    score = np.zeros((30, 30), np.float32)
    score[5:8, 5:8], score[20:23, 20:24] = 9.0, 7.0
    found = detected_regions(score, x=np.array([6.2]), y=np.array([5.9]), threshold=5.0, reach=1.5)
    assert found.sum() == 9
    assert found[5:8, 5:8].all()
    assert not detected_regions(score, x=np.zeros(0), y=np.zeros(0), threshold=5.0, reach=1.5).any()


def test_footprints_of_both_signs_are_what_labelling_the_whole_image_finds() -> None:
    random = np.random.default_rng(3)
    score = gaussian_filter(random.normal(size=(200, 240)), 3.0).astype(np.float32)
    x, y = random.uniform(-2, 242, 60), random.uniform(-2, 202, 60)
    for sign in (1, -1):
        labels, _ = label(sign * score > 0.05, structure=np.ones((3, 3)))
        near = np.zeros(score.shape, bool)
        for px, py in zip(x, y, strict=True):
            rows, columns = (slice(max(int(np.floor(p - 1.5)), 0), int(np.ceil(p + 1.5)) + 1) for p in (py, px))
            near[rows, columns] = True
        expected = np.isin(labels, np.unique(labels[near & (labels > 0)]))
        found = detected_regions(score, x=x, y=y, threshold=0.05, reach=1.5, sign=sign)
        assert 0 < found.sum() < found.size
        np.testing.assert_array_equal(found, expected)


def test_sources_tell_that_they_made_the_psf_or_lie_in_halos() -> None:
    n = 4
    place = {"x": np.array([10.0, 20.0, 30.0, 40.0]), "y": np.full(n, 10.0)}
    catalog = INSTRUMENTAL_SOURCE.catalog({c.name: np.zeros(n) for c in INSTRUMENTAL_SOURCE.columns} | place)
    stars = PSF_STAR.catalog(
        {c.name: np.zeros(3) for c in PSF_STAR.columns}
        | {"x": np.array([10.2, 20.1, 90.0]), "y": np.full(3, 10.0), "is_used": [1, 0, 1], "is_reserved": [0, 1, 0]}
    )
    mask = np.zeros((30, 60), np.int32)
    mask[10, 41] = int(MaskPlane.HALO)
    flags = flag_halos(flag_psf_stars(catalog, stars), mask, fwhm=2.0)["flags"]
    assert flags.tolist() == [
        int(SourceFlag.PSF_STAR),
        int(SourceFlag.PSF_RESERVED),
        0,
        int(SourceFlag.NEAR_BRIGHT_STAR),
    ]
    assert flag_psf_stars(catalog.select(np.zeros(0, int)), stars).n_rows == 0


@pytest.mark.parametrize("kind", [MaskPlane, SourceFlag])
def test_every_declared_bit_is_met_outside_of_its_declaration(kind) -> None:
    root = Path(gueststar.__file__).parent
    code = "\n".join(path.read_text() for path in root.rglob("*.py") if path.name != "bits.py")
    unused = [bit.name for bit in kind if not re.search(rf"{kind.__name__}\.{bit.name}\b", code)]
    assert unused == []
