"""What the makers of a detector's electronics recover of effects that were put in, and what the corrections leave.

    python benchmarks/detector_response.py [--seed 1] [--quick]

One simulated detector of 1024 x 1024 pixels with two amplifiers, one read mirrored: non-linearity, crosstalk,
charge repulsion (moved step by step at the pixels' borders, not by the kernel that corrects it) and loss in transfer
are all on. Prints, from a ladder of flats and a few science exposures: measured against true values, then how the size
of stars grows with their brightness, and how fluxes depart from proportionality, before and after; last what the
corrections cost on a detector of 3072 x 3080 pixels.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.response.brighter_fatter import correct_brighter_fatter_in_place
from gueststar.algorithms.response.crosstalk import subtract_crosstalk_in_place
from gueststar.algorithms.response.linearity import correction_at, linearise_in_place, table_of
from gueststar.cameras.load import load_camera
from gueststar.model.calibration import Calibrations
from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import RawDetector
from gueststar.model.rights import Program
from gueststar.pipelines.calibration.bias import MakeBias
from gueststar.pipelines.calibration.brighter_fatter import MakeBrighterFatter
from gueststar.pipelines.calibration.charge_transfer import MakeChargeTransfer
from gueststar.pipelines.calibration.crosstalk import MakeCrosstalk
from gueststar.pipelines.calibration.flat import MakeFlat
from gueststar.pipelines.calibration.linearity import MakeLinearity
from gueststar.pipelines.calibration.photon_transfer import MakePhotonTransfer
from gueststar.pipelines.electronics import curves_of
from gueststar.pipelines.science.detrend import Detrend, DetrendConfig
from gueststar.simulation.charge import area_changes
from gueststar.simulation.detector import DetectorTruth, full_well, make_detector, response_in
from gueststar.simulation.exposure import collect_in_place
from gueststar.simulation.in_memory import read_in_memory
from gueststar.simulation.optics import make_optics
from gueststar.simulation.scenario import DetectorPlan, OpticsPlan

PLAN = DetectorPlan(
    nonlinearity=0.02, repulsion=2.5e-6, crosstalk=3e-4, crosstalk_scatter=0.4, transfer_inefficiency=3e-6,
    cosmic_rays_per_mpix_s=0.05,
)  # fmt: skip
SKY, SIGMA, SPACING = 300.0, 1.3, 32
"""Electrons; width of the stars, pixels; distance between them, pixels."""


@dataclass
class Bench:
    truth: DetectorTruth
    rng: np.random.Generator

    def expose(self, kind: str, light: NDArray[np.floating] | float, seconds: float, minute: float) -> RawDetector:
        info = ExposureInfo(
            "simcam", kind, 60_000.0 + minute / 1440.0, seconds, 20230225, Program.PUBLIC, physical_filter="sim_r",
            band="r",
        )  # fmt: skip
        electrons = np.asarray(light * response_in(self.truth, "sim_r", 0), np.float32)
        if kind == "bias":
            electrons = electrons * np.float32(0.0) + self.truth.fixed_charge
        else:
            collect_in_place(electrons, self.truth, self.rng, seconds=seconds)
        return read_in_memory(self.truth, electrons, info, self.rng)

    def ladder(self, n_levels: int) -> list[RawDetector]:
        """Return pairs of flats from 4 to 93 per cent of the full well, mixed in time, from a lamp steady to 0.05 %."""
        full = float(np.median(full_well(self.truth))) / PLAN.full_well_margin
        times = self.rng.permutation(np.geomspace(0.8, 18.6, n_levels)).round(2)
        return [
            self.expose("flat", 0.05 * full * t * (1.0 + 5e-4 * self.rng.normal()), t, minute=i + 0.4 * k)
            for i, t in enumerate(times)
            for k in (0, 1)
        ]

    def star_field(self, flux: float, minute: float) -> tuple[RawDetector, NDArray[np.float64]]:
        """Return an exposure of equal stars on a lattice of random phases, and their places ``[n, (x, y)]``."""
        n = self.truth.detector.shape[0]
        centre = np.arange(24, n - 24, SPACING)
        places = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2) + self.rng.uniform(
            -0.5, 0.5, (centre.size**2, 2)
        )
        return self.expose("science", _stars(places, np.full(len(places), flux), n), 30.0, minute), places


def _stars(places: NDArray[np.float64], flux: NDArray[np.float64], size: int, reach: int = 14) -> NDArray[np.float64]:
    light = np.full((size, size), SKY)
    for (x0, y0), f in zip(places, flux, strict=True):
        rows = slice(max(int(y0) - reach, 0), int(y0) + reach + 1)
        columns = slice(max(int(x0) - reach, 0), int(x0) + reach + 1)
        y, x = np.mgrid[rows, columns]
        inside = y[:, 0] < size, x[0] < size
        y, x = y[inside[0]][:, inside[1]], x[inside[0]][:, inside[1]]
        light[y, x] += f * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    return light


def measure(image: NDArray[np.float32], mask: NDArray[np.int32], places: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median squared size (within a Gaussian of 2 pixels) and the median flux of clean stars."""
    sizes, fluxes = [], []
    for x0, y0 in places:
        i, j = round(x0), round(y0)
        part = (slice(j - 11, j + 12), slice(i - 11, i + 12))
        if mask[part].any():
            continue
        stamp = image[part].astype(float)
        rim = np.concatenate([stamp[0], stamp[-1], stamp[1:-1, 0], stamp[1:-1, -1]])
        stamp -= np.mean(rim)
        y, x = np.mgrid[-11:12, -11:12]
        u, v = x - (x0 - i), y - (y0 - j)
        weight = np.exp(-(u**2 + v**2) / 8.0) * stamp
        sizes.append(np.sum(weight * (u**2 + v**2)) / np.sum(weight))
        fluxes.append(stamp[np.hypot(u, v) < 8].sum())
    return float(np.median(sizes)), float(np.median(fluxes))


def _row(name: str, measured: float, error: float, truth: float, scale: float = 1.0) -> None:
    pull = (measured - truth) / error if error else float("nan")
    print(
        f"  {name:34s} {measured * scale:10.4f} +- {error * scale:7.4f}  true {truth * scale:10.4f}  pull {pull:+5.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer flats and star fields")
    options = parser.parse_args()
    camera = load_camera("simcam")
    optics = make_optics(camera, OpticsPlan(), seed=options.seed)
    truth = make_detector(camera, optics, camera.detectors[0], PLAN, seed=options.seed)
    bench = Bench(truth, np.random.default_rng(options.seed))
    known = recovered(bench, n_levels=8 if options.quick else 12)
    left_over(bench, known, fluxes=(2e4, 3e5, 7e5) if options.quick else (2e4, 6e4, 1.5e5, 3e5, 5e5, 7e5))
    cost(known)


def recovered(bench: Bench, *, n_levels: int) -> Calibrations:
    """Make all products and print them against the truth."""
    truth, detector = bench.truth, bench.truth.detector
    bias = MakeBias().run([bench.expose("bias", 0.0, 0.0, -60.0 + i) for i in range(5)], detector)
    flats = bench.ladder(n_levels)
    infos = [flat.info for flat in flats]
    seconds = {}

    def timed(name, make):  # type: ignore[no-untyped-def]
        start = time.process_time()
        made = make()
        seconds[name] = time.process_time() - start
        return made

    timed("compile", lambda: MakePhotonTransfer().run(flats, infos, detector, Calibrations(bias=bias)))
    linearity = timed("linearity", lambda: MakeLinearity().run(flats, infos, detector, Calibrations(bias=bias)))
    known = Calibrations(bias=bias, linearity=linearity)
    transfer = timed("photon_transfer", lambda: MakePhotonTransfer().run(flats, infos, detector, known))
    kernel = timed("brighter_fatter", lambda: MakeBrighterFatter().run(transfer))
    charge = timed("charge_transfer", lambda: MakeChargeTransfer().run(flats, infos, detector, known))
    raws = []
    for i in range(5):
        places = bench.rng.uniform(10, detector.shape[0] - 10, (120, 2))
        light = _stars(places, 10 ** bench.rng.uniform(4.0, 6.3, 120), detector.shape[0])
        raws.append(bench.expose("science", light, 30.0, 500.0 + i))
    crosstalk = timed("crosstalk", lambda: MakeCrosstalk().run([lambda raw=raw: raw for raw in raws], detector))
    flat = timed(
        "flat", lambda: MakeFlat().run(flats, detector, bias=bias, known=replace(known, photon_transfer=transfer))
    )
    print(f"{len(flats)} flats of {n_levels} exposure times, {len(raws)} science exposures, 1024 x 1024 pixels")
    rows = transfer.tables["amplifiers"]
    for i, amplifier in enumerate(detector.amplifiers):
        name, curve = amplifier.name, curves_of(linearity)[amplifier.name]
        bend = truth.electronics.nonlinearity[name] / truth.electronics.full_scale[name]
        level = np.geomspace(0.01, 1.0, 200) * curve.highest_level
        light = (1.0 - np.sqrt(1.0 - 4.0 * bend * level)) / (2.0 * bend)
        ratio = (level + correction_at(curve, level)) / light
        # The curve leaves the scale of light to the gain: compare with the gain on its scale.
        scale = float(np.median(ratio))
        _row(f"gain {name} (e-/ADU)", rows["gain"][i] * scale, rows["gain_error"][i], amplifier.gain)
        _row(f"read noise {name} (e-)", rows["read_noise"][i], 0.05 * amplifier.read_noise, amplifier.read_noise)
        print(
            f"  non-linearity {name}: {light[-1] / level[-1] - 1.0:.2%} of the counts at {level[-1]:.0f} ADU before, "
            f"{np.ptp(ratio) / 2 / scale:.3%} after (error given: {curve.largest_error:.3%})"
        )
    change, error = kernel.column("area_change", "coefficient"), kernel.column("area_change", "error")
    true = area_changes(PLAN.repulsion, 2)
    for lag in ((0, 0), (0, 1), (1, 0), (1, 1)):
        _row(f"area change, lag (y, x) {lag}, 1e-6/e-", change[lag], error[lag], true[lag], 1e6)
    for name, value, sigma in zip(
        *(charge.tables["amplifiers"][c] for c in ("amplifier", "inefficiency", "error")), strict=True
    ):
        _row(f"lost in transfer {name}, 1e-6", value, sigma, PLAN.transfer_inefficiency, 1e6)
    table = crosstalk.tables["coefficients"]
    for target, source, value, sigma in zip(
        *(table[c] for c in ("target", "source", "coefficient", "error")), strict=True
    ):
        _row(f"crosstalk {source} into {target}, 1e-4", value, sigma, truth.electronics.crosstalk[target, source], 1e4)
    print("  CPU seconds: " + ", ".join(f"{n} {s:.2f}" for n, s in seconds.items() if n != "compile"))
    return Calibrations(
        bias=bias, linearity=linearity, photon_transfer=transfer, brighter_fatter=kernel, charge_transfer=charge,
        crosstalk=crosstalk, flat=flat,
    )  # fmt: skip


def left_over(bench: Bench, known: Calibrations, *, fluxes: tuple[float, ...]) -> None:
    """Print sizes and fluxes of stars against their brightness, before and after."""
    detrend = Detrend(DetrendConfig(cosmic_rays=None, trails=None))
    print("stars: electrons, peak; then squared size and flux per true electron, relative to the faintest")
    cases = {
        "nothing corrected": Calibrations(bias=known.bias, flat=known.flat),
        "linearity only": Calibrations(bias=known.bias, linearity=known.linearity, flat=known.flat),
        "all corrected": known,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for i, flux in enumerate(fluxes):
        raw, places = bench.star_field(flux, 900.0 + i)
        for name, calibrations in cases.items():
            pixels = detrend.run(raw, calibrations).pixels
            # Deferred charge marks trails SUSPECT; here all stars are wanted.
            unusable = pixels.mask & ~512
            found[name].append(measure(pixels.image, unusable, places))
    for i, flux in enumerate(fluxes):
        peak = flux / (2 * np.pi * SIGMA**2)
        line = f"  {flux:8.0f} {peak:7.0f}"
        for name, values in found.items():
            size, light = values[i][0] / values[0][0] - 1.0, values[i][1] / flux / (values[0][1] / fluxes[0]) - 1.0
            line += f" | {name}: size {size:+.2%} flux {light:+.2%}"
        print(line)
    for name, values in found.items():
        sizes = np.array([size for size, _ in values])
        slope = np.polyfit(np.array(fluxes) / (2 * np.pi * SIGMA**2) / 1e5, sizes / sizes[0], 1)[0]
        print(f"  {name}: squared size grows by {slope:+.2%} per 1e5 electrons in the peak")


def cost(known: Calibrations) -> None:
    """Print what the corrections cost on a detector of 3072 x 3080 pixels with 300 bright stars."""
    rng = np.random.default_rng(0)
    image = rng.normal(1_000.0, 32.0, (3080, 3072)).astype(np.float32)
    places = rng.uniform(30, 3040, (300, 2))
    image += (_stars(places, 10 ** rng.uniform(4, 6, 300), 3080)[:, :3072] - SKY).astype(np.float32)
    assert known.brighter_fatter is not None
    assert known.linearity is not None
    kernel = known.brighter_fatter.column("kernel", "potential")
    table = table_of(next(iter(curves_of(known.linearity).values())))
    assert table is not None
    steps = {
        "linearity": lambda: linearise_in_place(image.copy(), table),
        "crosstalk, each source": lambda: subtract_crosstalk_in_place(image.copy(), image, 1e-4, flip_x=True),
        "brighter-fatter": lambda: correct_brighter_fatter_in_place(image.copy(), kernel),
    }
    print("CPU seconds for 3072 x 3080 pixels: ", end="")
    told = []
    for name, step in steps.items():
        step()
        start = time.process_time()
        step()
        told.append(f"{name} {time.process_time() - start:.3f}")
    print(", ".join(told))


if __name__ == "__main__":
    main()
