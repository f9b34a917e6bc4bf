"""Artefacts that a reference image keeps, and good pixels that it loses: ours beside a mean, a median, clipping, SWarp.

    python benchmarks/references.py [--side 768] [--epochs 8] [--seeds 1 2 3]

Star fields of our own simulation (`star_fields.py`) in seeing that changes from epoch to epoch, dithered and
turned, with what spoils co-adds put in, each epoch with and without it in the same noise: trails of satellites from a
third of the noise of a pixel upwards, asteroids that move on, ghosts, cosmic rays that nothing has marked, and patches
of wrong sky. The weighted mean of the clean epochs is what every method should give. *Light left* is the sum of the
difference from it where artefacts lie over the same for the mean; *pixels left* are those off by more than four sigma
of the co-add; *depth* is the noise of the empty sky over that of the clean mean, in magnitudes; *stars* is the flux
(within one FWHM) of the stars relative to the clean mean's, median and worst, by brightness, saturated ones left out.
SWarp's CLIPPED (Gruen et al. 2014) is compared with its own weighted mean of the clean epochs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from gueststar.algorithms.warp.artefacts import ArtefactConfig
from gueststar.algorithms.warp.coadd import CoaddConfig
from gueststar.cameras.load import load_camera
from gueststar.core.bits import MaskPlane
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference, MakeReferenceConfig
from gueststar.pipelines.science.psf import MeasurePsf
from gueststar.simulation.cosmic_rays import add_cosmic_rays_in_place
from gueststar.simulation.optics import aberrations_of, make_optics
from gueststar.simulation.point_spread import PsfField, PsfState, air_fwhm, make_psf_field
from gueststar.simulation.rendering import Sources, add_sources_in_place, points
from gueststar.simulation.scenario import OpticsPlan

SKY, READ_NOISE, FULL_WELL, ZERO_POINT = 500.0, 8.0, 150_000.0, 27.5
NOISE = float(np.hypot(np.sqrt(SKY), READ_NOISE))
RA, DEC = 150.0, 20.0
Image = NDArray[np.float32]


class Field(NamedTuple):
    """One simulated field."""

    name: str
    seeing: tuple[float, float]
    """Range of the epochs' FWHM, pixels."""
    stars_per_arcmin2: float


FIELDS = (
    Field("good seeing", (2.0, 3.0), 4.0),
    Field("undersampled", (1.4, 2.0), 4.0),
    Field("crowded", (2.2, 3.4), 25.0),
)


class SimulatedEpoch(NamedTuple):
    clean: CalibratedImage
    spoilt: CalibratedImage
    """The same noise, and artefacts."""
    light: Image
    """Of the artefacts, electrons, on the epoch's own pixels."""


class Sky(NamedTuple):
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    flux: NDArray[np.float64]


def make_sky(field: Field, *, side: int, random: np.random.Generator) -> Sky:
    """Draw stars that rise in number by 10**0.3 a magnitude, over a little more than the image."""
    n = round(field.stars_per_arcmin2 * (1.2 * side) ** 2 / 3600.0)
    half = 0.6 * side / 3600.0
    magnitude = 22.5 + np.log10(random.uniform(10 ** (0.3 * (13.5 - 22.5)), 1.0, n)) / 0.3
    magnitude[:30] = random.uniform(13.5, 16.5, 30)  # more bright ones than nature has: clipping must spare their cores
    ra = RA + random.uniform(-half, half, n) / np.cos(np.radians(DEC))
    return Sky(ra, DEC + random.uniform(-half, half, n), 10 ** (-0.4 * (magnitude - ZERO_POINT)))


def psf_of(fwhm: float, *, exposure: int, seed: int) -> PsfField:
    camera, plan = load_camera("simcam"), OpticsPlan(aberration_arcsec=0.2 * fwhm)
    optics, detector = make_optics(camera, plan, seed=seed), camera.detectors[0]
    aberrations = aberrations_of(plan, seed=seed, exposure=exposure, focus_drift=0.3)
    guiding = (0.02 * fwhm**2, 0.01 * fwhm**2, 0.02 * fwhm**2)
    state = PsfState(fwhm * camera.pixel_scale_arcsec, guiding, aberrations)
    return make_psf_field(camera, optics, detector, state, air_fwhm_arcsec=air_fwhm(camera, optics, state))


def artefact_light(
    k: int, psf: PsfField, *, side: int, asteroids: NDArray[np.float64], random: np.random.Generator
) -> Image:
    """Return the light of the artefacts of epoch ``k``."""
    light = np.zeros((side, side), np.float32)
    x, y, flux, trail = [], [], [], []
    if k % 2 == 0:  # satellites: the light of a pixel's length of trail spreads over about a FWHM
        angle, level = random.uniform(0, np.pi), NOISE * 10 ** random.uniform(-0.5, 1.0)
        for step in np.arange(-0.8 * side, 0.8 * side, 20.0):
            x.append(side * 0.5 + step * np.cos(angle) + 0.2 * side * np.sin(3.0 * k))
            y.append(side * 0.5 + step * np.sin(angle))
            flux.append(level * 20.0 * 2.5)
            trail.append((20.0 * np.cos(angle), 20.0 * np.sin(angle)))
    for x0, y0, vx, vy, brightness in asteroids:
        x.append(x0 + vx * k)
        y.append(y0 + vy * k)
        flux.append(brightness)
        trail.append((0.1 * vx, 0.1 * vy))
    n = len(x)
    sources = Sources(
        np.array(x), np.array(y), np.array(flux), np.zeros((n, 3)), np.zeros(n), np.ones(n), np.array(trail)
    )
    add_sources_in_place(light, sources, psf, noise=NOISE)
    yy, xx = np.mgrid[:side, :side]
    if k % 4 == 1:  # a ghost: a disc with a hole
        radius = np.hypot(xx - random.uniform(0, side), yy - random.uniform(0, side))
        light += (
            NOISE * random.uniform(0.6, 1.5) * gaussian_filter(((radius < 60) & (radius > 20)).astype(np.float32), 2)
        )
    if k % 4 == 3:  # a patch of wrong sky
        px, py = random.uniform(0, side, 2)
        light += (
            random.choice([-1.0, 1.0]) * NOISE * 0.8 * np.exp(-0.5 * (((xx - px) / 60) ** 2 + ((yy - py) / 40) ** 2))
        ).astype(np.float32)
    rays = np.zeros_like(light)
    add_cosmic_rays_in_place(rays, random, per_mpix_s=0.7, seconds=30.0)
    return light + rays


def simulate(field: Field, *, side: int, n: int, seed: int, turn_deg: float = 0.2) -> tuple[list[SimulatedEpoch], Sky]:
    """Return epochs of one sky, the sharpest first."""
    random = np.random.default_rng(seed)
    sky = make_sky(field, side=side, random=random)
    asteroids = np.column_stack([
        random.uniform(0, side, (12, 2)), random.normal(0, 14, (12, 2)),
        NOISE * 2.1 * field.seeing[0] * 10 ** random.uniform(0.8, 2.5, 12),
    ])  # fmt: skip
    epochs = []
    for k, fwhm in enumerate(np.sort(random.uniform(*field.seeing, n))):
        psf = psf_of(float(fwhm), exposure=k, seed=seed)
        dither = random.uniform(-12, 12, 2)
        wcs = Wcs.tangent(
            ra=RA, dec=DEC, x=(side - 1) / 2 + dither[0], y=(side - 1) / 2 + dither[1], scale_arcsec=1.0,
            rotation_deg=random.normal(0, turn_deg),
        )  # fmt: skip
        x, y = wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
        truth = np.zeros((side, side), np.float32)
        add_sources_in_place(truth, points(x, y, sky.flux), psf, noise=NOISE)
        light = artefact_light(k, psf, side=side, asteroids=asteroids, random=random)
        data = (random.poisson(np.maximum(truth + SKY, 0)) + random.normal(0, READ_NOISE, truth.shape)).astype(
            np.float32
        )
        added = light + np.sqrt(np.abs(light)) * random.normal(0, 1, light.shape).astype(np.float32)
        epochs.append(SimulatedEpoch(*_images(data, added.astype(np.float32), wcs), light))
    return epochs, sky


def _images(data: Image, added: Image, wcs: Wcs) -> tuple[CalibratedImage, CalibratedImage]:
    mask = np.where(data > FULL_WELL, int(MaskPlane.SATURATED), 0).astype(np.int32)
    variance = np.maximum(data, SKY) + READ_NOISE**2
    clean = MaskedImage(np.minimum(data, FULL_WELL) - SKY, variance, mask)
    psf = MeasurePsf().run(clean, expected_fwhm=2.5).psf
    spoilt = MaskedImage(
        np.minimum(data + added, FULL_WELL) - SKY, variance + np.abs(added),
        np.where(data + added > FULL_WELL, int(MaskPlane.SATURATED), 0),
    )  # fmt: skip
    photocal = PhotoCal(ZERO_POINT, 0.01, band="r")
    return CalibratedImage(clean, wcs, psf, photocal), CalibratedImage(spoilt, wcs, psf, photocal)


def as_epochs(images: Sequence[CalibratedImage]) -> list[Epoch]:
    return [Epoch(f"e{k}", 60000.0 + k, lambda image=image: image) for k, image in enumerate(images)]


def grid_of(side: int) -> tuple[Wcs, tuple[int, int]]:
    size = side + 20
    return Wcs.tangent(ra=RA, dec=DEC, x=(size - 1) / 2, y=(size - 1) / 2, scale_arcsec=1.0), (size, size)


KEEP_ALL = MakeReferenceConfig(coadd=CoaddConfig(ArtefactConfig(n_sigma=1e9, do_find_trails=False, patch=0)))


def ours(images: Sequence[CalibratedImage], side: int) -> CalibratedImage:
    return MakeReference().run(as_epochs(images), grid=grid_of(side))


def mean(images: Sequence[CalibratedImage], side: int) -> CalibratedImage:
    return MakeReference(KEEP_ALL).run(as_epochs(images), grid=grid_of(side))


def _combined(
    combine: Callable[[NDArray[np.float32]], Image],
) -> Callable[[Sequence[CalibratedImage], int], CalibratedImage]:
    """Return a method that combines the very pixels that ours combines."""

    def method(images: Sequence[CalibratedImage], side: int) -> CalibratedImage:
        singles = [MakeReference(KEEP_ALL).run(as_epochs([image]), grid=grid_of(side)) for image in images]
        stack = np.stack([s.pixels.image for s in singles])
        stack[np.stack([~s.pixels.is_usable() for s in singles])] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # pixels that no epoch covers
            made = np.nan_to_num(combine(stack)).astype(np.float32)
        return replace(singles[0], pixels=MaskedImage(made, singles[0].pixels.variance, singles[0].pixels.mask))

    return method


def _clipped(stack: NDArray[np.float32], n_sigma: float = 3.0) -> Image:
    """Return the mean of what lies within three sigma of the median, sigma from the median deviation, three times."""
    kept = stack.copy()
    for _ in range(3):
        middle = np.nanmedian(kept, axis=0)
        sigma = 1.4826 * np.nanmedian(np.abs(kept - middle), axis=0)
        kept[np.abs(kept - middle) > n_sigma * np.maximum(sigma, 1e-3)] = np.nan
    return np.nanmean(kept, axis=0)


def swarp(images: Sequence[CalibratedImage], side: int, *, how: str = "CLIPPED") -> CalibratedImage:
    """Run SWarp in a folder of its own."""
    wcs, shape = grid_of(side)
    with tempfile.TemporaryDirectory() as name:
        folder, files = Path(name), []
        for k, image in enumerate(images):
            header = fits.Header(image.wcs.to_header())
            files.append(f"e{k}.fits")
            fits.writeto(folder / files[-1], image.pixels.image, header)
            weight = np.where(image.pixels.is_usable(), 1.0 / image.pixels.variance, 0.0).astype(np.float32)
            flat = np.where(weight > 0, np.float32(1.0 / NOISE**2), 0).astype(np.float32)
            fits.writeto(folder / f"e{k}.weight.fits", flat, header)
        target = fits.Header(wcs.to_header())
        target["NAXIS"], target["NAXIS1"], target["NAXIS2"] = 2, shape[1], shape[0]
        (folder / "co.head").write_text(target.tostring(sep="\n") + "\nEND\n")
        subprocess.run(
            ["SWarp", *files, "-IMAGEOUT_NAME", "co.fits", "-COMBINE_TYPE", how, "-WEIGHT_TYPE", "MAP_WEIGHT",
             "-WEIGHT_SUFFIX", ".weight.fits", "-SUBTRACT_BACK", "N", "-RESAMPLING_TYPE", "LANCZOS3",
             "-FSCALASTRO_TYPE", "VARIABLE", "-NTHREADS", "1", "-WRITE_XML", "N", "-GAIN_DEFAULT", "1.0",
             "-VERBOSE_TYPE", "QUIET",
             "-CLIP_SIGMA", "4.0", "-CLIP_AMPFRAC", "0.3"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        made = fits.getdata(folder / "co.fits").astype(np.float32)
    pixels = MaskedImage(made, np.full(made.shape, NOISE**2 / len(images)), np.zeros(made.shape, np.int32))
    return CalibratedImage(pixels, wcs, images[0].psf, images[0].photocal)


METHODS: dict[str, Callable[[Sequence[CalibratedImage], int], CalibratedImage]] = {
    "ours": ours,
    "mean": mean,
    "median": _combined(lambda stack: np.nanmedian(stack, axis=0)),
    "3-sigma clipped": _combined(_clipped),
}


def compare(field: Field, *, side: int, n: int, seed: int) -> None:
    epochs, sky = simulate(field, side=side, n=n, seed=seed)
    clean, spoilt = [e.clean for e in epochs], [e.spoilt for e in epochs]
    print(
        f"{field.name}, seed {seed}: {n} epochs of {side} x {side} pixels, FWHM {field.seeing[0]} to {field.seeing[1]}"
    )
    methods = dict(METHODS)
    if shutil.which("SWarp"):
        methods["SWarp CLIPPED"] = swarp
    ideal = mean(clean, side)
    noisy = [image.pixels.image - other.pixels.image for image, other in zip(spoilt, clean, strict=True)]
    bare = [
        replace(c, pixels=MaskedImage(a, c.pixels.variance, c.pixels.mask)) for c, a in zip(clean, noisy, strict=True)
    ]
    light = mean(bare, side).pixels.image
    wanted = ideal
    for name, method in methods.items():
        start = time.process_time()
        made = method(spoilt, side)
        seconds = time.process_time() - start
        of_clean = method(clean, side)
        if name.startswith("SWarp"):
            wanted = swarp(clean, side, how="WEIGHTED")
        report(name, made, of_clean, wanted, ideal, light, sky, float(np.mean(field.seeing)), n, seconds)


def report(
    name: str, made: CalibratedImage, of_clean: CalibratedImage, wanted: CalibratedImage, ideal: CalibratedImage,
    light: Image, sky: Sky, fwhm: float, n: int, seconds: float,
) -> None:  # fmt: skip
    assert ideal.coverage is not None
    sigma = np.sqrt(np.maximum(ideal.pixels.variance, 1e-3))
    whole = (
        (ideal.coverage == ideal.coverage.max())
        & ideal.pixels.is_usable()
        & (ideal.pixels.mask & int(MaskPlane.SUSPECT) == 0)
    )
    off = made.pixels.image - wanted.pixels.image
    spoilt = whole & (np.abs(light) > 0.3 * sigma)
    near = binary_dilation(spoilt, iterations=2)
    left = float(
        np.abs(gaussian_filter(np.where(spoilt, off, 0), 1.0)[spoilt]).sum()
        / np.abs(gaussian_filter(np.where(spoilt, light, 0), 1.0)[spoilt]).sum()
    )
    n_left = int((np.abs(off) > 4 * sigma)[whole & near].sum())
    n_spoilt = int((np.abs(light) > 4 * sigma)[whole].sum())
    blank = whole & ~near & (gaussian_filter(ideal.pixels.image, 1.5) < 1.0 * sigma)
    depth = -2.5 * np.log10(made.pixels.image[blank].std() / wanted.pixels.image[blank].std())
    print(f"  {name:16s} light left {left:6.3f}  pixels left {n_left:5d} of {n_spoilt}  depth {depth:+.3f} mag", end="")
    if made.coverage is not None and name == "ours":
        lost = 1.0 - of_clean.coverage[whole].sum() / (whole.sum() * n)
        far = whole & ~near
        print(f"  lost: clean {lost:.1e}, beside {1.0 - made.coverage[far].sum() / (far.sum() * n):.1e}", end="")
    print(f"  {seconds:.2f} s")
    x, y = wanted.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    texts = []
    for low, high, label in ((3e5, 1e9, "bright"), (2e4, 3e5, "middle"), (2e3, 2e4, "faint")):
        chosen = [k for k in np.flatnonzero((sky.flux > low) & (sky.flux < high)) if _is_whole(whole, x[k], y[k], fwhm)]
        if len(chosen) > 3:
            flux = [[_aperture(i.pixels.image, x[k], y[k], fwhm) for k in chosen] for i in (of_clean, wanted)]
            change = np.array(flux[0]) / np.array(flux[1]) - 1.0
            texts.append(
                f"{label} {np.median(change):+.4f} worst {change[np.argmax(np.abs(change))]:+.3f} ({len(chosen)})"
            )
    print("      stars of clean epochs: " + ", ".join(texts))


def _is_whole(whole: NDArray[np.bool_], x: float, y: float, fwhm: float) -> bool:
    x0, y0, r = round(x), round(y), int(fwhm + 1)
    inside = r <= x0 < whole.shape[1] - r and r <= y0 < whole.shape[0] - r
    return bool(inside and whole[y0 - r : y0 + r + 1, x0 - r : x0 + r + 1].all())


def _aperture(image: Image, x: float, y: float, fwhm: float) -> float:
    r = int(fwhm + 1)
    yy, xx = np.mgrid[round(y) - r : round(y) + r + 1, round(x) - r : round(x) + r + 1]
    return float(image[yy, xx][np.hypot(xx - x, yy - y) < fwhm].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        for field in FIELDS:
            compare(field, side=chosen.side, n=chosen.epochs, seed=seed)


if __name__ == "__main__":
    main()
