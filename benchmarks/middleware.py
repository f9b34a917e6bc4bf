"""What the middleware costs, in seconds of CPU per detector image.

Run: python benchmarks/middleware.py [--detectors 64] [--exposures 5]
Products are empty, so that only registry and ledger are measured; the last lines are full-size images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gueststar.formats.calibrated_image import read_calibrated_image, write_calibrated_image
from gueststar.model.camera import Amplifier, Camera, Detector, Filter, FocalPlanePosition, Site
from gueststar.model.catalog import Catalog
from gueststar.model.columns import APERTURE, DIA_SOURCE, FORCED_SOURCE, SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.header import HeaderMapping, TimeMapping
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.rights import Program
from gueststar.model.wcs import Wcs
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

PRODUCTS: dict[str, Catalog | dict[str, float]] = {
    "science_metrics": {"seeing": 2.0},
    "difference_metrics": {"seeing": 2.0},
    "source": SOURCE.empty(),
    "aperture_source": APERTURE.empty(),
    "dia_source": DIA_SOURCE.empty(),
    "forced_source": FORCED_SOURCE.empty(),
}


def camera_of(n_detectors: int) -> Camera:
    section = "[1:32,1:32]"
    amplifier = Amplifier(
        name="A", data_section=section, detector_section=section, gain=1.0, read_noise=5.0, saturation=6e4
    )
    detectors = [
        Detector(
            id=number, name=f"D{number}", ccd=number // 4 + 1, quadrant=number % 4 + 1, shape=(32, 32),
            focal_plane=FocalPlanePosition(x_arcsec=(number % 8) * 3600.0, y_arcsec=(number // 8) * 3600.0),
            amplifiers=(amplifier,),
        )
        for number in range(n_detectors)
    ]  # fmt: skip
    return Camera(
        name="benchcam", site=Site(name="hill", latitude_deg=33.0, longitude_deg=-116.9), pixel_scale_arcsec=100.0,
        filters=(Filter(physical_filter="g", band="g", fid=1),), detectors=tuple(detectors),
        header=HeaderMapping(time=TimeMapping(keywords=("DATE-OBS",))),
    )  # fmt: skip


@contextmanager
def cpu(what: str, per: int) -> Iterator[None]:
    begin = time.process_time()
    yield
    print(f"{what:52} {(time.process_time() - begin) / per:9.5f}")


def measure_registry(repo: SurveyRepo, *, n_detectors: int, n_exposures: int) -> None:
    for number in range(n_exposures):
        info = ExposureInfo(
            "benchcam", "science", 60000.25 + number * 0.001, 30.0, 20230224, Program.PUBLIC, "g", "g", 150.0, 20.0
        )
        which = [DataId(visit=info.exposure_id, detector=d) for d in range(n_detectors)]
        print(f"exposure {number}, seconds of CPU per detector image")
        with cpu("  records of exposure, visit, footprints", n_detectors):
            repo.add_exposure(info, range(n_detectors))
        with cpu("  jobs: submit, start, finish", n_detectors):
            for d in range(n_detectors):
                job = repo.ledger.submit("detector", {"visit": info.exposure_id, "detector": d})
                repo.ledger.start(job)
                repo.ledger.finish(job, {"seeing": 2.0})
        with cpu(f"  staging {len(PRODUCTS)} empty products", n_detectors):
            staged = [repo.stage(name, one, value) for one in which for name, value in PRODUCTS.items()]
        with cpu(f"  committing {len(PRODUCTS)} products", n_detectors):
            repo.commit(staged)
        with cpu(f"  committing {len(PRODUCTS)} products again", n_detectors):
            repo.commit(staged)
        with cpu("  finding one product", n_detectors):
            for one in which:
                repo.find_one("source", one)
    new = [repo.stage("science_metrics", one, {"seeing": 3.0}) for one in which]
    with cpu("committing a new version of one product", n_detectors):
        repo.commit(new)
    with cpu("listing a night of one product", n_detectors * n_exposures):
        repo.find("science_metrics", day_obs=20230224)


def measure_image(folder: Path) -> None:
    shape, rng = (3080, 3072), np.random.default_rng(1)
    variance = np.full(shape, 144.0, np.float32)
    pixels = MaskedImage(rng.normal(0, 12, shape).astype(np.float32), variance, np.zeros(shape, np.int32))
    stamp = np.zeros((6, 25, 25), np.float32)
    stamp[0, 12, 12] = 1.0
    wcs = Wcs.tangent(ra=150.0, dec=20.0, x=1500.0, y=1500.0, scale_arcsec=1.0)
    image = CalibratedImage(pixels, wcs, Psf(stamp, 2, shape), PhotoCal(26.0, 0.01))
    for _ in range(2):
        with cpu("writing a 3080 x 3072 image with variance and mask", 1):
            write_calibrated_image(folder / "image.fits", image)
        with cpu("reading it", 1):
            read_calibrated_image(folder / "image.fits")
    print(f"{'its size, MB':52} {(folder / 'image.fits').stat().st_size / 1e6:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detectors", type=int, default=64)
    parser.add_argument("--exposures", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with SurveyRepo.create(Path(folder) / "survey", camera_of(options.detectors)) as repo:
            measure_registry(repo, n_detectors=options.detectors, n_exposures=options.exposures)
        measure_image(Path(folder))


if __name__ == "__main__":
    main()
