from dataclasses import replace

import numpy as np
import pytest

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.wcs import Wcs
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference, MakeReferenceConfig
from gueststar.pipelines.reference.select_epochs import EpochQuality, SelectEpochs, SelectEpochsConfig


def grid_of(size: int = 360) -> tuple[Wcs, tuple[int, int]]:
    return Wcs.tangent(ra=150.0, dec=20.0, x=(size - 1) / 2, y=(size - 1) / 2, scale_arcsec=1.0), (size, size)


def epochs_of(sky, n: int, **changes) -> list[Epoch]:
    rng = np.random.default_rng(3)
    made = []
    for k in range(n):
        image = sky.image(
            fwhm=2.2 + 0.15 * k, zero_point=30.0 - 0.05 * k, offset=tuple(rng.uniform(-12, 12, 2)),
            rotation_deg=0.3 * k, seed=50 + k, mjd_tai=60000.0 + k, **changes,
        )  # fmt: skip
        made.append(Epoch(f"e{k}", 60000.0 + k, lambda image=image: image))
    return made


def test_reference_holds_the_static_sky_on_its_grid_with_flux_and_noise_right(sky) -> None:
    reference = MakeReference().run(epochs_of(sky, 6), grid=grid_of())
    x, y = reference.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    gain = 10.0 ** (0.4 * (reference.photocal.zero_point - 30.0))
    assert reference.coverage is not None
    whole = reference.coverage[np.clip(y, 0, 359).astype(int), np.clip(x, 0, 359).astype(int)] == 6
    lonely = np.array([np.sort(np.hypot(x - x[k], y - y[k]))[1] > 18 for k in range(x.size)])
    alone = np.flatnonzero(whole & lonely & (sky.flux > 2e4))
    assert len(alone) > 5
    for k in alone:
        x0, y0 = round(x[k]), round(y[k])
        stamp = reference.psf.stamp(x=x0, y=y0, dx=x[k] - x0, dy=y[k] - y0, side=13)
        cut = reference.pixels.image[y0 - 6 : y0 + 7, x0 - 6 : x0 + 7]
        assert (cut * stamp).sum() / (stamp**2).sum() == pytest.approx(sky.flux[k] * gain, rel=0.02)
    assert reference.coverage.max() == 6
    assert reference.metadata["n_epochs"] == 6
    assert reference.metadata["first_mjd_tai"] == 60000.0
    assert reference.metadata["last_mjd_tai"] == 60005.0
    sums, expected = [], []
    for cy in range(60, 300, 10):
        for cx in range(60, 300, 10):
            if np.hypot(x - cx, y - cy).min() > 16:
                box = np.s_[cy - 4 : cy + 5, cx - 4 : cx + 5]
                sums.append(reference.pixels.image[box].sum())
                expected.append(reference.pixels.variance[box].sum())
    assert len(sums) > 40
    assert np.std(sums) == pytest.approx(np.sqrt(np.mean(expected)), rel=0.25)


def test_bands_of_rows_and_the_whole_give_the_same_reference(sky) -> None:
    epochs = epochs_of(sky, 4)
    whole = MakeReference().run(epochs, grid=grid_of())
    small = MakeReferenceConfig(max_memory_bytes=4 * 16 * 360 * 90)
    banded = MakeReference(small).run(epochs, grid=grid_of())
    np.testing.assert_allclose(banded.pixels.image, whole.pixels.image, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(banded.pixels.mask, whole.pixels.mask)
    assert banded.metadata["clipped_pixels"] == whole.metadata["clipped_pixels"]


def test_a_moving_object_is_not_in_the_reference(sky) -> None:
    rng = np.random.default_rng(0)
    epochs = []
    for k in range(7):
        image = sky.image(added=((40.0 + 18 * k, 200.0, 9000.0),), seed=60 + k, fwhm=2.4 + rng.uniform(0, 0.3))
        epochs.append(Epoch(f"e{k}", 60000.0 + k, lambda image=image: image))
    images = [sky.image(seed=60 + k, fwhm=2.5) for k in range(7)]
    still = [Epoch(f"s{k}", 60000.0, lambda image=image: image) for k, image in enumerate(images)]
    moving, clean = (MakeReference().run(e, grid=grid_of()) for e in (epochs, still))
    x, y = 40.0 + 18 * np.arange(7) + 20, np.full(7, 230)
    for xs, ys in zip(x.astype(int), y, strict=True):
        box = np.s_[ys - 3 : ys + 4, xs - 3 : xs + 4]
        noise = np.sqrt(clean.pixels.variance[box].sum())
        assert abs(moving.pixels.image[box].sum() - clean.pixels.image[box].sum()) < 6 * noise


def test_epochs_that_disagree_are_left_out_with_the_reason(sky) -> None:
    epochs = epochs_of(sky, 4)
    wrong = sky.image(seed=70)
    w = wrong.wcs
    shifted = replace(wrong, wcs=Wcs(w.crval, (w.crpix[0] + 1.4, w.crpix[1]), w.cd, w.pv1, w.pv2))
    faint = replace(wrong, photocal=replace(wrong.photocal, zero_point=30.4))
    dead = MaskedImage(wrong.pixels.image, wrong.pixels.variance, np.full(wrong.shape, int(MaskPlane.BAD), np.int32))
    blind = CalibratedImage(dead, w, wrong.psf, wrong.photocal)
    far = replace(wrong, wcs=Wcs((200.0, -40.0), w.crpix, w.cd, w.pv1, w.pv2))
    bad = {"shifted": shifted, "faint": faint, "blind": blind, "far": far}
    epochs += [Epoch(name, 60010.0, lambda image=image: image) for name, image in bad.items()]
    reference = MakeReference().run(epochs, grid=grid_of())
    assert reference.metadata["epochs"] == ["e0", "e1", "e2", "e3"]
    reasons = {r["epoch"]: r["reason"] for r in reference.metadata["epochs_rejected"]}
    assert "pixels" in reasons["shifted"]
    assert "factor" in reasons["faint"]
    assert "usable" in reasons["blind"]
    assert "overlap" in reasons["far"]
    with pytest.raises(DataError, match="none of 1 epochs"):
        MakeReference().run([epochs[-1]], grid=grid_of())


def test_version_tells_inputs_apart_and_the_measured_psf_is_used(sky) -> None:
    epochs = epochs_of(sky, 3)
    one, again = (MakeReference().run(epochs, grid=grid_of()) for _ in range(2))
    assert one.metadata["version"] == again.metadata["version"]
    np.testing.assert_array_equal(one.pixels.image, again.pixels.image)
    fewer = MakeReference().run(epochs[:2], grid=grid_of())
    assert fewer.metadata["version"] != one.metadata["version"]
    measured = MakeReference().run(epochs, grid=grid_of(), measure_psf=lambda pixels, fwhm: epochs[0].load().psf)
    assert measured.metadata["psf_source"] == "measured"

    def too_few(pixels, fwhm):
        raise DataError("3 stars are too few")

    fallback = MakeReference().run(epochs, grid=grid_of(), measure_psf=too_few)
    assert "too few" in fallback.metadata["psf_source"]


def test_pixels_of_few_epochs_are_suspect(sky) -> None:
    reference = MakeReference().run(epochs_of(sky, 5), grid=grid_of())
    assert reference.coverage is not None
    few = (reference.coverage > 0) & (reference.coverage < 2)
    assert few.any()
    assert np.all(reference.pixels.mask[few] & int(MaskPlane.SUSPECT))
    none = reference.coverage == 0
    assert np.all(reference.pixels.mask[none] & int(MaskPlane.NO_DATA))


def quality(name: str, **changes) -> EpochQuality:
    good = {
        "mjd_tai": 60000.0, "fwhm_arcsec": 2.0, "limiting_mag": 20.5, "zero_point": 28.0, "exposure_s": 30.0,
        "astrometric_rms_arcsec": 0.04, "background": 300.0,
    }  # fmt: skip
    return EpochQuality(name, **(good | changes))


def test_epochs_are_chosen_by_depth_and_every_decision_has_its_reason() -> None:
    good = [quality(f"g{k}", limiting_mag=20.4 + 0.02 * k) for k in range(8)]
    bad = [
        quality("seeing", fwhm_arcsec=4.0),
        quality("clouds", zero_point=27.2),
        quality("moon", background=2000.0),
        quality("astrometry", astrometric_rms_arcsec=0.5),
        quality("shallow", limiting_mag=18.0),
        quality("unknown", limiting_mag=float("nan")),
    ]
    found = SelectEpochs(SelectEpochsConfig(max_epochs=5)).run(good + bad, pixel_scale_arcsec=1.0)
    assert found.is_enough
    assert found.used == ("g7", "g6", "g5", "g4", "g3")
    reasons = {d.name: d.reason for d in found.decisions}
    for name, word in (
        ("seeing", "seeing"), ("clouds", "clouds"), ("moon", "sky"), ("astrometry", "astrometric"),
        ("shallow", "depth"), ("unknown", "not known"), ("g0", "enough"), ("g7", "number 1 of 8"),
    ):  # fmt: skip
        assert word in reasons[name]
    assert [d.name for d in found.decisions] == [e.name for e in good + bad]


def test_too_few_good_epochs_make_no_reference() -> None:
    found = SelectEpochs().run([quality("a"), quality("b")], pixel_scale_arcsec=1.0)
    assert not found.is_enough
    assert found.used == ()
    assert "only 2 of the 5" in found.decisions[0].reason
    assert SelectEpochs().run([], pixel_scale_arcsec=1.0).used == ()


def test_coarse_pixels_are_judged_by_their_own_measure() -> None:
    coarse = {"fwhm_arcsec": 13.0, "astrometric_rms_arcsec": 0.7}
    epochs = [quality(f"g{k}", **coarse) for k in range(6)]
    assert len(SelectEpochs().run(epochs, pixel_scale_arcsec=5.2).used) == 6
    on_fine_pixels = SelectEpochs().run(epochs, pixel_scale_arcsec=0.5)
    assert on_fine_pixels.used == ()
    assert "seeing 13.00 arcsec is above" in on_fine_pixels.decisions[0].reason


def test_astrometric_scatter_is_judged_by_the_field_and_by_what_it_blurs() -> None:
    def is_used(rms: float, others: float, fwhm: float = 2.0) -> bool:
        epochs = [quality(f"g{k}", fwhm_arcsec=fwhm, astrometric_rms_arcsec=others) for k in range(6)]
        epochs.append(quality("it", fwhm_arcsec=fwhm, astrometric_rms_arcsec=rms))
        return "it" in SelectEpochs().run(epochs, pixel_scale_arcsec=1.0).used

    assert is_used(0.25, others=0.2)  # a poor catalog: all epochs scatter about it alike
    assert not is_used(0.25, others=0.04)  # this one alone does
    assert is_used(0.09, others=0.01)  # five times the others, but no harm to an image of 2 arcsec
    assert not is_used(0.35, others=0.35)  # blurs the co-add, whatever the others do
    assert is_used(0.35, others=0.35, fwhm=4.0)
