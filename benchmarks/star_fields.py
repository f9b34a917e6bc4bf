"""PSFs and catalogs over the range of seeing and crowding, on star fields from `gueststar.simulation`.

Run ``python benchmarks/star_fields.py [--side 1024] [--seed 1]``. Each field has optics of its own (aberrations,
aureole), a sky of 500 electrons, read noise of 8 and one of: undersampled, good, poor and very bad seeing; a crowded
field, a very crowded one, and ten stars. Times are seconds of CPU of the second of two runs; floors are what photon,
sky and read noise leave of an isolated star, with the PSF used.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from catalogs import Truth, floor_of, report, report_psf, timed
from gueststar.cameras.load import load_camera
from gueststar.core.bits import MaskPlane
from gueststar.model.image import MaskedImage
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.catalogs import MakeCatalogs
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.simulation.optics import aberrations_of, make_optics
from gueststar.simulation.point_spread import PsfState, air_fwhm, make_psf_field
from gueststar.simulation.rendering import add_sources_in_place, points
from gueststar.simulation.scenario import OpticsPlan

SKY, READ_NOISE, FULL_WELL = 500.0, 8.0, 150_000.0


class Field(NamedTuple):
    """One simulated field: seeing (pixels) and stars per square arcmin at one arcsec per pixel."""

    name: str
    fwhm: float
    stars_per_arcmin2: float
    faintest: float = 22.5


FIELDS = (
    Field("undersampled", 1.3, 4.0),
    Field("good seeing", 2.0, 4.0),
    Field("poor seeing", 4.0, 4.0),
    Field("very bad seeing", 8.0, 2.0),
    Field("crowded", 2.2, 20.0),
    Field("very crowded", 2.2, 50.0),
)


def simulate(field: Field, *, side: int, seed: int, n_stars: int) -> tuple[MaskedImage, Truth]:
    """Return a noisy star field, sky subtracted, and what is in it; counts rise by 10**0.3 per magnitude."""
    random = np.random.default_rng(seed)
    camera, plan = load_camera("simcam"), OpticsPlan(aberration_arcsec=0.25 * field.fwhm)
    optics, detector = make_optics(camera, plan, seed=seed), camera.detectors[0]
    aberrations = aberrations_of(plan, seed=seed, exposure=1, focus_drift=0.3)
    state = PsfState(field.fwhm * camera.pixel_scale_arcsec, (0.0, 0.0, 0.0), aberrations)
    psf = make_psf_field(camera, optics, detector, state, air_fwhm_arcsec=air_fwhm(camera, optics, state))
    x, y = random.uniform(0, side, (2, n_stars))
    magnitude = field.faintest + np.log10(random.uniform(10 ** (0.3 * (13.5 - field.faintest)), 1.0, n_stars)) / 0.3
    flux = 10 ** (-0.4 * (magnitude - 27.5))
    image = np.zeros((side, side), np.float32)
    add_sources_in_place(image, points(x, y, flux), psf, noise=np.sqrt(SKY))
    data = random.poisson(np.maximum(image + SKY, 0)) + random.normal(0, READ_NOISE, image.shape)
    mask = np.where(data > FULL_WELL, int(MaskPlane.SATURATED), 0)
    variance = np.maximum(data, SKY) + READ_NOISE**2
    pixels = MaskedImage(np.minimum(data, FULL_WELL), variance, mask)
    peak = flux * psf.profile[0] > 0.8 * FULL_WELL
    truth = Truth(x, y, flux, magnitude, np.ones(n_stars, bool), peak, np.full((1, 2), -99.0))
    return SubtractBackground().run(pixels).pixels, truth


def run(field: Field, *, side: int, seed: int, n_stars: int) -> None:
    pixels, truth = simulate(field, side=side, seed=seed, n_stars=n_stars)
    print(f"{field.name}: FWHM {field.fwhm} pixels, {n_stars} stars on {side} x {side} pixels")
    measured, seconds = timed(lambda: MeasurePsf().run(pixels, expected_fwhm=2.5))
    report_psf(measured.metrics, seconds)
    catalogs, seconds = timed(lambda: MakeCatalogs().run(pixels, measured.psf))
    m = catalogs.metrics
    print(f"  catalogs {seconds:.2f} s: by pass {m['n_by_pass']}, model error {m['model_error']:.4f},", end=" ")
    print(f"floor of fluxes {m['flux_floor']:.4f}, of positions {m['position_floor_pixels']:.4f} pixels")
    source = catalogs.psf
    errors = tuple(source[name].astype(float) for name in ("flux_err", "x_err", "y_err"))
    floor = floor_of(measured.psf, pixels)
    report(
        "PSF fits", truth, source["x"], source["y"], source["flux"], errors, floor,
        match=max(1.5, 0.5 * field.fwhm), neighbour=2.7 * field.fwhm, plate_order=1,
        bins=(14.0, 16.0, 18.0, 19.0, 20.0, 21.0),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    area = chosen.side**2 / 3600.0
    for number, field in enumerate(FIELDS):
        n_stars = round(field.stars_per_arcmin2 * area)
        run(field, side=chosen.side, seed=chosen.seed + number, n_stars=n_stars)
    run(Field("ten stars", 2.5, 0.0, 18.0), side=chosen.side, seed=chosen.seed, n_stars=10)


if __name__ == "__main__":
    main()
