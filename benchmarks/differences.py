"""What changed between a science image and its reference, found by us and by other subtractions, held against truth.

Run: python benchmarks/differences.py [--epochs N] [--ours] [--keep FOLDER] [hl] [gp]
The data lie in ``$GUESTSTAR_SHARED/data`` or ``../shared/data`` (bench_hl, bench_gp: raw exposures, masters, a SWarp
co-add as reference, truth). Exposures are calibrated as `gueststar process` does; the reference gets a variance from
its own sky, a measured PSF and a catalog, and where it has less than half of the epochs it is marked as our own co-adds
are; then the package's own tasks warp, subtract, detect and vet. CPU is that of a second run. Peers
(`_subtraction_peers`) get the same calibrated image and the same warped reference, so that only the subtraction and
the search are compared. ``--keep`` keeps calibrated images, so that a second run starts at the difference.

What is counted: a transient of the truth is found if a detection (positive) lies within 2 pixels; those hit by a true
cosmic ray or satellite, off the reference or on bad columns are left out. *Ideal* is what noise alone lets an unbiased
search find: the mean probability that truth plus noise reaches 5 sigma. False is a detection, of either sign, farther
than 3 pixels from every transient, asteroid and variable of the truth and from its streaks; detections on streaks are
told apart. Before the classifier no flag is asked; a detection is *clean* when none of the flags that forbid alerts is
set. "At 98 %" is the threshold that 98 % of the real detections of that image pass. *With earlier images* is the same
of the reliability that knows the fluxes at the detections' places on the differences of the epochs before, at most so
many as packets ask (`rbhist`; the first epoch has none, so nothing changes there; a survey measures only what its
forced fluxes lack and where the score leaves a doubt). Completeness by class is that of detections, at the lowest
threshold with a purity of 95 %; variables and movers whose change is below 7 sigma are left out. *Noise alone* is the
number of peaks, of either sign, that a Gaussian field with the correlation of the score has above 5 sigma (Adler 1981:
area x curvature x (2 pi)^-3/2 u exp(-u^2/2)), and above the significance that 98 % of the real detections exceed: what
no classifier can tell from sources of that significance. Pulls are (flux - truth) / error of transients above 8 sigma,
the scale of fluxes taken from the bright ones, at the end those of all exposures together. The score's sigma is taken
away from all objects of the truth, the brighter the farther (quartiles), over the image and in 8 x 8 boxes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.stats import norm

from _subtraction_peers import PeerCandidates, run_peer
from catalogs import CAMERA, EXPECTED_FWHM, GAIN, Floats, data_folder, spread, tree
from gueststar.algorithms.vetting.earlier import reliability_with_earlier
from gueststar.cameras.load import load_camera
from gueststar.cameras.translate import translate
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.formats.calibrated_image import write_calibrated_image
from gueststar.formats.parquet import write_catalog
from gueststar.formats.raw import read_headers
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.alerts.earlier import EarlierImagesConfig
from gueststar.pipelines.difference.forced import MeasureOnDifference
from gueststar.pipelines.engine.outcome import StepTimer
from gueststar.pipelines.night.difference import DifferenceProducts, DifferenceWork, make_difference
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources
from gueststar.pipelines.science.psf import MeasurePsf
from single_exposure import prepare, run_ours, works_of

Bools = NDArray[np.bool_]
STEPS = ("warp", "subtract", "detect", "vet")
SHIPPED_THRESHOLD = 0.3
COSMIC_RAY_TRUTH = 1
MATCH_PIXELS, NEAR_PIXELS, STREAK_PIXELS = 2.0, 3.0, 8.0

QUOTED = {
    "hl": "quoted, 5.1 elsewhere: epoch 0 170 of 195 found, 430 false (63 after cuts); worst 149, 332 (228)",
    "gp": "quoted, 5.1 elsewhere: epoch 0 158 of 193 found, 5054 false (734 after cuts, 152 found)",
}
"""What is known of hotpants where it is not installed."""

AIMS = {
    "CPU to vetted candidates, s": {"hl": "2", "gp": "4"},
    "found 17-20.5": {"hl": ">0.99"},
    "found 20.5-21": {"hl": ">0.75"},
    "found 17-20": {"gp": ">0.95"},
    "false": {"hl": "10", "gp": "120"},
    "false at 98 %": {"hl": "1", "gp": "10"},
    "false at 98 %, with earlier images": {"hl": "1", "gp": "10"},
    "transients kept at 95 % purity": {"hl": ">0.97", "gp": ">0.92"},
    "variables kept at 95 % purity": {"hl": ">0.95", "gp": ">0.92"},
    "movers kept at 95 % purity": {"hl": ">0.97", "gp": ">0.92"},
    "pull of flux, hostless": {"hl": "0.95-1.10"},
    "pull of flux, in hosts": {"hl": "0.90-1.15"},
    "score sigma": {"hl": "0.98-1.02", "gp": "0.98-1.02"},
    "score sigma, crowded boxes": {"hl": "0.98-1.02", "gp": "0.98-1.02"},
}


@dataclass(frozen=True)
class Changes:
    """What the truth says has changed since the reference, pixels from 0 and electrons."""

    x: Floats
    y: Floats
    flux: Floats
    """Change of flux; negative where fainter than in the reference."""
    magnitude: Floats
    """Of the transient or asteroid itself; of a variable's change."""
    kind: NDArray[np.str_]
    """transient, mover or variable."""
    is_in_host: Bools
    streaks: Floats
    """``[n, 4]``: x1, y1, x2, y2; satellites too."""
    satellites: Floats


def read_changes(data: Path, epoch: int) -> Changes:
    with fits.open(data / f"sci{epoch:02d}_truth.fits") as hdus:
        events, sources = hdus["EVENTS"].data, hdus["SOURCES"].data
    zero_point = float(np.median(sources["m_inst"] + 2.5 * np.log10(sources["flux"])))
    variables = fits.getdata(data / "truth_variables.fits")
    row = {int(number): k for k, number in enumerate(sources["id"])}
    seen = [(row[int(v["id"])], float(v["r_inst"])) for v in variables if int(v["id"]) in row]
    stars = sources[[k for k, _ in seen]]
    change = stars["flux"] - 10.0 ** (0.4 * (zero_point - np.array([m for _, m in seen])))
    flux = np.concatenate([events["flux"], change]) * GAIN
    kind = [{"trans": "transient", "aster": "mover"}[str(k).strip()] for k in events["kind"]] + ["variable"] * len(seen)
    streaks = fits.getdata(data / "truth_streaks.fits")
    ends = np.column_stack([streaks[name] for name in ("x1", "y1", "x2", "y2")]) - 1.0
    now = streaks["epoch"] == epoch
    return Changes(
        np.concatenate([events["x"], stars["x"]]) - 1.0, np.concatenate([events["y"], stars["y"]]) - 1.0,
        flux, zero_point - 2.5 * np.log10(np.abs(flux / GAIN)), np.array(kind),
        np.concatenate([events["on_host"] > 0, np.zeros(len(seen), bool)]),
        ends[now], ends[now & (streaks["kind"] == 1)],
    )  # fmt: skip


def enter_reference(data: Path, folder: Path) -> tuple[Path, Path]:
    """Write the co-add as a reference image with variance, mask and PSF, and its catalog; return both paths."""
    image_path, catalog_path = folder / "reference.fits", folder / "reference_source.parquet"
    if image_path.exists() and catalog_path.exists():
        return image_path, catalog_path
    with fits.open(data / "ref_coadd.fits.fz") as hdus:
        values, header = hdus[1].data.astype(np.float32), hdus[1].header
    weight = fits.getdata(data / "ref_weight.fits.fz").astype(np.float32)
    photons = float(header["GAIN"]) / GAIN
    typical = float(np.median(weight[weight > 0]))
    sky = values[weight >= typical] * GAIN
    sky = sky[np.abs(sky - np.median(sky)) < 5 * spread(sky)]
    relative = np.maximum(weight / typical, 0.01)
    variance = spread(sky) ** 2 / relative + np.maximum(values * GAIN, 0.0) / (photons * relative)
    mask = np.where(weight > 0, 0, int(MaskPlane.NO_DATA))
    mask |= np.where(weight < 0.5 * weight.max(), int(MaskPlane.SUSPECT), 0)  # few epochs, as our own co-adds mark them
    mask |= np.where(values > 0.95 * header["SATURATE"], int(MaskPlane.SATURATED), 0)
    pixels = MaskedImage(values * np.float32(GAIN), variance.astype(np.float32), mask.astype(np.int32))
    psf = MeasurePsf().run(pixels, expected_fwhm=EXPECTED_FWHM).psf
    photocal = PhotoCal(float(header["MAGZP"]) + 2.5 * np.log10(GAIN), 0.01, band="r")
    facts = {"reference_id": 1, "mjd_first": 60000.0, "mjd_last": 60100.0, "epochs": []}
    reference = CalibratedImage(pixels, Wcs.from_header(header), psf, photocal, facts)
    found = MakeCatalogs().run(pixels, psf).psf
    write_catalog(catalog_path, calibrate_sources(found, reference.wcs, photocal, visit=1, detector=0))
    write_calibrated_image(image_path, reference)
    return image_path, catalog_path


def science_images(data: Path, folder: Path, n_epochs: int) -> list[Path]:
    """Return the calibrated images, made by `gueststar`'s own science step unless they are there."""
    known = folder / "images.json"
    if known.exists():
        return [Path(path) for path in json.loads(known.read_text())][:n_epochs]
    repo, masters = prepare(data, folder)
    paths = []
    for outcome in run_ours(works_of(repo, masters, n_epochs)):
        paths.append(str(next(s.path for s in outcome.result.staged if s.product == "science_image")))
    known.write_text(json.dumps(paths))
    return [Path(path) for path in paths]


def difference_works(data: Path, folder: Path, n_epochs: int, settings: PipelineSettings) -> list[DifferenceWork]:
    """Return the units of work, calibrated images and reference made first."""
    reference, sources = enter_reference(data, folder)
    camera = load_camera(CAMERA)
    infos = [translate(camera, read_headers(path)).info for path in sorted(data.glob("sci*_raw.fits.fz"))[:n_epochs]]
    infos.sort(key=lambda info: info.mjd_tai)
    images = science_images(data, folder, n_epochs)
    return [
        DifferenceWork(0, folder / "repo", info, 0, path, reference, sources, settings)
        for info, path in zip(infos, images, strict=True)
    ]


def run_twice(work: DifferenceWork) -> tuple[DifferenceProducts, CalibratedImage, dict[str, float], bool]:
    """Return what a second run makes, its CPU seconds by step, and whether the first made the same to the bit."""
    context = WorkerContext.of(work.repo_root)
    science = context.image(work.science)
    first = make_difference(work, context, science, StepTimer())
    timer = StepTimer()
    second = make_difference(work, context, science, timer)
    return second, science, timer.seconds, _same(first.dia_sources, second.dia_sources)


def _same(a: Catalog, b: Catalog) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


class Judge:
    """Holds detections of one image against the truth."""

    def __init__(self, data: Path, epoch: int, science: CalibratedImage) -> None:
        self.changes = read_changes(data, epoch)
        self.science = science
        with fits.open(data / f"sci{epoch:02d}_truth.fits") as hdus:
            sources, self.is_ray = hdus["SOURCES"].data, (hdus["TMASK"].data & COSMIC_RAY_TRUTH) != 0
            self.objects = sources["x"] - 1.0, sources["y"] - 1.0, sources["m_inst"].astype(float)

    def usable(self, made: DifferenceProducts) -> Bools:
        """Return which changes can be seen: on both images, on good columns, hit by neither ray nor satellite."""
        ny, nx = self.science.shape
        c = self.changes
        inside = (c.x > 4) & (c.y > 4) & (c.x < nx - 5) & (c.y < ny - 5)
        x, y = np.clip(np.rint(c.x).astype(int), 0, nx - 1), np.clip(np.rint(c.y).astype(int), 0, ny - 1)
        covered = (made.warped.pixels.mask[y, x] & int(MaskPlane.NO_DATA)) == 0
        good = (self.science.pixels.mask[y, x] & int(MaskPlane.BAD | MaskPlane.NO_DATA)) == 0
        struck = binary_dilation(self.is_ray, iterations=2)[y, x]
        return np.asarray(inside & covered & good & ~struck & ~self._is_on(c.satellites, c.x, c.y))

    def noise(self, made: DifferenceProducts) -> Floats:
        """Return the error of a point source's flux at the changes, as the difference tells it, electrons."""
        difference, c = made.result.difference, self.changes
        ny, nx = difference.shape
        x, y = np.clip(np.rint(c.x).astype(int), 0, nx - 1), np.clip(np.rint(c.y).astype(int), 0, ny - 1)
        power = np.sum(difference.psf.stamps(x=c.x, y=c.y).astype(float) ** 2, axis=(1, 2))
        return np.asarray(np.sqrt(difference.pixels.variance[y, x] / power))

    def is_near(self, x: Floats, y: Floats) -> tuple[Bools, Bools]:
        """Return which places are near a change, and which are near a streak but no change."""
        c = self.changes
        near = tree(c.x, c.y).query(np.column_stack([x, y]))[0] < NEAR_PIXELS
        return near, self._is_on(c.streaks, x, y) & ~near

    def _is_on(self, streaks: Floats, x: Floats, y: Floats) -> Bools:
        on_streak = np.zeros(x.size, bool)
        for x1, y1, x2, y2 in streaks:
            length = max(np.hypot(x2 - x1, y2 - y1), 1e-6)
            ux, uy = (x2 - x1) / length, (y2 - y1) / length
            along, across = (x - x1) * ux + (y - y1) * uy, (y - y1) * ux - (x - x1) * uy
            on_streak |= (np.abs(across) < STREAK_PIXELS) & (along > -STREAK_PIXELS) & (along < length + STREAK_PIXELS)
        return on_streak

    def found(self, x: Floats, y: Floats) -> Bools:
        """Return which changes have a detection."""
        c = self.changes
        if x.size == 0:
            return np.zeros(c.x.size, bool)
        return np.asarray(tree(x, y).query(np.column_stack([c.x, c.y]))[0] < MATCH_PIXELS)

    def counts(self, made: DifferenceProducts, is_found: Bools) -> dict[str, float]:
        c, figures = self.changes, {}
        transient = (c.kind == "transient") & self.usable(made)
        chance = norm.cdf(c.flux / self.noise(made) - 5.0)
        for low, high in ((17.0, 20.5), (20.5, 21.0), (17.0, 20.0)):
            rows = transient & (c.magnitude >= low - 1e-3) & (c.magnitude < high)
            figures[f"found {low:g}-{high:g}"] = float(is_found[rows].mean())
            figures[f"ideal {low:g}-{high:g}"] = float(chance[rows].mean())
        figures["transients"] = float(transient.sum())
        figures["transients found"] = float(is_found[transient].sum())
        return figures

    def ours(self, made: DifferenceProducts, earlier: Sequence[CalibratedImage] = ()) -> dict[str, float]:
        """Return every figure of our detections; ``earlier`` are the differences of epochs before, the latest first."""
        rows = made.dia_sources
        x, y, positive = rows["x"].astype(float), rows["y"].astype(float), rows["is_positive"].astype(bool)
        near, on_streak = self.is_near(x, y)
        false = ~near & ~on_streak
        is_found = self._found_by_sign(x, y, positive)
        figures = self.counts(made, is_found)
        reliability = rows["reliability"].astype(float)
        real = reliability[near]
        at_98 = float(np.quantile(real, 0.02)) if real.size else 0.0
        forbidden = int(PipelineSettings().alerts.alerts.never_alert)
        clean = (rows["flags"] & forbidden) == 0
        figures |= {
            "detections": float(x.size), "false": float(false.sum()),
            "false, positive": float((false & positive).sum()),
            "false and clean": float((false & clean).sum()), "on streaks": float(on_streak.sum()),
            "false at 98 %": float((false & (reliability >= at_98)).sum()), "threshold at 98 %": at_98,
            **_with_earlier(rows, earlier, near, false),
            "false at 0.3": float((false & (reliability >= SHIPPED_THRESHOLD)).sum()),
            "false at 0.3 and clean": float((false & clean & (reliability >= SHIPPED_THRESHOLD)).sum()),
            "real kept at 0.3": float((real >= SHIPPED_THRESHOLD).mean()),
            "real kept at 0.3 and clean": float((near & clean & (reliability >= SHIPPED_THRESHOLD)).sum() / near.sum()),
        }  # fmt: skip
        significance = np.abs(rows["snr"].astype(float))
        lowest = float(np.quantile(significance[near], 0.02)) if real.size else 5.0
        figures["noise alone"] = self._noise_peaks(made, 5.0)
        figures["noise alone, above 98 % of the real ones"] = self._noise_peaks(made, max(lowest, 5.0))
        figures |= self._classes(rows, reliability, near, false, made)
        return figures | self._pulls(rows, made) | self._score(made)

    def _noise_peaks(self, made: DifferenceProducts, threshold: float) -> float:
        """Return the expected number of peaks of noise beyond a threshold, of both signs together."""
        difference = made.result.difference
        ny, nx = difference.shape
        psf = difference.psf.stamps(x=np.array([nx / 2.0]), y=np.array([ny / 2.0]))[0].astype(float)
        frequency = 2.0 * np.pi * np.fft.fftfreq(4 * psf.shape[0])
        power = np.abs(np.fft.fft2(psf, s=(frequency.size, frequency.size))) ** 2
        curvature = float(np.sum(power * frequency[:, None] ** 2) / np.sum(power))
        area = float(np.sum(made.result.score != 0.0))
        return 2.0 * area * curvature * (2.0 * np.pi) ** -1.5 * threshold * float(np.exp(-0.5 * threshold**2))

    def _found_by_sign(self, x: Floats, y: Floats, positive: Bools) -> Bools:
        brighter = self.changes.flux > 0
        return np.where(brighter, self.found(x[positive], y[positive]), self.found(x[~positive], y[~positive]))

    def _classes(
        self, rows: Catalog, reliability: Floats, near: Bools, false: Bools, made: DifferenceProducts
    ) -> dict[str, float]:
        """Return what part of each class passes the lowest threshold with a purity of 95 %."""
        order = np.argsort(-reliability, kind="stable")
        n_real, n_false = np.cumsum(near[order]), np.cumsum(false[order])
        pure = np.flatnonzero(n_real >= 0.95 * (n_real + n_false))
        threshold = float(reliability[order][pure[-1]]) if pure.size else 1.1
        c, usable = self.changes, self.usable(made)
        bright = np.abs(c.flux) > 7.0 * made.result.metrics["psf_flux_sigma"]
        distance, nearest = tree(rows["x"], rows["y"]).query(np.column_stack([c.x, c.y]))
        detected = distance < NEAR_PIXELS
        kept = detected & (reliability[nearest] >= threshold)
        figures = {"threshold at 95 % purity": threshold}
        for kind in ("transient", "variable", "mover"):
            mine = (c.kind == kind) & usable & bright
            figures[f"{kind}s kept at 95 % purity"] = _mean(kept[mine & detected])
            figures[f"{kind}s complete at 95 % purity"] = _mean(kept[mine])
        variable = (c.kind == "variable") & usable & detected
        excess = np.abs(rows["pixel_excess"].astype(float))[nearest[variable]]
        significant = np.abs(rows["snr"].astype(float))[nearest[variable]] > 10.0
        for name, share in (("median", 0.5), ("95 %", 0.95)):
            figures[f"pixel excess of variables above 10 sigma, {name}"] = (
                float(np.nanquantile(excess[significant], share)) if significant.any() else np.nan
            )
        return figures

    def _pulls(self, rows: Catalog, made: DifferenceProducts) -> dict[str, float]:
        c, unit = self.changes, self.science.photocal.njy_per_unit
        positive = np.flatnonzero(rows["is_positive"].astype(bool))
        distance, nearest = tree(rows["x"][positive], rows["y"][positive]).query(np.column_stack([c.x, c.y]))
        mine = (c.kind == "transient") & (distance < MATCH_PIXELS) & self.usable(made)
        row = positive[nearest[mine]]
        flux, error = rows["psf_flux"][row] / unit, rows["psf_flux_err"][row] / unit
        truth, hosted = c.flux[mine], c.is_in_host[mine]
        bright = truth > 30 * error
        scale = float(np.median(flux[bright] / truth[bright])) if bright.any() else 1.0
        pull, seen = (flux - scale * truth) / error, truth > 8 * error
        self.pulls = pull[seen & ~hosted], pull[seen & hosted]
        return {
            "flux scale": scale,
            "pull of flux, hostless": spread(self.pulls[0]),
            "pull of flux, in hosts": spread(self.pulls[1]),
            "median pull, hostless": float(np.median(self.pulls[0])),
            "median pull, in hosts": float(np.median(self.pulls[1])),
        }  # fmt: skip

    def _score(self, made: DifferenceProducts) -> dict[str, float]:
        away, density = self._away(made.result.score != 0.0)
        score = made.result.score
        ny, nx = score.shape
        sigma, crowd = [], []
        for rows in np.array_split(np.arange(ny), 8):
            for columns in np.array_split(np.arange(nx), 8):
                box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                if away[box].sum() > 2000:
                    sigma.append(_sigma(score[box][away[box]]))
                    crowd.append(density(columns[0], columns[-1], rows[0], rows[-1]))
        boxes, crowded = np.array(sigma), np.array(crowd) >= np.quantile(crowd, 0.75)
        return {
            "score sigma": _sigma(score[away]),
            "score sigma, crowded boxes": float(np.median(boxes[crowded])),
            "score sigma, lowest box": float(boxes.min()), "score sigma, highest box": float(boxes.max()),
        }  # fmt: skip

    def _away(self, usable: Bools) -> tuple[Bools, Any]:
        """Return pixels away from all objects, and a function that counts objects in a box."""
        x, y, magnitude = self.objects
        away = usable.copy()
        c = self.changes
        for px, py, m in zip(
            np.concatenate([x, c.x]), np.concatenate([y, c.y]), np.concatenate([magnitude, c.magnitude]), strict=True
        ):
            r = int(np.clip(round(5.0 * 10.0 ** (0.12 * (19.0 - m))), 4, 60))
            x0, y0 = round(px), round(py)
            rows, columns = slice(max(y0 - r, 0), max(y0 + r + 1, 0)), slice(max(x0 - r, 0), max(x0 + r + 1, 0))
            part = away[rows, columns]
            if part.size:
                yy, xx = np.ogrid[
                    rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]
                ]
                part[(xx - px) ** 2 + (yy - py) ** 2 <= r * r] = False

        def density(x0: int, x1: int, y0: int, y1: int) -> float:
            return float(np.sum((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)))

        return away, density

    def peer(self, made: DifferenceProducts, found: PeerCandidates) -> dict[str, float]:
        """Return what can be said of a peer's detections, before and after cuts."""
        figures = {}
        for name, keep in (("", np.ones(found.x.size, bool)), (", cuts", found.passes_cuts)):
            x, y = found.x[keep], found.y[keep]
            near, on_streak = self.is_near(x, y) if x.size else (np.zeros(0, bool), np.zeros(0, bool))
            counts = self.counts(made, self.found(x, y))
            figures |= {f"{key}{name}": value for key, value in counts.items()}
            figures[f"false{name}"] = float((~near & ~on_streak).sum())
        return figures


def _with_earlier(rows: Catalog, earlier: Sequence[CalibratedImage], near: Bools, false: Bools) -> dict[str, float]:
    """Return the figures at 98 % of the reliability that knows what earlier images show."""
    measure = MeasureOnDifference()
    fluxes = [measure.fluxes(image, ra=rows["ra"], dec=rows["dec"]) for image in earlier]
    shape = (rows.n_rows, len(fluxes))
    reliability = reliability_with_earlier(
        rows["reliability"].astype(float), flux=rows["psf_flux"].astype(float), is_positive=rows["is_positive"],
        is_near_bright=(rows["flags"] & int(SourceFlag.NEAR_BRIGHT_STAR)) != 0,
        earlier_flux=np.array([flux for flux, _ in fluxes]).T.reshape(shape),
        earlier_flux_err=np.array([error for _, error in fluxes]).T.reshape(shape),
    )  # fmt: skip
    at_98 = float(np.quantile(reliability[near], 0.02)) if near.any() else 0.0
    return {
        "false at 98 %, with earlier images": float((false & (reliability >= at_98)).sum()),
        "threshold at 98 %, with earlier images": at_98,
    }


def _sigma(values: NDArray[np.float32]) -> float:
    low, high = np.percentile(values, [25, 75])
    return float((high - low) / 1.349)


def _mean(values: Bools) -> float:
    return float(values.mean()) if values.size else float("nan")


def is_met(value: float, aim: str) -> bool:
    """Return whether a value meets an aim: ``x`` at most, ``>x`` above, ``a-b`` between."""
    if aim.startswith(">"):
        return value > float(aim[1:])
    if "-" in aim:
        low, high = map(float, aim.split("-"))
        return low <= round(value, 3) <= high
    return value <= float(aim)


def print_ours(name: str, epochs: list[dict[str, float]]) -> None:
    """Print every figure of every exposure, with its aim."""
    print(f"\nbench_{name}, ours{'':26} {'aim':>10}" + "".join(f"{f'epoch {k}':>12}" for k in range(len(epochs))))
    for figure in epochs[0]:
        aim = AIMS.get(figure, {}).get(name, "")
        values = "".join(
            f"{row[figure]:10.4g}{' !' if aim and not is_met(row[figure], aim) else '  '}" for row in epochs
        )
        print(f"{figure:44} {aim:>10}{values}")


def print_peers(name: str, ours: list[dict[str, float]], peers: dict[str, list[dict[str, float] | None]]) -> None:
    figures = (
        "CPU of the subtraction, s",
        "transients found",
        "transients",
        "false",
        "transients found, cuts",
        "false, cuts",
    )
    print(f"\nbench_{name}, subtraction and search: " + " | ".join(figures))
    for epoch, row in enumerate(ours):
        mine = (row["CPU of the subtraction, s"], row["transients found"], row["transients"], row["false, positive"])
        print(f"  epoch {epoch} ours      " + " | ".join(f"{value:7.1f}" for value in mine) + " (positive ones)")
        for peer, rows in peers.items():
            if (theirs := rows[epoch]) is None:
                print(f"  epoch {epoch} {peer:9} not installed" + (f"; {QUOTED[name]}" if peer == "hotpants" else ""))
            else:
                print(f"  epoch {epoch} {peer:9} " + " | ".join(f"{theirs[f]:7.1f}" for f in figures))


def compare(name: str, folder: Path, *, n_epochs: int, is_with_peers: bool, settings: PipelineSettings) -> None:
    """Print the figures of one field."""
    data = data_folder() / f"bench_{name}"
    ours: list[dict[str, float]] = []
    pulls: list[tuple[Floats, Floats]] = []
    peers: dict[str, list[dict[str, float] | None]] = {peer: [] for peer in ("hotpants", "zogy", "sfft")}
    earlier: deque[CalibratedImage] = deque(maxlen=EarlierImagesConfig().max_images)
    for epoch, work in enumerate(difference_works(data, folder, n_epochs, settings)):
        made, science, seconds, is_same = run_twice(work)
        judge = Judge(data, epoch, science)
        figures = {
            "CPU to vetted candidates, s": sum(seconds[step] for step in STEPS),
            **{f"  {step}": seconds[step] for step in STEPS},
            **judge.ours(made, earlier),
            "two runs alike to the bit": float(is_same),
            "CPU of the subtraction, s": seconds["subtract"] + seconds["detect"],
        }
        ours.append(figures)
        earlier.appendleft(made.result.difference)
        pulls.append(judge.pulls)
        metrics = made.result.metrics
        print(
            f"{name} epoch {epoch}: method {metrics['method']}, FWHM {science.psf.central_fwhm:.2f} on"
            f" {made.warped.psf.central_fwhm:.2f},"
            f" stars leave {metrics.get('proper_star_residual', np.nan):.4f} (proper)"
            f" {metrics.get('kernel_star_residual', np.nan):.4f} (kernel), noise {metrics['score_noise']:.3f}"
            f" {metrics['score_noise_range']}",
            flush=True,
        )
        for peer, rows in peers.items():
            found = run_peer(peer, science, made.warped) if is_with_peers else None
            rows.append(
                judge.peer(made, found.candidates) | {"CPU of the subtraction, s": found.seconds} if found else None
            )
    print_ours(name, ours)
    for k, kind in enumerate(("hostless", "in hosts")):
        every = np.concatenate([pair[k] for pair in pulls])
        print(f"pull of flux, {kind}, all exposures: {spread(every):.3f} +- {1.17 / np.sqrt(every.size):.3f}")
    if is_with_peers:
        print_peers(name, ours, peers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="*", default=["hl", "gp"], metavar="FIELD")
    parser.add_argument("--epochs", type=int, default=4, help="exposures of each field, where there are as many")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--keep", type=Path, help="folder of calibrated images and references; they stay")
    parser.add_argument("--method", choices=("auto", "proper", "kernel"), default="auto")
    options = parser.parse_args()
    settings = PipelineSettings()
    settings = replace(settings, subtraction=replace(settings.subtraction, method=options.method))
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.fields:
            folder = (options.keep or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            compare(name, folder, n_epochs=options.epochs, is_with_peers=not options.ours, settings=settings)


if __name__ == "__main__":
    main()
