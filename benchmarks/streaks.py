"""Streaks: how many are found, where they end, how many are false, and what the search costs.

Run: python benchmarks/streaks.py [--images N] [--epochs N] [--keep FOLDER] [--pictures FOLDER] [PART ...]

Parts are noise, hl, gp, lowell and movers (all without any). ``noise``: white noise (1024 x 1024, PSF of 2.4 pixels)
with artificial streaks of total signal to noise 5 to 40, of lengths from 3.5 FWHM to all across. ``hl``, ``gp``: the
simulated quadrants of ``$GUESTSTAR_SHARED/data`` or ``../shared/data`` (bench_hl, bench_gp), calibrated and differenced
by the package's own tasks: their own streaks, and artificial ones put into the science image before it is differenced.
``lowell``: the real night of lowell42_5945, processed by the commands (with ``--keep``, a repository that is there is
only measured): all that is found is listed, nothing is known to be true. ``movers``: simulated nights with bodies that
pass near the Earth at 1 to 60 arcsec a minute, through the commands (`_near_earth_night`): which are detected as
points or streaks, linked into tracklets, or left as one trail alone, by rate. ``--pictures`` draws every likely streak.

Counted are artificial streaks with more than half of their light on usable pixels; their signal to noise is that of
the light on usable pixels, against the variance plane of the science image. One is found if a likely streak (score of
at least 0.6) lies on it for 70 % of its length. Offsets of ends are along the streak, of ends that both truth and
fit place on usable pixels; pulls are (found - true) / error. False is a likely positive streak on none of the known
ones. Negative streaks cannot be of the sky: how many there are is a count of false ones that needs no truth.

The peer is the probabilistic Hough transform of scikit-image on the same differences, thresholded at 2.5 sigma of the
point-source score, with lines of at least 20 pixels: what finds bright lines in images elsewhere (left out where it is
not installed).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from _near_earth_night import measure_movers
from catalogs import data_folder
from gueststar.algorithms.streaks.search import share_on
from gueststar.algorithms.streaks.trace import Segment
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.operations.report.figures import blank, png
from gueststar.pipelines.difference.detect import DetectionContext
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.score import ScoreDifference
from gueststar.pipelines.difference.streaks import FindStreaks, Streaks
from gueststar.pipelines.difference.subtract import DifferenceResult, MakeDifference
from gueststar.pipelines.injection.streaks import ArtificialStreak, ArtificialStreaksConfig, put_streaks
from gueststar.pipelines.moving.streak_tracks import LinkStreaks, listed
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.repo import SurveyRepo

Floats = NDArray[np.float64]
CONTEXT = DetectionContext(1, 0, 0, 60000.0, 60000.0 + 15.0 / 86400.0, 2, 1)
SNR_EDGES = (5.0, 7.0, 8.5, 10.0, 12.0, 15.0, 20.0, 100.0)
LENGTH_EDGES = (3.5, 8.0, 30.0, 150.0, 3000.0)
"""FWHM."""
LIKELY = 0.6
NEAR_TRUTH_PIXELS = 12.0


class Ends(NamedTuple):
    """How far one fitted end is from the true one, pixels."""

    snr: float
    per_fwhm: float
    """Signal to noise of one FWHM of length."""
    along: float
    along_err: float
    across: float
    across_err: float


@dataclass
class Tally:
    """What came of the artificial streaks and the false ones of several images."""

    put: list[tuple[float, float, bool, bool]] = field(default_factory=list)
    """Total signal to noise, length in FWHM, found by the search, kept by the vetting."""
    peer: list[bool] = field(default_factory=list)
    ends: list[Ends] = field(default_factory=list)
    angles: list[tuple[float, float]] = field(default_factory=list)
    """Error of direction and its stated error, radians."""
    false_before: int = 0
    false_after: int = 0
    negative_after: int = 0
    peer_false: int = 0
    kept: int = 0
    n_images: int = 0
    cpu_s: list[float] = field(default_factory=list)
    peer_s: list[float] = field(default_factory=list)

    def add(
        self, streaks: Streaks, put: Sequence[ArtificialStreak], known: Sequence[Segment], image: CalibratedImage
    ) -> None:
        """Hold the streaks found in one image against what was put in and what else is known to be there."""
        rows, fwhm = streaks.catalog, image.psf.central_fwhm
        found = [segment_of(rows, k) for k in range(rows.n_rows)]
        positive, likely = rows["is_positive"], rows["reliability"] >= LIKELY
        counted = [one for one in put if one.usable > 0.5]
        for one in counted:
            on_it = np.array(
                [p and one.is_matched_by(s, fwhm=fwhm) for s, p in zip(found, positive, strict=True)], bool
            )
            self.put.append((one.snr, one.segment.length / fwhm, bool(on_it.any()), bool((on_it & likely).any())))
            if (on_it & likely).any():
                self._add_ends(rows, int(np.flatnonzero(on_it & likely)[0]), one, image)
        is_known = np.array(
            [
                any(one.is_matched_by(s, fwhm=fwhm) for one in put)
                or any(share_on(s, other, width=NEAR_TRUTH_PIXELS) > 0.5 for other in known)
                for s in found
            ], bool,
        )  # fmt: skip
        self.false_before += int((positive & ~is_known).sum())
        self.false_after += int((positive & likely & ~is_known).sum())
        self.kept += int((positive & likely).sum())
        self.negative_after += int((~positive & likely).sum())
        self.n_images += 1

    def _add_ends(self, rows: Catalog, k: int, one: ArtificialStreak, image: CalibratedImage) -> None:
        fwhm, scale = image.psf.central_fwhm, image.wcs.pixel_scale_arcsec
        usable = image.pixels.is_usable()
        ux, uy = one.segment.direction
        truth = one.segment
        if (rows["x_2"][k] - rows["x_1"][k]) * ux + (rows["y_2"][k] - rows["y_1"][k]) * uy < 0:
            order = ((2, truth.x1, truth.y1, -1.0), (1, truth.x2, truth.y2, 1.0))
        else:
            order = ((1, truth.x1, truth.y1, -1.0), (2, truth.x2, truth.y2, 1.0))
        for end, x, y, outward in order:
            if not rows[f"is_end_{end}_seen"][k] or not is_well_inside(x, y, usable, 3.0 * fwhm):
                continue
            dx, dy = rows[f"x_{end}"][k] - x, rows[f"y_{end}"][k] - y
            self.ends.append(
                Ends(
                    one.snr, one.snr / np.sqrt(truth.length / fwhm), outward * (dx * ux + dy * uy),
                    float(rows[f"along_{end}_err"][k]) / scale, dy * ux - dx * uy,
                    float(rows[f"across_{end}_err"][k]) / scale,
                )
            )  # fmt: skip
        found = segment_of(rows, k).direction
        sine = found[0] * uy - found[1] * ux
        self.angles.append((float(np.arcsin(np.clip(sine, -1, 1))), np.radians(float(rows["position_angle_err"][k]))))


def segment_of(rows: Catalog, k: int) -> Segment:
    return Segment(*(float(rows[name][k]) for name in ("x_1", "y_1", "x_2", "y_2")))


def is_well_inside(x: float, y: float, usable: NDArray[np.bool_], margin: float) -> bool:
    """Return whether a place is farther than ``margin`` from the image's edge, with usable pixels about it."""
    ny, nx = usable.shape
    if not (margin <= x < nx - margin and margin <= y < ny - margin):
        return False
    i, j, half = round(x), round(y), int(margin)
    return bool(usable[j - half : j + half + 1, i - half : i + half + 1].mean() > 0.95)


def moffat_psf(fwhm: float, shape: tuple[int, int], half: int = 14) -> Psf:
    """Return a Moffat profile (beta 3.5) integrated over pixels."""
    fine = 5
    n = (2 * half + 1) * fine
    axis = (np.arange(n) - (n - 1) / 2) / fine
    radius = fwhm / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    values = (1 + (axis[:, None] ** 2 + axis**2) / radius**2) ** -3.5
    stamp = values.reshape(2 * half + 1, fine, 2 * half + 1, fine).sum(axis=(1, 3))
    return Psf((stamp / stamp.sum())[None].astype(np.float32), 0, shape)


def blank_sky(side: int, fwhm: float) -> CalibratedImage:
    """Return an image of nothing with unit variance."""
    shape = (side, side)
    pixels = MaskedImage(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape, np.int32))
    wcs = Wcs.tangent(ra=10.0, dec=10.0, x=side / 2, y=side / 2, scale_arcsec=1.0)
    return CalibratedImage(pixels, wcs, moffat_psf(fwhm, shape), PhotoCal(25.0, 0.01, band="r"))


def timed_search(
    result: DifferenceResult, science: CalibratedImage, reference: CalibratedImage | None, tally: Tally
) -> Streaks:
    start = time.process_time()
    streaks = FindStreaks().run(result, science, reference, context=CONTEXT)
    tally.cpu_s.append(time.process_time() - start)
    return streaks


def hough_lines(result: DifferenceResult, tally: Tally) -> list[Segment] | None:
    """Return the peer's lines; None where it is not installed."""
    try:
        from skimage.transform import probabilistic_hough_line
    except ImportError:
        return None
    start = time.process_time()
    lines = probabilistic_hough_line(result.score > 2.5, threshold=20, line_length=20, line_gap=5, rng=1)
    tally.peer_s.append(time.process_time() - start)
    return [Segment(*map(float, (*a, *b))) for a, b in lines]


def add_peer(
    tally: Tally, lines: list[Segment] | None, put: Sequence[ArtificialStreak], known: Sequence[Segment], fwhm: float
) -> None:
    """Count what the peer found of each artificial streak: a line of his on it, of any length."""
    if lines is None:
        return
    counted = [one for one in put if one.usable > 0.5]
    tally.peer += [any(share_on(line, one.segment, width=2 * fwhm) > 0.7 for line in lines) for one in counted]
    others = [one.segment for one in put] + list(known)
    tally.peer_false += sum(
        not any(share_on(line, other, width=NEAR_TRUTH_PIXELS) > 0.5 for other in others) for line in lines
    )


def measure_noise(n_images: int, *, side: int = 1024, fwhm: float = 2.4) -> None:
    """White noise, where nothing else is."""
    tally, empty = Tally(), Tally()
    sky = blank_sky(side, fwhm)
    config = ArtificialStreaksConfig(n=6, snr=(5.0, 40.0), uneven_fraction=0.0, broad_fraction=0.0)
    for number in range(n_images):
        random = np.random.default_rng(number)
        image, put = put_streaks(sky, random, config=config)
        noise = random.normal(size=sky.shape).astype(np.float32)
        for holds, pixels in ((True, image.pixels.image + noise), (False, noise)):
            science = CalibratedImage(
                MaskedImage(pixels, sky.pixels.variance, sky.pixels.mask), sky.wcs, sky.psf, sky.photocal
            )
            result = ScoreDifference().run(science)
            this = tally if holds else empty
            this.add(timed_search(result, science, None, this), put if holds else [], [], science)
            add_peer(this, hough_lines(result, this), put if holds else [], [], fwhm)
    print_tally(f"white noise, {n_images} images of {side} x {side}, FWHM {fwhm} pixels", tally)
    print(f"  without any streak: {empty.false_before} positive, {empty.false_after} likely; peer {empty.peer_false}")


def true_streaks(data: Path, epoch: int) -> list[Segment]:
    """Return the quadrant's own streaks (0-based pixels)."""
    table = fits.getdata(data / "truth_streaks.fits")
    rows = table[table["epoch"] == epoch]
    return [Segment(*(float(row[name]) - 1.0 for name in ("x1", "y1", "x2", "y2"))) for row in rows]


def measure_quadrant(name: str, folder: Path, n_epochs: int, pictures: Path | None) -> None:
    """The simulated quadrants: their own streaks, then artificial ones."""
    from differences import difference_works

    data, tally, own = data_folder() / f"bench_{name}", Tally(), Tally()
    n_true, n_found, lengths = 0, 0, []
    for epoch, work in enumerate(difference_works(data, folder, n_epochs, PipelineSettings())):
        context = WorkerContext.of(work.repo_root)
        science = context.image(work.science)
        warped = WarpReference().run(science, context.image(work.reference))
        known = true_streaks(data, epoch)
        result = MakeDifference().run(science, warped)
        timed_search(result, science, warped, Tally())  # compiles
        streaks = timed_search(result, science, warped, own)
        own.add(streaks, [], known, science)
        add_peer(own, hough_lines(result, own), [], known, science.psf.central_fwhm)
        likely = streaks.catalog.select((streaks.catalog["reliability"] >= LIKELY) & streaks.catalog["is_positive"])
        for truth in known:
            on_it = [k for k in range(likely.n_rows) if share_on(segment_of(likely, k), truth, width=6.0) > 0.7]
            n_true += 1
            n_found += bool(on_it)
            if on_it and likely["is_end_1_seen"][on_it[0]] and likely["is_end_2_seen"][on_it[0]]:
                lengths.append(segment_of(likely, on_it[0]).length - truth.length)
        if pictures is not None:
            draw(streaks, pictures, f"{name}{epoch}")
        for repeat in range(2):
            random = np.random.default_rng(100 * epoch + repeat)
            changed, put = put_streaks(science, random, config=ArtificialStreaksConfig(n=15))
            result = MakeDifference().run(changed, warped)
            tally.add(timed_search(result, changed, warped, tally), put, known, changed)
            add_peer(tally, hough_lines(result, tally), put, known, science.psf.central_fwhm)
    print_tally(f"bench_{name}, artificial streaks in {own.n_images} epochs", tally)
    print(
        f"  the quadrant's own streaks: {n_found} of {n_true} found; lengths off by {np.median(lengths):+.2f} pixels"
        f" (drawn with round caps, not as lines under the PSF); false per image {own.false_before / own.n_images:.1f}"
        f" before, {own.false_after / own.n_images:.2f} after vetting; peer"
        f" {own.peer_false / own.n_images:.0f}; CPU {np.median(own.cpu_s):.2f} s"
    )


def measure_lowell(folder: Path | None, scratch: Path, pictures: Path | None) -> None:
    """The real night."""
    data = data_folder() / "lowell42_5945"
    repo = (folder or scratch) / "lowell42"
    if not repo.is_dir():
        for words in (
            ["init", repo, "--camera", "lowell42"],
            ["ingest", repo, data, "--transfer", "direct"],
            ["process", repo, "--until", "calibrate"],
            ["refcat", "from-images", repo, *sorted((data / "object").iterdir())],
            ["process", repo],
        ):
            subprocess.run([sys.executable, "-m", "gueststar", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    n_images = n_likely = n_other = n_negative = 0
    every = []
    with SurveyRepo.open(repo) as survey:
        for stored in survey.find("difference_image"):
            place = stored.data_id
            image = survey.read(stored)
            science = survey.get("science_image", place)
            context = CONTEXT._replace(visit=place.exposure or 0)
            streaks = FindStreaks().run(ScoreDifference().run(image), science, None, context=context)
            rows = streaks.catalog
            every += listed(rows, min_reliability=LIKELY)
            is_likely = rows["reliability"] >= LIKELY
            n_images += 1
            n_likely += int((is_likely & rows["is_positive"]).sum())
            n_negative += int((is_likely & ~rows["is_positive"]).sum())
            n_other += int((~is_likely).sum())
            for k in np.flatnonzero(is_likely & rows["is_positive"]):
                print(
                    f"  exposure {place.exposure}: {rows['kind'][k]}, score {rows['reliability'][k]:.2f}, S/N"
                    f" {rows['snr'][k]:.1f}, {rows['length'][k]:.1f} arcsec,"
                    f" ({rows['x_1'][k]:.0f}, {rows['y_1'][k]:.0f})"
                    f" to ({rows['x_2'][k]:.0f}, {rows['y_2'][k]:.0f})"
                )
            if pictures is not None:
                draw(streaks, pictures, f"lowell{place.exposure}")
    print(
        f"lowell42_5945, {n_images} differences: {n_likely} likely streaks, {n_negative} likely negative ones, "
        f"{n_other} unlikely"
    )
    fixed = [track for track in LinkStreaks().run(every) if track["link"] == "same pixels"]
    n_fixed = sum(len(track["streak_ids"]) for track in fixed)
    print(f"on the same pixels of several exposures: {n_fixed} of the likely ones; {n_likely - n_fixed} are left")


def draw(streaks: Streaks, folder: Path, name: str) -> None:
    """Write a picture of every likely streak."""
    folder.mkdir(parents=True, exist_ok=True)
    for streak_id, stamps in zip(streaks.cutouts.streak_id, streaks.cutouts.stamps, strict=True):
        figure, axes = blank(9.0, 1.8, 2)
        for ax, stamp in zip(axes, stamps, strict=True):
            sigma = 1.4826 * float(np.nanmedian(np.abs(stamp - np.nanmedian(stamp))))
            ax.imshow(stamp, vmin=-3 * sigma, vmax=6 * sigma, origin="lower", aspect="auto", cmap="gray")
        (folder / f"{name}_{streak_id}.png").write_bytes(png(figure))


def print_tally(title: str, tally: Tally) -> None:
    snr, length, found, kept = (np.array(values) for values in zip(*tally.put, strict=True))
    print(f"{title}: {snr.size} artificial streaks")
    print(f"  {'total S/N':>10} {'n':>5} {'found':>7} {'kept':>7}" + (f" {'peer':>7}" if tally.peer else ""))
    peer = np.array(tally.peer, bool)
    for low, high in (*pairwise(SNR_EDGES), (10.0, np.inf)):
        inside = (snr >= low) & (snr < high)
        if inside.any():
            line = f"  {low:4.1f}-{high:5.1f} {inside.sum():5d} {found[inside].mean():7.3f} {kept[inside].mean():7.3f}"
            print(line + (f" {peer[inside].mean():7.3f}" if peer.size else ""))
    for low, high in pairwise(LENGTH_EDGES):
        inside = (length >= low) & (length < high) & (snr > 10.0)
        if inside.any():
            line = f"  S/N > 10, {low:g} to {high:g} FWHM long: {inside.sum():4d}, kept {kept[inside].mean():.3f}"
            print(line + (f", peer {peer[inside].mean():.3f}" if peer.size else ""))
    print_ends(tally)
    print(
        f"  false: {tally.false_before / tally.n_images:.2f} an image before vetting,"
        f" {tally.false_after / tally.n_images:.3f} after = {tally.false_after / max(tally.kept, 1):.2%} of those kept;"
        f" negative after vetting {tally.negative_after / tally.n_images:.3f} an image"
    )
    cost = f"  CPU {np.median(tally.cpu_s):.2f} s an image, {np.max(tally.cpu_s[1:] or tally.cpu_s):.2f} at most"
    if tally.peer_s:
        cost += f"; peer {np.median(tally.peer_s):.2f} s, {tally.peer_false / tally.n_images:.1f} false an image"
    print(cost, flush=True)


def print_ends(tally: Tally) -> None:
    ends = np.array(tally.ends)
    if ends.size == 0:
        return
    for low, high in ((0.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, np.inf)):
        rows = ends[(ends[:, 1] >= low) & (ends[:, 1] < high)]
        if len(rows) < 8:
            continue
        along, across = rows[:, 2] / rows[:, 3], rows[:, 4] / rows[:, 5]
        print(
            f"  ends, S/N {low:g} to {high:g} per FWHM: {len(rows):4d}, off along {robust(rows[:, 2]):.2f} pixels"
            f" (rms {np.sqrt(np.mean(rows[:, 2] ** 2)):.2f}), bias {np.median(rows[:, 2]):+.2f}, pull"
            f" {robust(along):.2f}; across {robust(rows[:, 4]):.2f}, pull {robust(across):.2f}"
        )
    angle = np.array(tally.angles)
    pull = robust(angle[:, 0] / angle[:, 1])
    print(f"  direction off by {np.degrees(robust(angle[:, 0])):.3f} degrees, pull {pull:.2f}")


def robust(values: Floats) -> float:
    """Return the scatter about zero from the median of sizes."""
    return 1.4826 * float(np.median(np.abs(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["noise", "hl", "gp", "lowell", "movers"], metavar="PART")
    parser.add_argument("--images", type=int, default=60, help="images of noise")
    parser.add_argument("--epochs", type=int, default=2, help="exposures of each quadrant")
    parser.add_argument("--nights", type=int, default=2, help="simulated nights with fast bodies")
    parser.add_argument("--keep", type=Path, help="folder of calibrated images and the Lowell repository; they stay")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of likely streaks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if "noise" in options.parts:
            measure_noise(options.images)
        for name in ("hl", "gp"):
            if name in options.parts:
                folder = (options.keep or Path(scratch)) / name
                folder.mkdir(parents=True, exist_ok=True)
                measure_quadrant(name, folder, options.epochs, options.pictures)
        if "lowell" in options.parts:
            measure_lowell(options.keep, Path(scratch), options.pictures)
        if "movers" in options.parts:
            measure_movers(options.keep or Path(scratch), seeds=tuple(range(1, options.nights + 1)))


if __name__ == "__main__":
    main()
