"""How real images do: fates of frames, astrometry, photometry, noise of differences, alerts, movers, variables.

Run: python benchmarks/real_data.py [--data FOLDER] [--keep FOLDER]
Two nights are those of the user guide (Lowell 42-inch, MicroObservatory); the commands are those of its pages. Pairs of
DECam stamps are compared with artificial sources put in. The folder of data holds lowell42_5945, microobs_hatp32b and
decam_minis_sfft (default: $GUESTSTAR_SHARED/data, or shared/data beside the checkout); what is not there, or lacks its
star catalog, is left out. With --keep, repositories that are in that folder already are only measured.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.spatial import cKDTree

from gueststar.algorithms.photocal.relative import RelativeConfig
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.formats.named_table import read_named_table
from gueststar.formats.parquet import read_catalog
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.columns import APERTURE, DIA_SOURCE, SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.operations.report.account import Fate, account_of
from gueststar.operations.report.night_report import NightReport, make_report
from gueststar.pipelines.calibration.relative_photometry import (
    CalibrateRelative,
    RelativeExposure,
    RelativePhotometryConfig,
)
from gueststar.pipelines.difference.cutouts import Triplet
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference
from gueststar.pipelines.difference.vet import VetCandidates
from gueststar.pipelines.injection.faded import ShowFaded
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.label import label_detections
from gueststar.pipelines.injection.place import LABELLING
from gueststar.pipelines.night.science import limiting_magnitude
from gueststar.pipelines.science.astrometry import AstrometryMatches
from gueststar.pipelines.science.photometry import SolvePhotometry
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

TYCHO = "/usr/share/astrometry/index-tycho2-07.*.fits"

BAD = (
    SourceFlag.SATURATED | SourceFlag.BAD_PIXEL | SourceFlag.EDGE | SourceFlag.COSMIC_RAY | SourceFlag.NEAR_BRIGHT_STAR
)


def gueststar(*words: object) -> None:
    """Run a command; stop if it fails."""
    subprocess.run([sys.executable, "-m", "gueststar", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def process_lowell(data: Path, repo: Path) -> None:
    gueststar("init", repo, "--camera", "lowell42")
    gueststar("ingest", repo, data, "--transfer", "direct")
    gueststar("process", repo, "--until", "calibrate")
    gueststar("refcat", "from-images", repo, *sorted((data / "object").iterdir()))
    gueststar("process", repo, "--workers", 2)


def process_microobs(data: Path, repo: Path) -> None:
    gueststar("init", repo, "--camera", "microobs")
    gueststar("ingest", repo, data, "--transfer", "direct")
    gueststar("refcat", "import", repo, glob(TYCHO)[0], "--format", "astrometry-index")
    gueststar("process", repo, "--workers", 2)


def measure(root: Path) -> None:
    """Print the figures of every night of a repository."""
    with SurveyRepo.open(root) as repo:
        for night in sorted({row.info.day_obs for row in repo.ledger.exposures()}):
            report = make_report(repo, night)
            account = account_of(repo.ledger, night)
            fates = ", ".join(f"{account.count(fate)} {fate.value}" for fate in Fate if account.count(fate))
            print(f"{root.name}, night {night}: {len(account.units)} frames: {fates}")
            for fate, reason, n in account.reasons():
                print(f"  {fate}: {n} x {reason}")
            jobs = repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE)
            _stars(repo, [(job.exposure_id or 0, job.detector or 0) for job in jobs])
            _differences(report, jobs)
            _repeating(repo, jobs)


def matched(frames: Sequence[Catalog], names: Sequence[str], *, radius_arcsec: float) -> dict[str, np.ndarray]:
    """Return values [star, frame] of stars of the first frame in all frames; NaN where there is no match."""
    first = frames[0]
    out = {name: np.full((first.n_rows, len(frames)), np.nan) for name in names}
    scale = np.cos(np.radians(np.median(first["dec"])))

    def plane(rows: Catalog) -> np.ndarray:
        return 3600.0 * np.stack([(rows["ra"] - first["ra"][0]) * scale, rows["dec"] - first["dec"][0]], axis=1)

    for k, frame in enumerate(frames):
        if frame.n_rows == 0:
            continue
        distance, index = cKDTree(plane(frame)).query(plane(first))
        near = distance < radius_arcsec
        for name in names:
            out[name][near, k] = frame[name][index[near]]
    return out


def _stars(repo: SurveyRepo, frames: list[tuple[int, int]]) -> None:
    """Print how places and fluxes of the brighter stars scatter from frame to frame."""
    psf, aperture = [], []
    for visit, detector in frames:
        data_id = DataId(visit=visit, detector=detector)
        for rows, name, schema in ((psf, "source", SOURCE), (aperture, "aperture_source", APERTURE)):
            found = read_catalog(repo.path(name, data_id), schema)
            rows.append(found.select((found["flags"] & int(BAD)) == 0))
    scale = repo.camera.pixel_scale_arcsec
    bright = psf[0].select(psf[0]["snr"] > 100)
    places = matched([bright, *psf[1:]], ("ra", "dec", "mag"), radius_arcsec=scale)
    often = np.isfinite(places["ra"]).mean(axis=1) > 0.8
    ra = 3.6e6 * _scatter(places["ra"][often] * np.cos(np.radians(places["dec"][often])))
    dec = 3.6e6 * _scatter(places["dec"][often])
    print(
        f"  {often.sum()} stars above 100 sigma: from frame to frame"
        f" {np.median(ra):.0f} mas in right ascension, {np.median(dec):.0f} in declination"
    )
    _photometry(repo, frames, {"psf": [rows.select(rows["snr"] > 100) for rows in psf], "ap": aperture})


def _photometry(repo: SurveyRepo, frames: list[tuple[int, int]], catalogs: dict[str, list[Catalog]]) -> None:
    """Print how magnitudes of stars repeat, by each frame's own zero point and after relative calibration."""
    print("  repeatability, mmag: median (30 brightest) of stars above 100 sigma in four of five frames")
    detector = repo.camera.detector(frames[0][1])
    for flux in ("psf_flux", "ap_flux_1", "ap_flux_2", "ap_flux_3", "ap_flux_4"):
        rows = catalogs["psf" if flux == "psf_flux" else "ap"]
        exposures = [
            RelativeExposure(visit, float(k), found)
            for k, ((visit, _), found) in enumerate(zip(frames, rows, strict=True))
        ]
        config = RelativePhotometryConfig(
            flux=flux, radius_arcsec=repo.camera.pixel_scale_arcsec, min_snr=30.0 if flux == "psf_flux" else 100.0
        )
        own, shown = RelativeConfig(zero_point_prior=1e-9, spatial_order=0), []
        for solution in (own, RelativeConfig(spatial_order=0), RelativeConfig()):
            made = CalibrateRelative(replace(config, solution=solution)).run(
                exposures, detector_id=detector.id, shape=detector.shape, physical_filter=None
            )
            stars = made.tables["stars"]
            often = stars["n"] > 0.8 * len(frames)
            rms = 1e3 * stars["rms"][often][np.argsort(stars["mag"][often])]
            shown.append(f"{np.median(rms):5.1f} ({np.median(rms[:30]):4.1f})")
        order = made.metadata["order"]
        print(
            f"    {flux:<10} {often.sum():4d} stars: own zero points {shown[0]}, relative {shown[1]},"
            f" with change over the detector (order {order}) {shown[2]}"
        )


def _scatter(values: np.ndarray) -> np.ndarray:
    """Return the robust scatter of each row."""
    return 1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values, axis=1, keepdims=True)), axis=1)


def _quantiles(values: Sequence[float]) -> str:
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [0.16, 0.5, 0.84])
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _differences(report: NightReport, jobs: list[Job]) -> None:
    """Print noise, numbers of detections, and what moves."""
    if not jobs:
        print("  no differences")
        return
    metrics = [job.metrics for job in jobs]
    noise = [m["subtraction"]["score_noise"] for m in metrics]
    print(f"  noise of the score over what the variances say: {_quantiles(noise)}")
    print(f"  detections a frame: {_quantiles([m['n_candidates'] for m in metrics])}")
    alerts = [unit.metrics["n_alerts"] for unit in report.account.units if "n_alerts" in unit.metrics]
    print(f"  alerts a frame: {_quantiles(alerts)}")
    counts = [row["n_detections"] for row in report.tracklets]
    print(f"  tracklets: {len(counts)}, detections in each: {sorted(counts, reverse=True)[:20]}")


def _repeating(repo: SurveyRepo, jobs: list[Job], *, least: int = 4, score: float = 0.5) -> None:
    """Print places where likely detections repeat: variables, if anything is."""
    rows = []
    for job in jobs:
        found = read_catalog(repo.path("dia_source", DataId(visit=job.exposure_id, detector=job.detector)), DIA_SOURCE)
        rows.append(found.select(found["reliability"] >= score))
    ra, dec, snr = (np.concatenate([part[name] for part in rows]) for name in ("ra", "dec", "snr"))
    image = np.concatenate([np.full(part.n_rows, k) for k, part in enumerate(rows)])
    if ra.size == 0:
        return
    plane = 3600.0 * np.stack([(ra - ra[0]) * np.cos(np.radians(dec[0])), dec - dec[0]], axis=1)
    tree, is_left = cKDTree(plane), np.ones(ra.size, bool)
    print(f"  places with {least} or more detections of reliability {score}:")
    for k in np.argsort(-np.abs(snr), kind="stable"):
        near = [n for n in tree.query_ball_point(plane[k], 1.5 * repo.camera.pixel_scale_arcsec) if is_left[n]]
        is_left[near] = False
        n_images = len(set(image[near]))
        if n_images >= least:
            range_of = f"score {snr[near].min():.0f} to {snr[near].max():.0f}"
            print(f"    {ra[k]:.5f} {dec[k]:+.5f}: {n_images} images, {range_of}")


def compare_stamps(folder: Path) -> None:
    """Difference each DECam stamp with the next of its group, with sources put in, and print what is found.

    The stamps are aligned and sky subtracted; they have no dates. Nothing but what is put in is known to change.
    """
    stamps = [_stamp(path) for path in sorted(folder.glob("*.fits.gz"))]
    pairs = [(a, b) for a, b in itertools.pairwise(stamps) if a.metadata["group"] == b.metadata["group"]]
    noise, n_found, rows = [], [], []
    for number, (reference, science) in enumerate(pairs):
        limit = limiting_magnitude(science)
        config = replace(LABELLING, n=15, host_fraction=0.0)
        injected = InjectSources(config).run(science, limiting_mag=limit, random=np.random.default_rng(number))
        faded = ShowFaded(injected.sources, science.wcs, random=np.random.default_rng([number, 1]))
        reference, _ = faded(reference, SOURCE.empty())
        result = MakeDifference(DifferenceConfig(background_box=0)).run(injected.image, reference)
        context = DetectionContext(number, 0, 0, 60000.0, 60000.0, 1, 1)
        found = DetectCandidates().run(result, injected.image, reference, context=context).catalog
        triplet = Triplet(injected.image.pixels, reference.pixels, result.difference.pixels)
        found = VetCandidates().run(found, triplet).dia_sources
        noise.append(result.metrics["score_noise"])
        kept, is_real = label_detections(
            found, injected.sources, known=(np.zeros(0), np.zeros(0)), radius=0.5 * science.psf.central_fwhm
        )
        rows.append(np.stack([found["reliability"][kept], is_real]))
        n_found.append(injected.sources.x.size)
    score, is_real = np.concatenate(rows, axis=1)
    real = is_real > 0
    print(f"DECam stamps: {len(pairs)} pairs of 256 x 256 pixels, {sum(n_found)} sources put in")
    print(f"  noise of the score over what the variances say: {_quantiles(noise)}")
    print(f"  {real.sum()} of them detected, {(score[real] >= 0.1).sum()} with a reliability of 0.1 or more")
    print(f"  {(~real).sum()} other detections, {(score[~real] >= 0.1).sum()} with a reliability of 0.1 or more")


def compare_catalog(path: Path) -> None:
    """Print the zero point of the detections of an LCO frame in i against RefCat2, by catalog band and colour.

    Detections are paired with the catalog by the file itself.
    """
    table = read_named_table(path)
    reference = refcat_from_table(table, epoch=2015.5).catalog
    columns = table.columns
    rows = np.flatnonzero(np.isfinite(columns["flux"]) & (columns["flux"] > 0))
    sources = Catalog({
        "x": columns["xwin"][rows], "y": columns["ywin"][rows], "flux": columns["flux"][rows],
        "flux_err": columns["fluxerr"][rows],
    })  # fmt: skip
    matches = AstrometryMatches(np.arange(rows.size), rows, np.zeros(rows.size))
    print(f"LCO {path.name}: {rows.size} detections, taken through i")
    for band, colour in (("i", ("r", "i")), ("i", ("g", "i")), ("z", ("i", "z")), ("r", ("g", "r"))):
        glass = Filter(physical_filter="ip", band="i", fid=3, catalog_band=band, colour=colour)
        m = SolvePhotometry().run(sources, matches, reference, filter=glass, shape=(4096, 4096)).metrics
        doubt = ", band doubtful" if m.is_band_doubtful else ""
        print(
            f"  against {band} with {'-'.join(colour)}: zero point {m.zero_point:.4f} +- {m.zero_point_err:.4f},"
            f" colour term {m.colour_term:+.4f} +- {m.colour_term_err:.4f}, {m.n_calibrators} calibrators,"
            f" scatter beyond errors {1e3 * m.intrinsic_scatter:.0f} mmag{doubt}"
        )


def _stamp(path: Path) -> CalibratedImage:
    """Return a stamp in electrons; its WCS is made up, for all of a group are on the same pixels."""
    with fits.open(path) as hdus:
        image = np.asarray(hdus[0].data, np.float32) * np.float32(hdus[0].header["GAIN"])
        full = float(hdus[0].header["SATURATE"] * hdus[0].header["GAIN"])
    sigma = median_and_sigma(image.ravel())[1]
    variance = (sigma**2 + np.maximum(image, 0.0)).astype(np.float32)
    mask = np.where(image > 0.9 * full, int(MaskPlane.SATURATED), 0).astype(np.int32)
    pixels = MaskedImage(image, variance, mask)
    wcs = Wcs.tangent(ra=150.0, dec=0.0, x=128.0, y=128.0, scale_arcsec=0.263)
    psf = MeasurePsf().run(pixels, expected_fwhm=4.5).psf
    return CalibratedImage(pixels, wcs, psf, PhotoCal(30.0, 0.0), {"group": path.name[:9]})


def data_folder(given: Path | None) -> Path:
    beside = Path(os.environ.get("GUESTSTAR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return given or beside / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the repositories; they stay")
    options = parser.parse_args()
    data = data_folder(options.data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source, process, needed in (
            ("lowell42", data / "lowell42_5945", process_lowell, None),
            ("microobs", data / "microobs_hatp32b", process_microobs, TYCHO),
        ):
            if not source.is_dir() or (needed and not glob(needed)):
                print(f"{name}: left out, {source if not source.is_dir() else needed} is not there")
                continue
            if not (folder / name).is_dir():
                process(source, folder / name)
            measure(folder / name)
    if (stamps := data / "decam_minis_sfft").is_dir():
        compare_stamps(stamps)
    for path in sorted((data / "lco_matched_catalogs").glob("*.fits.gz")):
        compare_catalog(path)


if __name__ == "__main__":
    main()
