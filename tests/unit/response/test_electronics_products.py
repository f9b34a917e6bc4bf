"""Products of the electronics from simulated exposures, and what they do to a science image."""

import dataclasses

import numpy as np
import pytest

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError, MissingInput
from gueststar.formats.calibration_table import read_calibration_table, write_calibration_table
from gueststar.model.calibration import NO_CALIBRATIONS, Calibrations
from gueststar.pipelines.calibration.bias import MakeBias
from gueststar.pipelines.calibration.brighter_fatter import MakeBrighterFatter
from gueststar.pipelines.calibration.charge_transfer import MakeChargeTransfer
from gueststar.pipelines.calibration.crosstalk import MakeCrosstalk
from gueststar.pipelines.calibration.linearity import MakeLinearity
from gueststar.pipelines.calibration.photon_transfer import MakePhotonTransfer
from gueststar.pipelines.science.detrend import Detrend, DetrendConfig

PLAIN = Detrend(DetrendConfig(cosmic_rays=None, trails=None))


def infos(raws):
    return [raw.info for raw in raws]


def stars(positions, flux, size, sky=300.0):
    y, x = np.mgrid[:size, :size]
    light = np.full((size, size), sky)
    for x0, y0 in positions:
        light += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    return light


def aperture(image, x, y, sky, radius=9):
    return float(np.sum(image[y - radius : y + radius + 1, x - radius : x + radius + 1] - sky, dtype=np.float64))


def test_linear_counts_and_gains_come_from_one_ladder_and_survive_the_file(bench_of, tmp_path):
    bench = bench_of(nonlinearity=0.03)
    flats = bench.ladder()
    linearity = MakeLinearity().run(flats, infos(flats), bench.detector, NO_CALIBRATIONS)
    write_calibration_table(tmp_path / "linearity.fits", linearity)
    known = Calibrations(linearity=read_calibration_table(tmp_path / "linearity.fits"))
    curve = MakePhotonTransfer().run(flats, infos(flats), bench.detector, known)
    for amplifier, gain in zip(bench.detector.amplifiers, curve.column("amplifiers", "gain"), strict=True):
        assert gain == pytest.approx(amplifier.gain, rel=0.02)
    levels = []
    for seconds in (2.0, 15.0):
        image = PLAIN.run(bench.expose("science", 6_000.0 * seconds, seconds, minute=600), known).pixels.image
        levels.append(np.median(image) / seconds)
    assert levels[1] / levels[0] == pytest.approx(1.0, abs=4e-3)
    bent = PLAIN.run(bench.expose("science", 6_000.0 * 15, 15.0, minute=600)).pixels.image
    assert np.median(bent) / 15.0 < 0.985 * levels[0]


def test_ordinary_flats_are_no_ladder_and_are_not_even_read(bench_of):
    bench = bench_of()
    flats = [bench.flat(8.0, minute=i) for i in range(2)]

    def never():
        raise AssertionError("a frame was read")

    for task in (MakeLinearity(), MakePhotonTransfer()):
        with pytest.raises(MissingInput, match="no ladder"):
            task.run([never, never], infos(flats), bench.detector, NO_CALIBRATIONS)


def test_a_curve_that_changed_too_much_is_refused(bench_of):
    bench, other = bench_of(nonlinearity=0.01), bench_of(nonlinearity=0.06)
    flats = bench.ladder()
    first = MakeLinearity().run(flats, infos(flats), bench.detector, NO_CALIBRATIONS)
    again = MakeLinearity().run(flats, infos(flats), bench.detector, NO_CALIBRATIONS, previous=first)
    assert max(again.metadata["comparison"].values()) < 1e-6
    changed = other.ladder()
    with pytest.raises(DataError, match="differs from the previous curve"):
        MakeLinearity().run(changed, infos(changed), other.detector, NO_CALIBRATIONS, previous=first)


def test_stars_are_no_longer_wider_the_brighter_they_are(bench_of):
    bench = bench_of(repulsion=8e-6)
    flats = bench.ladder(n=8)
    curve = MakePhotonTransfer().run(flats, infos(flats), bench.detector, NO_CALIBRATIONS)
    kernel = MakeBrighterFatter().run(curve)
    assert kernel.metadata["area_change"] == pytest.approx(-8e-6, rel=0.25)
    places = [(x, y) for x in range(30, 300, 32) for y in range(30, 300, 32) if abs(x - 160) > 16]
    sizes = {}
    for name, known in (("before", NO_CALIBRATIONS), ("after", Calibrations(brighter_fatter=kernel))):
        for flux in (2e4, 6e5):
            light = stars(places, flux, 320)
            image = PLAIN.run(bench.expose("science", light, 30.0, minute=700), known).pixels.image
            sizes[name, flux] = np.median([_width(image, x, y) for x, y in places])
    before, after = (sizes[name, 6e5] / sizes[name, 2e4] - 1.0 for name in ("before", "after"))
    assert before > 0.02
    assert abs(after) < 0.3 * before


def _width(image, x, y):
    stamp = image[y - 10 : y + 11, x - 10 : x + 11].astype(float)
    stamp = stamp - np.median(np.concatenate([stamp[0], stamp[-1]]))
    v, u = np.mgrid[-10:11, -10:11]
    light = stamp * np.exp(-(u**2 + v**2) / 8.0)
    return (light * (u**2 + v**2)).sum() / light.sum()


def test_crosstalk_is_measured_in_science_exposures_and_removed(bench_of):
    bench = bench_of(crosstalk=1.5e-3, crosstalk_scatter=0.2, bias_structure=0.0)
    raws = []
    for i in range(4):
        places = bench.rng.uniform(10, 310, (25, 2))
        raws.append(bench.expose("science", stars(places, 1e6, 320), 30.0, minute=800 + i))
    product = MakeCrosstalk().run([lambda raw=raw: raw for raw in raws], bench.detector)
    rows = product.tables["coefficients"]
    for target, source, value, error in zip(
        rows["target"], rows["source"], rows["coefficient"], rows["error"], strict=True
    ):
        assert value == pytest.approx(bench.truth.electronics.crosstalk[target, source], abs=4 * error)
        assert error < 5e-5
    light = stars([(60, 100)], 1.6e6, 320)
    ghost = (slice(95, 106), slice(320 - 1 - 65, 320 - 1 - 54))  # the other amplifier is read from its far side
    raw = bench.expose("science", light, 30.0, minute=900)
    images = [PLAIN.run(raw, known).pixels.image for known in (Calibrations(), Calibrations(crosstalk=product))]
    seen = [image[ghost].mean() - np.median(image[75:126, 235:285]) for image in images]
    assert seen[0] > 7.0
    assert abs(seen[1]) < 5.0  # three sigma


def test_loss_in_transfer_is_measured_and_its_trails_are_marked(bench_of):
    bench = bench_of(transfer_inefficiency=2e-5)
    flats = [bench.flat(t, minute=i) for i, t in enumerate((6.0, 9.0, 12.0))]
    product = MakeChargeTransfer().run(flats, infos(flats), bench.detector)
    assert product.column("amplifiers", "inefficiency") == pytest.approx([2e-5, 2e-5], rel=0.05)
    light = stars([(60, 200), (260, 200)], 5e5, 320)  # whose own light hides what trails it
    light[100, [120, 200]] += 1e5
    raw = bench.expose("science", light, 30.0, minute=900)
    marked = PLAIN.run(raw, Calibrations(charge_transfer=product))
    is_suspect = (marked.pixels.mask & int(MaskPlane.SUSPECT)) != 0
    assert marked.metrics["n_deferred_charge"] == np.count_nonzero(is_suspect) > 0
    y, x = np.nonzero(is_suspect)
    assert set(y) == {100}
    assert np.all(x[x < 160] > 118)  # away from each amplifier's output
    assert np.all(x[x >= 160] < 202)


def test_perfect_transfer_needs_no_product(bench_of):
    bench = bench_of()
    flats = [bench.flat(9.0, minute=i) for i in range(2)]
    with pytest.raises(MissingInput, match="none is lost"):
        MakeChargeTransfer().run(flats, infos(flats), bench.detector)


def test_crosstalk_from_an_amplifier_that_was_not_read_is_an_error(bench_of):
    bench = bench_of(crosstalk=1e-3)
    raws = [
        bench.expose("science", stars(bench.rng.uniform(10, 310, (25, 2)), 1e6, 320), 30.0, minute=i) for i in range(3)
    ]
    product = MakeCrosstalk().run([lambda raw=raw: raw for raw in raws], bench.detector)
    rows = dict(product.tables["coefficients"])
    rows["source_detector"] = np.full(len(rows["target"]), 7)
    elsewhere = dataclasses.replace(product, tables={"coefficients": rows})
    with pytest.raises(DataError, match="not read"):
        PLAIN.run(raws[0], Calibrations(crosstalk=elsewhere))


def test_crosstalk_reaches_across_detectors_that_share_electronics(bench_of):
    ours, theirs = bench_of(seed=3, bias_structure=0.0), bench_of(seed=4)
    raws = []
    for i in range(4):
        bright = theirs.expose("science", stars(theirs.rng.uniform(10, 310, (25, 2)), 1e6, 320), 30.0, minute=i)
        other = dataclasses.replace(bright, detector=bright.detector.model_copy(update={"id": 9}))
        own = ours.expose("science", stars([], 0.0, 320), 30.0, minute=i)
        source, target = other.amplifiers[1], own.amplifiers[0]
        seen = target.data + np.float32(1e-3) * (source.data - np.median(source.overscans[0]))
        parts = (dataclasses.replace(target, data=seen), own.amplifiers[1])
        raws.append(dataclasses.replace(own, amplifiers=parts, others=(other,)))
    product = MakeCrosstalk().run([lambda raw=raw: raw for raw in raws], ours.detector)
    rows = product.tables["coefficients"]
    found = {
        (t, d, s): c
        for t, d, s, c in zip(*(rows[n] for n in ("target", "source_detector", "source", "coefficient")), strict=True)
    }
    assert {pair for pair, value in found.items() if value} == {("A", 9, "B")}
    assert found["A", 9, "B"] == pytest.approx(1e-3, rel=0.05)
    clean = PLAIN.run(raws[0], Calibrations(crosstalk=product)).pixels.image
    before = PLAIN.run(raws[0]).pixels.image
    is_lit = raws[0].others[0].amplifiers[1].data > 20_000
    assert before[:, :160][is_lit].mean() - np.median(before[:, :160]) > 20.0
    assert abs(clean[:, :160][is_lit].mean() - np.median(clean[:, :160])) < 5.0


def test_an_amplifier_without_overscan_is_straightened_above_the_level_of_its_bias(bench_of):
    bench = bench_of(nonlinearity=0.04, row_drift=0.0, bias_jump_probability=0.0)
    flats = bench.ladder(n=7)
    bias = MakeBias().run([bench.expose("bias", 0.0, 0.0, minute=i) for i in range(3)], bench.detector)
    curve = MakeLinearity().run(flats, infos(flats), bench.detector, Calibrations(bias=bias))
    raws = [without_overscan(raw) for raw in [*(bench.expose("bias", 0.0, 0.0, minute=i) for i in range(3)), flats[0]]]
    pedestal = MakeBias().run(raws[:3], raws[0].detector)
    science = dataclasses.replace(raws[3], info=dataclasses.replace(raws[3].info, observation_type="science"))
    plain = dataclasses.replace(flats[0], info=science.info)
    with_scan = PLAIN.run(plain, Calibrations(bias=bias, linearity=curve)).pixels.image
    without = PLAIN.run(science, Calibrations(bias=pedestal, linearity=curve)).pixels.image
    bent = PLAIN.run(science, Calibrations(bias=pedestal)).pixels.image
    assert np.median(without) == pytest.approx(np.median(with_scan), rel=1e-3)
    assert abs(np.median(without) - np.median(bent)) > 5e-3 * np.median(bent)


def without_overscan(raw):
    """Return the same pixels of a detector whose amplifiers have no overscan."""
    amplifiers = tuple(part.amplifier.model_copy(update={"overscans": ()}) for part in raw.amplifiers)
    parts = tuple(
        dataclasses.replace(part, amplifier=amplifier, overscans=())
        for part, amplifier in zip(raw.amplifiers, amplifiers, strict=True)
    )
    return dataclasses.replace(
        raw, detector=raw.detector.model_copy(update={"amplifiers": amplifiers}), amplifiers=parts
    )
