import numpy as np
import pytest

from gueststar.algorithms.subtraction.measure import measure_moments
from gueststar.algorithms.subtraction.peaks import drop_side_lobes, find_peaks, score_response
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.ids import wire_candid, wire_pid
from gueststar.model.columns import DIA_SOURCE, SOURCE
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionConfig, DetectionContext
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

CONTEXT = DetectionContext(
    visit=123456, detector=7, rcid=28, mjd_start=60000.25, mjd_tai=60000.2502, band_id=2, program=1
)
SMALL = DifferenceConfig(tile_size=160, score_box=150, background_box=150)
REFERENCE = {"shape": (380, 400), "sky": 60.0, "fwhm": 2.4, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}


def detect(science, reference, config=None, **options):
    warped = WarpReference().run(science, reference)
    result = MakeDifference(SMALL).run(science, warped)
    return DetectCandidates(config or DetectionConfig()).run(result, science, warped, context=CONTEXT, **options)


def row_at(catalog, x, y):
    distance = np.hypot(catalog["x"] - x, catalog["y"] - y)
    k = int(np.argmin(distance))
    assert distance[k] < 1.5, f"nothing within 1.5 pixels of ({x}, {y}); nearest is {distance[k]:.1f} away"
    return {name: catalog[name][k] for name in catalog}


def test_new_source_is_recovered_where_it_is_with_its_flux(sky) -> None:
    added = ((100.3, 200.6, 8000.0), (222.2, 77.7, 30000.0))
    science = sky.image(fwhm=2.7, seed=4, added=added)
    catalog = detect(science, sky.image(**REFERENCE)).catalog
    assert catalog.schema is DIA_SOURCE
    for x, y, flux in added:
        row = row_at(catalog, x, y)
        assert row["is_positive"]
        assert np.hypot(row["x"] - x, row["y"] - y) < 4 * np.hypot(row["x_err"], row["y_err"])
        assert abs(row["psf_flux"] - flux * science.photocal.njy_per_unit) < 4 * row["psf_flux_err"]
        assert row["science_flux"] == pytest.approx(row["psf_flux"], rel=0.15)
        assert 0.5 < row["chi2"] < 2.0
        assert row["class_star"] > 0.3
        assert row["flags"] & int(SourceFlag.DIPOLE | SourceFlag.TRAILED | SourceFlag.COSMIC_RAY) == 0
        ra, dec = science.wcs.pixel_to_sky(x=x, y=y)
        assert np.hypot((row["ra"] - ra) * np.cos(np.radians(dec)), row["dec"] - dec) * 3600 < 0.3
        assert row["n_bad"] == 0
        assert row["sum_ratio"] > 0.7
    assert catalog.n_rows <= len(added) + 2


def test_a_source_that_faded_is_a_negative_detection(sky) -> None:
    science = sky.image(fwhm=2.7, seed=4)
    x, y = 100.0, 200.0
    ra, dec = science.wcs.pixel_to_sky(x=x, y=y)
    sky.ra, sky.dec, sky.flux = np.append(sky.ra, ra), np.append(sky.dec, dec), np.append(sky.flux, 8000.0)
    row = row_at(detect(science, sky.image(**REFERENCE)).catalog, x, y)
    assert not row["is_positive"]
    assert row["snr"] < -5
    assert row["psf_flux"] < 0


def test_identifiers_order_and_facts_are_as_the_wire_wants_them(sky) -> None:
    added = ((60.0, 200.0, 9000.0), (150.0, 30.0, 20000.0), (200.0, 210.0, 5000.0))
    science, reference = sky.image(seed=4, added=added), sky.image(**REFERENCE)
    one, two = detect(science, reference).catalog, detect(science, reference).catalog
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    positive = one.select(one["is_positive"])
    assert np.all(np.diff(positive["snr"]) <= 0)
    pid = wire_pid(CONTEXT.mjd_start, CONTEXT.rcid)
    assert positive["dia_source_id"][0] == wire_candid(pid, is_positive=True, serial=0)
    assert np.unique(one["dia_source_id"]).size == one.n_rows
    assert set(one["visit"]) == {CONTEXT.visit}
    assert set(one["program"]) == {1}
    assert np.isnan(one["reliability"]).all()
    assert not one["dia_object_id"].any()


def test_a_moved_star_is_a_dipole(sky) -> None:
    science = sky.image(fwhm=2.7, seed=4, added=((120.0, 150.0, 60000.0),))
    ra, dec = science.wcs.pixel_to_sky(x=121.6, y=150.0)
    x, y = sky.image(**REFERENCE).wcs.sky_to_pixel(ra=ra, dec=dec)
    moved = sky.image(**REFERENCE, added=((float(x), float(y), 60000.0 * 10 ** (0.4 * (29.5 - 30))),))
    row = row_at(detect(science, moved).catalog, 119.0, 150.0)
    assert row["flags"] & int(SourceFlag.DIPOLE)
    assert row["dipole_flux_positive"] > 0 > row["dipole_flux_negative"]
    assert row["dipole_separation"] == pytest.approx(1.6, abs=0.6)
    assert row["dipole_chi2_ratio"] < 0.8


def test_a_trail_has_its_length_and_direction(sky) -> None:
    length, angle = 9.0, np.radians(30.0)
    steps = (np.arange(40) + 0.5) / 40 - 0.5
    line = tuple((150 + length * t * np.cos(angle), 210 + length * t * np.sin(angle), 1000.0) for t in steps)
    catalog = detect(sky.image(seed=4, added=line), sky.image(**REFERENCE)).catalog
    near = np.hypot(catalog["x"] - 150, catalog["y"] - 210) < 6
    k = np.flatnonzero(near)[np.argmax(catalog["snr"][near])]
    assert catalog["flags"][k] & int(SourceFlag.TRAILED)
    assert catalog["trail_length"][k] == pytest.approx(length, abs=1.5)
    assert catalog["trail_angle_deg"][k] == pytest.approx(30.0, abs=8.0)


def test_a_cosmic_ray_that_survived_is_flagged_and_a_star_is_not(sky) -> None:
    science = sky.image(seed=4, fwhm=2.7, added=((60.5, 60.2, 30000.0),))
    science.pixels.image[200, 120] += 3000.0
    catalog = detect(science, sky.image(**REFERENCE)).catalog
    assert row_at(catalog, 120, 200)["flags"] & int(SourceFlag.COSMIC_RAY)
    assert not row_at(catalog, 60.5, 60.2)["flags"] & int(SourceFlag.COSMIC_RAY)


@pytest.mark.parametrize(("seeing", "of_reference"), [(1.9, 2.6), (2.6, 1.9)])
def test_variable_stars_are_no_cosmic_rays_where_the_seeing_differs_and_rays_stay_rays(
    sky, seeing: float, of_reference: float
) -> None:
    stars = type(sky).random(150, half_size_deg=0.046)
    x, y = stars.image().wcs.sky_to_pixel(ra=stars.ra, dec=stars.dec)
    gap = np.hypot(x[:, None] - x, y[:, None] - y) + np.diag(np.full(x.size, 99.0))
    varies = np.flatnonzero((gap.min(axis=1) > 8) & (np.minimum(x, y) > 20) & (x < 300) & (y < 280))[:8]
    change = np.where(np.arange(8) % 2 == 0, 0.3, -0.2) * stars.flux[varies]
    science = stars.image(fwhm=seeing, seed=4, added=tuple(zip(x[varies], y[varies], change, strict=True)))
    grid = [(a, b) for a in range(25, 300, 20) for b in range(25, 280, 20)]
    rays = np.array([(a, b) for a, b in grid if np.hypot(x - a, y - b).min() > 8])
    science.pixels.image[rays[:, 1], rays[:, 0]] += 400.0
    catalog = detect(science, stars.image(**REFERENCE | {"fwhm": of_reference})).catalog
    is_flagged = (catalog["flags"] & int(SourceFlag.COSMIC_RAY)) != 0
    is_star, is_ray = (
        np.hypot(catalog["x"][:, None] - places[:, 0], catalog["y"][:, None] - places[:, 1]).min(axis=1) < 1.5
        for places in (np.column_stack([x, y])[varies], rays)
    )
    assert (is_star & catalog["is_positive"]).sum() == 4
    assert not is_flagged[is_star].any()
    assert np.abs(catalog["pixel_excess"][is_star]).max() < 0.4
    assert catalog["plain_flux"][is_star] / catalog["psf_flux"][is_star] == pytest.approx(1.0, abs=0.2)
    assert is_ray.sum() > 0.8 * len(rays) > 20
    assert is_flagged[is_ray].mean() > 0.95


def test_masks_become_flags(sky) -> None:
    science = sky.image(seed=4, added=((60.0, 200.0, 9000.0), (150.0, 30.0, 9000.0)))
    science.pixels.mask[200, 62] = int(MaskPlane.SATELLITE)
    science.pixels.mask[30, 150] = int(MaskPlane.HALO)
    catalog = detect(science, sky.image(**REFERENCE)).catalog
    assert row_at(catalog, 60.0, 200.0)["flags"] & int(SourceFlag.SATELLITE)
    assert row_at(catalog, 150.0, 30.0)["flags"] & int(SourceFlag.NEAR_BRIGHT_STAR)


def test_nearest_reference_source_and_bright_star_are_told(sky) -> None:
    science = sky.image(seed=4, added=((60.0, 200.0, 9000.0),))
    ra, dec = science.wcs.pixel_to_sky(x=np.array([64.0, 20.0]), y=np.array([203.0, 20.0]))
    columns = {c.name: np.zeros(2, c.dtype) for c in SOURCE.columns}
    sources = SOURCE.catalog(columns | {"ra": ra, "dec": dec, "mag": [19.5, 12.0]})
    bright = (np.array([70.0]), np.array([200.0]), np.array([11.0]))
    catalog = detect(science, sky.image(**REFERENCE), reference_sources=sources, bright_stars=bright).catalog
    row = row_at(catalog, 60.0, 200.0)
    assert row["reference_distance"] == pytest.approx(5.0, abs=0.3)
    assert row["reference_mag"] == pytest.approx(19.5)
    assert row["bright_distance"] == pytest.approx(10.0, abs=0.3)
    assert row["flags"] & int(SourceFlag.NEAR_BRIGHT_STAR)


def test_only_the_best_of_too_many_are_kept_and_the_rest_are_counted(sky) -> None:
    added = tuple((40.0 + 30 * k, 220.0, 3000.0 + 500 * k) for k in range(8))
    config = DetectionConfig(max_per_sign=3)
    found = detect(sky.image(seed=4, added=added), sky.image(**REFERENCE), config)
    assert found.catalog["is_positive"].sum() == 3
    assert found.metrics["n_dropped_positive"] == found.metrics["n_positive"] - 3 > 0


def test_nothing_found_is_an_empty_catalog(sky) -> None:
    config = DetectionConfig(threshold=50.0)
    catalog = detect(sky.image(seed=4), sky.image(**REFERENCE), config).catalog
    assert catalog.n_rows == 0
    assert set(catalog) == {c.name for c in DIA_SOURCE.columns}


def test_side_lobes_of_a_bright_source_are_not_detections() -> None:
    profile = np.exp(-(np.arange(-12, 13) ** 2) / 4.0) - 0.15 * np.exp(-((np.abs(np.arange(-12, 13)) - 4) ** 2) / 2.0)
    response = score_response(np.outer(profile, profile).astype(np.float32))
    score = np.zeros((80, 80), np.float32)
    half = response.shape[0] // 2
    score[40 - half : 41 + half, 40 - half : 41 + half] = 400.0 * response
    score[10, 70] = 6.0
    peaks = [find_peaks(score, threshold=5.0, is_positive=p) for p in (True, False)]
    assert peaks[0].x.size + peaks[1].x.size > 2
    positive, negative = drop_side_lobes(*peaks, response, threshold=5.0, merge_radius=2.0)
    assert sorted(zip(positive.x, positive.y, strict=True)) == [(40, 40), (70, 10)]
    assert negative.x.size == 0


def test_adaptive_moments_measure_an_inclined_gaussian() -> None:
    yy, xx = np.mgrid[:61, :61]
    u = (xx - 30.3) * np.cos(0.6) + (yy - 29.8) * np.sin(0.6)
    v = -(xx - 30.3) * np.sin(0.6) + (yy - 29.8) * np.cos(0.6)
    image = (100.0 * np.exp(-0.5 * (u**2 / 9.0 + v**2 / 4.0))).astype(np.float32)
    found = measure_moments(image, x=np.array([30.0]), y=np.array([30.0]), sign=np.ones(1), sigma=2.0, radius=14)
    assert found.a[0] == pytest.approx(3.0, rel=0.02)
    assert found.b[0] == pytest.approx(2.0, rel=0.02)
    assert found.theta_deg[0] == pytest.approx(np.degrees(0.6), abs=1.0)
    assert found.fwhm[0] == pytest.approx(2.3548 * np.sqrt(6.0), rel=0.02)
