#!/usr/bin/env python3
"""Fit the model that scores streaks, from artificial streaks put into the images of survey repositories.

Usage: train_streak_vetting.py SOURCE [SOURCE ...] [--images 12] [--streaks 12]

A source is a repository of processed nights, of which up to ``--images`` differenced exposures are taken, or two
calibrated images, SCIENCE.fits,REFERENCE.fits. Artificial streaks are put
into the science image (length, angle, brightness, width and flicker drawn at random, total signal to noise from 6 to
200), the reference is subtracted anew, and streaks are searched for. Found artificial streaks are the real examples;
all others, of both signs, are the false ones, but for those that look like perfect lines, which may be on the sky.
Half of the images fit the weights, the other half judge them; what is printed goes into
`gueststar.algorithms.streaks.vet`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.features import NAMES, StreakFeatures
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.streaks.vet import TERMS, fit_model, score, terms_of
from gueststar.core.errors import DataError
from gueststar.formats.calibrated_image import read_calibrated_image
from gueststar.model.catalog import Catalog
from gueststar.model.image import CalibratedImage
from gueststar.pipelines.difference.detect import DetectionContext
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.streaks import FindStreaks, Streaks
from gueststar.pipelines.difference.subtract import DifferenceResult, MakeDifference
from gueststar.pipelines.injection.streaks import ArtificialStreaksConfig, put_streaks
from gueststar.store.ledger import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

CONTEXT = DetectionContext(1, 0, 0, 60000.0, 60000.0 + 15.0 / 86400.0, 2, 1)


def pairs_of(source: str, n_images: int) -> Iterator[tuple[CalibratedImage, CalibratedImage]]:
    """Yield science images of a source with the references they are to be compared with."""
    if "," in source:
        science_path, reference_path = source.split(",")
        yield read_calibrated_image(Path(science_path)), read_calibrated_image(Path(reference_path))
        return
    with SurveyRepo.open(Path(source)) as survey:
        jobs = survey.ledger.jobs(kind="difference", state=JobState.DONE)
        step = max(1, len(jobs) // n_images)
        for job in jobs[::step][:n_images]:
            row = survey.ledger.exposure(job.exposure_id or 0)
            science = survey.find_one("science_image", DataId(visit=job.exposure_id, detector=job.detector))
            if row is None or science is None:
                continue
            place = DataId(field=row.info.field, detector=job.detector, band=row.info.band)
            reference = survey.find_one("reference_image", place)
            if reference is not None:
                yield read_calibrated_image(science.path), read_calibrated_image(reference.path)


def segment_of(rows: Catalog, k: int) -> Segment:
    return Segment(*(float(rows[name][k]) for name in ("x_1", "y_1", "x_2", "y_2")))


def find(science: CalibratedImage, reference: CalibratedImage) -> tuple[DifferenceResult, Streaks]:
    """Subtract a reference that is on the science image's pixels, and search for streaks."""
    result = MakeDifference().run(science, reference)
    return result, FindStreaks().run(result, science, reference, context=CONTEXT)


class Examples(NamedTuple):
    """Streaks found in one image."""

    features: list[StreakFeatures]
    is_real: list[bool]
    n_put: int
    n_found: int


def examples_of(
    science: CalibratedImage, reference: CalibratedImage, n_streaks: int, random: np.random.Generator
) -> Examples:
    """Return the streaks found in one image after artificial ones were put in."""
    changed, put = put_streaks(science, random, config=ArtificialStreaksConfig(n=n_streaks, snr=(6.0, 200.0)))
    rows = find(changed, reference)[1].catalog
    fwhm = science.psf.central_fwhm
    features, is_real, hit = [], [], set()
    for k in range(rows.n_rows):
        if rows["is_masked_trail"][k]:
            continue
        found = StreakFeatures(*(float(rows[name][k]) for name in NAMES))
        own = [i for i, one in enumerate(put) if one.is_matched_by(segment_of(rows, k), fwhm=fwhm)]
        if rows["is_positive"][k] and own:
            hit.update(own)
        elif rows["is_positive"][k] and is_perfect(found):
            continue
        features.append(found)
        is_real.append(bool(rows["is_positive"][k] and own))
    return Examples(features, is_real, len(put), len(hit))


def is_perfect(features: StreakFeatures) -> bool:
    """Return whether a streak looks so much like a line that it may be one on the sky."""
    f = features
    is_line = f.snr > 15.0 and f.evenness > 0.85 and f.flux_scatter < 0.15 and f.residual < 0.3
    return is_line and f.length_fwhm > 6.0


def judge(name: str, examples: list[Examples], scores: list[NDArray[np.float64]]) -> None:
    """Print what a threshold of one half keeps."""
    real = np.concatenate([np.array(e.is_real, bool) for e in examples])
    values = np.concatenate(scores)
    kept = values > 0.5
    print(
        f"{name}: {real.sum()} real, {np.mean(kept[real]):.3f} kept; {(~real).sum()} false in {len(examples)} images, "
        f"{kept[~real].sum()} kept: {kept[~real].sum() / max(kept.sum(), 1):.4f} of all that is kept"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--streaks", type=int, default=12)
    parser.add_argument("--version", default="streak-1")
    options = parser.parse_args()
    random = np.random.default_rng(1)
    halves: tuple[list[Examples], list[Examples]] = ([], [])
    for source in options.source:
        for number, (science, reference) in enumerate(pairs_of(source, options.images)):
            try:
                warped = WarpReference().run(science, reference)
                found = examples_of(science, warped, options.streaks, random)
            except DataError as problem:
                print(f"{Path(source).name}, image {number}: {problem}")
                continue
            halves[(len(halves[0]) + len(halves[1])) % 2].append(found)
            print(f"{Path(source).name}, image {number}: {found.n_found} of {found.n_put} found", flush=True)
    terms = [[terms_of(f)[name] for name in TERMS] for e in halves[0] for f in e.features]
    labels = [value for e in halves[0] for value in e.is_real]
    model = fit_model(terms, labels, version=options.version)
    print(model)
    for name, half in zip(("fitted on", "judged on"), halves, strict=True):
        judge(name, half, [np.array([score(f, model) for f in e.features]) for e in half])


if __name__ == "__main__":
    main()
