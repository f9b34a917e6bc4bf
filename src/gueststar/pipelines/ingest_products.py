"""Taking in a user's own products: calibrated images, difference images, source catalogs.

They enter where the pipeline would have put its own, so everything downstream works on them. The facts of
the exposure come from the metadata of gueststar's own files, else from the header cards that the camera's
raw files carry too.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.cameras.translate import translate
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.calibrated_image import is_calibrated_image, read_calibrated_image
from gueststar.formats.foreign_catalog import read_foreign_catalog
from gueststar.formats.foreign_image import ForeignImage, read_foreign_image
from gueststar.formats.raw import RawExtension, RawFile, read_headers
from gueststar.model.camera import Amplifier, Camera, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.ingest import IngestSummary, OnFile, Outcome, ingest_each, ingested_before, refuse
from gueststar.store.ledger_rows import FileStatus
from gueststar.store.product_files import digest_of
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

SKY_LIMIT = 1.0
"""A median above this many sigma of the noise means that the sky was not subtracted."""


@dataclass(frozen=True, eq=False)
class Completed:
    """A science image with what was measured on it."""

    image: CalibratedImage
    products: Mapping[str, Any]
    """Product -> value, of the same visit and detector."""
    metrics: Mapping[str, Any]
    """For the ledger."""


@dataclass(frozen=True)
class Measurers:
    """What is measured on an image whose file does not tell it; None: such a file is refused."""

    psf: Callable[[MaskedImage], Psf] | None = None
    sky: Callable[[MaskedImage], NDArray[np.float32]] | None = None
    """Background level of every pixel, electrons."""
    complete: Callable[[CalibratedImage, ExposureInfo, int], Completed] | None = None
    """Makes the catalogs and metrics of a science image (of an exposure and a detector), so that it can be
    worked on as one of the pipeline's own. None: the image alone is stored."""


@dataclass(frozen=True, eq=False)
class Understood:
    """What a file holds."""

    info: ExposureInfo
    detector: int
    value: Any
    notes: tuple[str, ...] = ()
    products: Mapping[str, Any] = field(default_factory=dict)
    """Further products, measured on it."""
    metrics: Mapping[str, Any] = field(default_factory=dict)


def ingest_products(
    repo: SurveyRepo,
    product: str,
    paths: Iterable[Path | str],
    *,
    detector: int | None = None,
    measure: Measurers = Measurers(),
    on_file: OnFile | None = None,
) -> IngestSummary:
    """Take in a user's files as ``science_image``, ``difference_image`` or ``source``.

    ``detector`` says which detector all of them are from, where their headers do not. A file that cannot
    be used is refused with a reason, and never stops the others.
    """
    if product not in ("science_image", "difference_image", "source"):
        raise ConfigError(f"{product} cannot be taken in; science_image, difference_image and source can")
    return ingest_each(
        paths, lambda path: _ingest_one(repo, product, path, detector=detector, measure=measure), on_file=on_file
    )


def _ingest_one(repo: SurveyRepo, product: str, path: Path, *, detector: int | None, measure: Measurers) -> Outcome:
    sha256 = ""
    try:
        if not path.is_file():
            raise DataError(f"{path} is not there")
        sha256 = digest_of(path)
        if (known := ingested_before(repo, sha256)) is not None:
            repo.ledger.record_file(str(path), sha256, FileStatus.ALREADY, exposure_id=known)
            return Outcome(FileStatus.ALREADY, exposure_id=known)
        found = _understand(repo, product, path, detector=detector, measure=measure)
    except DataError as problem:
        return refuse(repo, path, str(problem), sha256=sha256, transfer="direct")
    info = _store(repo, product, path, found)
    repo.ledger.record_file(str(path), sha256, FileStatus.INGESTED, exposure_id=info.exposure_id, day_obs=info.day_obs)
    return Outcome(FileStatus.INGESTED, exposure_id=info.exposure_id)


def _store(repo: SurveyRepo, product: str, path: Path, found: Understood) -> ExposureInfo:
    """Commit what a file holds and write down that it stands for the job that would have made it."""
    is_science = product == "science_image"
    info = repo.add_exposure(found.info, [found.detector], is_to_be_processed=is_science)
    which = DataId(visit=info.exposure_id, detector=found.detector)
    repo.commit([repo.stage(name, which, value) for name, value in {product: found.value, **found.products}.items()])
    for note in found.notes:
        repo.ledger.event("ingest_warning", path.name, note, exposure_id=info.exposure_id)
    place = {"exposure": info.exposure_id, "detector": found.detector}
    kind, key = ("science", place) if is_science else ("entry", {**place, "product": product})
    job = repo.ledger.submit(
        kind, key, exposure_id=info.exposure_id, detector=found.detector, day_obs=info.day_obs
    )  # fmt: skip
    if repo.ledger.start(job, worker="ingest"):
        repo.ledger.finish(job, found.metrics, inputs={product: str(path)})
    repo.ledger.settle_exposure(info.exposure_id)
    return info


def _understand(repo: SurveyRepo, product: str, path: Path, *, detector: int | None, measure: Measurers) -> Understood:
    """Return what a file holds; whatever fails is the file's fault."""
    try:
        if product == "source":
            return _catalog(repo, path, detector=detector)
        if is_calibrated_image(path):
            found = _own_image(path, detector=detector)
        else:
            found = _foreign_image(repo.camera, path, detector=detector, measure=measure)
        if measure.complete is None or product != "science_image":
            return found
        done = measure.complete(found.value, found.info, found.detector)
        return replace(found, value=done.image, products=done.products, metrics=done.metrics)
    except (DataError, ConfigError):
        raise
    except Exception as problem:
        repo.ledger.event("ingest_crash", path.name, traceback.format_exc())
        raise DataError(f"{path} cannot be understood: {type(problem).__name__}: {problem}") from problem


def _own_image(path: Path, *, detector: int | None) -> Understood:
    image = read_calibrated_image(path)
    facts, number = image.metadata.get("exposure"), image.metadata.get("detector", detector)
    if facts is None or number is None:
        raise DataError(f"{path}: its metadata do not tell the {'exposure' if facts is None else 'detector'}")
    return Understood(ExposureInfo.from_dict(facts), int(number), image)


def _foreign_image(camera: Camera, path: Path, *, detector: int | None, measure: Measurers) -> Understood:
    info, number = exposure_of(camera, read_headers(path), detector=detector)
    found = read_foreign_image(path, exposure_s=info.exposure_s, band=info.band or "")
    shape = camera.detector(number).shape
    if found.pixels.shape != shape:
        raise DataError(f"{path} is {found.pixels.shape} but detector {number} of {camera.name} is {shape}")
    pixels, sky, notes = _without_sky(path, found, measure)
    if measure.psf is None:
        raise DataError(f"{path} has no PSF; one must be measured on it (Measurers.psf)")
    metadata = {
        "exposure": info.to_dict(), "detector": number, "origin": path.name, "notes": list(notes),
        "sky_electrons": sky,
    }  # fmt: skip
    image = CalibratedImage(pixels, found.wcs, measure.psf(pixels), found.photocal, metadata)
    return Understood(info, number, image, notes)


def _without_sky(path: Path, found: ForeignImage, measure: Measurers) -> tuple[MaskedImage, float, tuple[str, ...]]:
    """Return pixels without sky, the level of the sky that was subtracted here, and notes."""
    pixels = found.pixels
    good = pixels.is_usable(MaskPlane.BAD | MaskPlane.NO_DATA | MaskPlane.SATURATED)
    level, noise = float(np.median(pixels.image[good])), float(np.sqrt(np.median(pixels.variance[good])))
    if abs(level) < SKY_LIMIT * noise:
        return pixels, 0.0, found.notes
    if measure.sky is None:
        raise DataError(f"{path} has a sky of {level:.1f} electrons; subtract it, or have it measured (Measurers.sky)")
    is_void = (pixels.mask & int(MaskPlane.NO_DATA)) != 0
    image = np.where(is_void, pixels.image, pixels.image - measure.sky(pixels)).astype(np.float32)
    return replace(pixels, image=image), level, (*found.notes, f"sky of {level:.1f} electrons subtracted")


def _catalog(repo: SurveyRepo, path: Path, *, detector: int | None) -> Understood:
    found = read_foreign_catalog(path)
    if found.visit is not None:
        row = repo.ledger.exposure(found.visit)
        if row is None:
            raise DataError(f"{path} is of exposure {found.visit}, which is not in the repository")
        info, number = row.info, found.detector if found.detector is not None else detector
        if number is None:
            raise DataError(f"{path} does not tell its detector")
    else:
        header = RawFile(path, found.header, (RawExtension(0, "", found.header, None),))
        info, number = exposure_of(repo.camera, header, detector=detector)
    return Understood(info, number, found.catalog(info.exposure_id, number), found.notes)


def exposure_of(camera: Camera, raw: RawFile, *, detector: int | None) -> tuple[ExposureInfo, int]:
    """Return the exposure and the detector of a processed file, whose cards are those of the camera's raw files.

    The pixels need not lie as in a raw file, so the amplifiers are left aside.
    """
    detectors = camera.detectors if detector is None else (camera.detector(detector),)
    changes: dict[str, Any] = {"is_wcs_trusted": False}
    if detector is not None:
        changes["detector_keyword"] = None
    mapping = camera.header.model_copy(update=changes)
    stated = {name: getattr(camera, name) for name in Camera.model_fields}
    whole = Camera(**{**stated, "header": mapping, "detectors": tuple(map(_one_amplifier, detectors))})
    largest = max(item.shape for item in camera.detectors)
    frame = RawExtension(0, "", raw.primary, largest)
    held = tuple(replace(item, index=0, name="", shape=largest) for item in raw.images[:1]) or (frame,)
    found = translate(whole, RawFile(raw.path, raw.primary, held))
    if len(found.detector_ids) != 1:
        raise DataError(f"{raw.path} does not tell which of {len(found.detector_ids)} detectors it is from")
    return found.info, found.detector_ids[0]


def _one_amplifier(detector: Detector) -> Detector:
    section = f"[1:{detector.shape[1]},1:{detector.shape[0]}]"
    amplifier = detector.amplifiers[0]
    whole = Amplifier(
        name="whole", data_section=section, detector_section=section, gain=amplifier.gain,
        read_noise=amplifier.read_noise, saturation=amplifier.saturation,
    )  # fmt: skip
    return detector.model_copy(update={"amplifiers": (whole,)})
