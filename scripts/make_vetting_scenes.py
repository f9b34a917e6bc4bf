#!/usr/bin/env python3
"""Render pairs of small images with transients and artefacts, difference them, and write labelled detections.

Usage: make_vetting_scenes.py OUT.parquet [--scenes 400] [--first 1] [--workers 1]

Each scene has seeing, sampling (1.3 to 5.5 pixels), depth, crowding, registration, flux-scale and PSF errors of its
own, errors of the PSF model that vary over the image among them, so that the model that is trained on them learns what
holds for any camera. Artefacts are what cameras make: cosmic rays and hot pixels, found and not found, of one pixel
and of many; bad columns; saturated and bleeding stars; ghosts that move against the stars; satellite trails; strips of
more noise than the variance says; references of few epochs, with rays left in them. Real are new and fading
point sources, in galaxies and alone, variable stars and short trails of asteroids. Detections are those of the
package's own difference pipeline; one is real when a thing that changed lies at its place with its sign. Of every
detection its class is written, and what the network sees of its cut-outs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, shift
from scipy.spatial import cKDTree

from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.labelled_detections import write_labelled
from gueststar.model.catalog import Catalog
from gueststar.model.columns import SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.labels import LABELLED_SOURCE, DetectionKind, LabelledDetections, joined
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.cutouts import Triplet, views_of
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.subtract import MakeDifference

SIDE = 420
MJD = 60000.0
"""Of all scenes; nothing that is learnt depends on it."""


@dataclass
class Scene:
    """What one scene is made of."""

    rng: np.random.Generator
    scale: float
    fwhm: float
    reference_fwhm: float
    sky: float
    reference_sky: float
    beta: float
    axis_ratio: float
    saturation: float
    zero_point: float
    fwhm_slope: tuple[float, float]
    """Relative change of the FWHM from one side to the other, along x and y, which the PSF model does not know."""
    causes: dict[DetectionKind, np.ndarray] = field(default_factory=dict)
    """Pixels that an artefact of a kind spoils."""

    def spoils(self, kind: DetectionKind, where: np.ndarray | tuple) -> None:
        """Take down that an artefact lies at ``where``: a mask, or an index."""
        self.causes.setdefault(kind, np.zeros((SIDE, SIDE), dtype=bool))[where] = True


def draw_scene(rng: np.random.Generator) -> Scene:
    fwhm = float(np.exp(rng.uniform(np.log(1.3), np.log(5.5))))
    sky = float(10 ** rng.uniform(1.3, 3.8))
    return Scene(
        rng, float(10 ** rng.uniform(-0.7, 0.6)), fwhm, fwhm * float(rng.uniform(0.75, 1.35)), sky,
        sky * float(rng.choice([0.03, 0.07, 0.2, 0.4])), float(rng.uniform(2.5, 5.0)), float(rng.uniform(0.85, 1.0)),
        float(10 ** rng.uniform(4.3, 5.3)), float(rng.uniform(23.0, 30.0)),
        tuple(rng.choice([0.0, 0.01, 0.03]) * rng.normal(0, 1, 2)),
    )  # fmt: skip


def moffat(side: int, *, fwhm: float, beta: float, axis_ratio: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Return a pixel-integrated (5 x 5 samples a pixel) Moffat profile that sums to one."""
    half, k = side // 2, 5
    fine = (np.arange(side * k) - (side * k - 1) / 2) / k
    x, y = np.meshgrid(fine - dx, (fine - dy) / axis_ratio)
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    profile = (1.0 + (x**2 + y**2) / alpha**2) ** -beta
    stamp = profile.reshape(side, k, side, k).sum(axis=(1, 3))
    assert half * 2 + 1 == side
    return stamp / stamp.sum()


def add_source(image: np.ndarray, scene: Scene, fwhm: float, x: float, y: float, flux: float) -> None:
    side = 2 * int(np.ceil(6 * fwhm)) + 1
    if flux > 3e5:
        side = 2 * int(np.ceil(14 * fwhm)) + 1
    half, ix, iy = side // 2, round(x), round(y)
    fwhm = fwhm * (1.0 + scene.fwhm_slope[0] * (x / SIDE - 0.5) + scene.fwhm_slope[1] * (y / SIDE - 0.5))
    stamp = moffat(side, fwhm=fwhm, beta=scene.beta, axis_ratio=scene.axis_ratio, dx=x - ix, dy=y - iy) * flux
    y0, y1, x0, x1 = max(iy - half, 0), min(iy + half + 1, SIDE), max(ix - half, 0), min(ix + half + 1, SIDE)
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += stamp[y0 - iy + half : y1 - iy + half, x0 - ix + half : x1 - ix + half]


def galaxy(
    rng: np.random.Generator, radius: float, ratio: float, theta: float, x: float, y: float, index: float
) -> np.ndarray:
    """Return an elliptical Sersic galaxy of unit flux, before the seeing."""
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE]
    u = (grid_x - x) * np.cos(theta) + (grid_y - y) * np.sin(theta)
    v = (-(grid_x - x) * np.sin(theta) + (grid_y - y) * np.cos(theta)) / ratio
    r = np.sqrt(u**2 + v**2 + 0.2)
    profile = np.exp(-1.9992 * index * ((r / radius) ** (1.0 / index) - 1.0))
    return profile / profile.sum()


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return noiseless science and reference images and what changed: x, y, flux (science minus reference)."""
    rng = scene.rng
    noise = np.sqrt(scene.sky) * scene.fwhm * 1.5
    science, reference = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    n_stars = int(rng.choice([20, 50, 120, 300]))
    flux = noise * 8 * rng.pareto(0.75, n_stars).clip(0.05, 4e4)
    x, y = rng.uniform(2, SIDE - 3, (2, n_stars))
    factor = np.ones(n_stars)
    variable = rng.random(n_stars) < 0.12
    factor[variable] = np.exp(rng.normal(0.0, 0.35, variable.sum()))
    for k in range(n_stars):
        add_source(science, scene, scene.fwhm, x[k], y[k], flux[k] * factor[k])
        add_source(reference, scene, scene.reference_fwhm, x[k], y[k], flux[k])
    hosts = []
    blur = np.zeros((SIDE, SIDE))
    for _ in range(int(rng.integers(3, 14))):
        gx, gy = rng.uniform(10, SIDE - 11, 2)
        radius = scene.fwhm * rng.uniform(0.4, 3.0)
        light = noise * 10 ** rng.uniform(0.8, 2.6)
        blur += light * galaxy(
            rng, radius, rng.uniform(0.3, 1.0), rng.uniform(0, np.pi), gx, gy, rng.choice([1.0, 2.5])
        )
        hosts.append((gx, gy, radius))
    science += gaussian_filter(blur, scene.fwhm / 2.3548)
    reference += gaussian_filter(blur, scene.reference_fwhm / 2.3548)
    new_x, new_y, new_flux, new_kind = [], [], [], []
    for _ in range(int(rng.integers(12, 30))):
        kind = DetectionKind.TRANSIENT
        if rng.random() < 0.4:
            gx, gy, radius = hosts[rng.integers(len(hosts))]
            px, py = gx + rng.normal(0, radius), gy + rng.normal(0, radius)
            kind = DetectionKind.TRANSIENT_IN_HOST
        else:
            px, py = rng.uniform(3, SIDE - 4, 2)
        strength = noise * float(np.exp(rng.uniform(np.log(4.5), np.log(120.0))))
        is_fading = rng.random() < 0.3
        image, width = (reference, scene.reference_fwhm) if is_fading else (science, scene.fwhm)
        reach = scene.fwhm * rng.uniform(0.3, 1.5) if not is_fading and rng.random() < 0.2 else 0.0
        angle = rng.uniform(0, np.pi)
        for part in np.linspace(-reach, reach, 9) if reach else (0.0,):  # an asteroid trails
            x_part, y_part = px + part * np.cos(angle), py + part * np.sin(angle)
            add_source(image, scene, width, x_part, y_part, strength / (9 if reach else 1))
        new_x.append(px)
        new_y.append(py)
        new_flux.append(-strength if is_fading else strength)
        new_kind.append(DetectionKind.MOVER if reach else kind)
    _ghosts(scene, science, reference, x, y, flux)
    changed = variable & (np.abs(flux * (factor - 1.0)) > 0)
    return science, reference, {
        "x": np.concatenate([x[changed], new_x]),
        "y": np.concatenate([y[changed], new_y]),
        "flux": np.concatenate([(flux * (factor - 1.0))[changed], new_flux]),
        "kind": np.concatenate([np.full(changed.sum(), int(DetectionKind.VARIABLE)), new_kind]).astype(int),
        "light": np.concatenate([flux[changed], np.zeros(len(new_x))]),
        "star_x": x, "star_y": y, "star_flux": flux,
    }  # fmt: skip


def _ghosts(
    scene: Scene, science: np.ndarray, reference: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray
) -> None:
    """Lay the out-of-focus image of the pupil about some of the brightest stars; it moves from exposure to exposure."""
    rng = scene.rng
    if rng.random() < 0.6:
        return
    radius, hole = rng.uniform(15, 90), rng.uniform(0.2, 0.5)
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE]
    for k in np.argsort(-flux)[: int(rng.integers(1, 4))]:
        level = np.sqrt(scene.sky) * 10 ** rng.uniform(-0.5, 0.8)
        moved = rng.normal(0, rng.choice([0.3, 1.0, 2.5]), 2)
        for image, dx, dy in ((science, *moved), (reference, 0.0, 0.0)):
            u, v = grid_x - x[k] - dx, grid_y - y[k] - dy
            r = np.hypot(u, v)
            is_lit = (r < radius) & (r > hole * radius) & (np.abs(u) > 0.04 * radius) & (np.abs(v) > 0.04 * radius)
            image += level * gaussian_filter(is_lit.astype(float), 0.4 * scene.fwhm) * (1.0 + 0.3 * r / radius)
            scene.spoils(DetectionKind.GHOST, is_lit)


def spoil(
    scene: Scene, science: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return observed images and masks: misregistered, mis-scaled, noisy, with cosmic rays and bad columns."""
    rng = scene.rng
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE] / SIDE
    amount = float(rng.choice([0.01, 0.03, 0.08, 0.2]))
    dx, dy = rng.normal(0, amount, 2)
    reference = shift(reference, (dy, dx), order=3, mode="nearest")
    reference = reference * (1.0 + rng.normal(0, 0.004) + rng.normal(0, 0.006) * grid_x + rng.normal(0, 0.006) * grid_y)
    masks = [np.zeros((SIDE, SIDE), dtype=np.int32) for _ in range(2)]
    observed = []
    excess = np.ones(SIDE)
    if rng.random() < 0.3:
        excess[-int(rng.integers(20, 120)) :] = rng.uniform(1.2, 2.0)
    for k, (image, sky) in enumerate(((science, scene.sky), (reference, scene.reference_sky))):
        noisy = image + excess * rng.normal(0.0, 1.0, image.shape) * np.sqrt(
            np.maximum(image, 0.0) * (1.0 if k == 0 else 0.1) + sky
        )
        full = image > scene.saturation
        if full.any():
            grown = gaussian_filter(full.astype(float), 1.0) > 0.05
            noisy[full] = scene.saturation * (1.0 + 0.02 * rng.normal(size=full.sum()))
            masks[k][grown] |= int(MaskPlane.SATURATED)
            scene.spoils(DetectionKind.BRIGHT_STAR, gaussian_filter(full.astype(float), scene.fwhm) > 1e-3)
            for column in np.unique(np.nonzero(full)[1]):
                if rng.random() < 0.5:
                    rows = np.nonzero(full[:, column])[0]
                    reach = int(rng.integers(2, 30))
                    bled = slice(max(rows.min() - reach, 0), rows.max() + reach)
                    noisy[bled, column] += scene.saturation * 0.5
                    scene.spoils(DetectionKind.BRIGHT_STAR, (bled, column))
                    if rng.random() < 0.9:
                        masks[k][bled, column] |= int(MaskPlane.BLEED)
        observed.append(noisy)
    _cosmic_rays(scene, observed[0], masks[0], n=int(rng.choice([8, 20, 40])), weakest=0.9)
    if scene.reference_sky > 0.1 * scene.sky and rng.random() < 0.5:  # of few epochs: some rays stay, weakened
        _cosmic_rays(scene, observed[1], masks[1], n=int(rng.choice([2, 5, 10])), weakest=0.6)
    _bad_columns(scene, observed[0], masks[0])
    _satellite(scene, observed[0], masks[0])
    return observed[0], observed[1], masks[0], masks[1]


def _cosmic_rays(scene: Scene, image: np.ndarray, mask: np.ndarray, *, n: int, weakest: float) -> None:
    """Lay ``n`` rays of ten to the ``weakest`` and more sigma of the science image's sky."""
    rng = scene.rng
    for _ in range(n):
        x, y, angle = *rng.uniform(10, SIDE - 12, 2), rng.uniform(0, np.pi)
        length = min(int(rng.geometric(0.4)), 9)
        charge = np.sqrt(scene.sky) * 10 ** rng.uniform(weakest, weakest + 1.3)
        is_found = rng.random() < 0.6
        for step in range(length):
            row, column = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            image[row, column] += charge * rng.uniform(0.5, 1.5)
            scene.spoils(DetectionKind.COSMIC_RAY, (row, column))
            if rng.random() < 0.4:
                image[row, column + 1] += charge * rng.uniform(0.1, 0.6)
                scene.spoils(DetectionKind.COSMIC_RAY, (row, column + 1))
            if is_found:
                mask[row, column] |= int(MaskPlane.COSMIC_RAY)


def _satellite(scene: Scene, image: np.ndarray, mask: np.ndarray) -> None:
    """Lay a trail across one scene in six; its mask, if it was found, may be too narrow."""
    rng = scene.rng
    if rng.random() < 5 / 6:
        return
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4) * SIDE
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    distance = np.abs(grid_x * np.sin(angle) - grid_y * np.cos(angle) - offset)
    image += np.sqrt(scene.sky) * 10 ** rng.uniform(-0.3, 1.3) * np.exp(-4 * np.log(2) * (distance / scene.fwhm) ** 2)
    scene.spoils(DetectionKind.TRAIL, distance < scene.fwhm)
    if rng.random() < 0.6:
        mask[distance < rng.uniform(0.5, 2.0) * scene.fwhm] |= int(MaskPlane.SATELLITE)


def _bad_columns(scene: Scene, image: np.ndarray, mask: np.ndarray) -> None:
    rng = scene.rng
    for _ in range(int(rng.integers(0, 3))):
        column, start, end = int(rng.integers(SIDE)), int(rng.integers(SIDE // 2)), int(rng.integers(SIDE // 2, SIDE))
        image[start:end, column] += np.sqrt(scene.sky) * rng.choice([-1, 1]) * rng.uniform(1.0, 8.0)
        scene.spoils(DetectionKind.BAD_PIXEL, (slice(start, end), column))
        if rng.random() < 0.75:
            mask[start:end, column] |= int(MaskPlane.BAD)
    for _ in range(int(rng.integers(0, 8))):
        row, column = rng.integers(SIDE, size=2)
        image[row, column] += np.sqrt(scene.sky) * rng.uniform(5, 60)
        scene.spoils(DetectionKind.BAD_PIXEL, (row, column))
        if rng.random() < 0.6:
            mask[row, column] |= int(MaskPlane.BAD)


def calibrated(scene: Scene, image: np.ndarray, mask: np.ndarray, *, sky: float, fwhm: float) -> CalibratedImage:
    """Return an image with a PSF model that is a little wrong."""
    rng = scene.rng
    side = 2 * int(np.ceil(4 * fwhm)) + 1
    wrong = fwhm * (1.0 + rng.normal(0, 0.012))
    stamp = moffat(side, fwhm=wrong, beta=scene.beta, axis_ratio=scene.axis_ratio)
    psf = Psf(stamp[None].astype(np.float32), 0, (SIDE, SIDE))
    variance = (np.maximum(gaussian_filter(image, 0.7), 0.0) * (1.0 if sky == scene.sky else 0.1) + sky).astype(
        np.float32
    )
    wcs = Wcs.tangent(ra=150.0, dec=20.0, x=SIDE / 2, y=SIDE / 2, scale_arcsec=scene.scale)
    return CalibratedImage(
        MaskedImage(image.astype(np.float32), variance, mask), wcs, psf, PhotoCal(scene.zero_point, 0.01)
    )


def reference_catalog(scene: Scene, image: CalibratedImage, truth: dict[str, np.ndarray]) -> Catalog:
    """Return what a reference catalog would hold (5 sigma and more): stars, and what has faded since."""
    faded = (truth["flux"] < 0) & (truth["kind"] != int(DetectionKind.VARIABLE))
    x, y = (np.concatenate([truth[f"star_{axis}"], truth[axis][faded]]) for axis in "xy")
    flux = np.concatenate([truth["star_flux"], -truth["flux"][faded]])
    seen = flux > 5 * np.sqrt(scene.reference_sky) * scene.reference_fwhm * 1.5
    values = {column.name: np.zeros(seen.sum(), dtype=column.dtype) for column in SOURCE.columns}
    ra, dec = image.wcs.pixel_to_sky(x=x[seen], y=y[seen])
    values |= {"ra": ra, "dec": dec, "mag": scene.zero_point - 2.5 * np.log10(flux[seen])}
    return SOURCE.catalog(values)


def labelled(found: Catalog, truth: dict[str, np.ndarray], scene: Scene) -> tuple[Catalog, np.ndarray]:
    """Return detections with their label, near something that changed, with its sign, and their class.

    Those near a change that is too small to be sure of belong to neither side and are left out.
    """
    tree = cKDTree(np.stack([truth["x"], truth["y"]], axis=1))
    noise = np.sqrt(scene.sky + scene.reference_sky) * scene.fwhm * 1.5
    kind = np.array(artefact_kinds(found, truth, scene), dtype=np.int64)
    is_real, is_unclear = np.zeros(found.n_rows, dtype=bool), np.zeros(found.n_rows, dtype=bool)
    least = np.maximum(2.5 * np.sqrt(noise**2 + truth["light"]), 0.03 * truth["light"])
    for row, near in enumerate(
        tree.query_ball_point(np.stack([found["x"], found["y"]], axis=1), max(1.5, 0.5 * scene.fwhm))
    ):
        sign = 1.0 if found["is_positive"][row] else -1.0
        changed = [k for k in near if sign * truth["flux"][k] > least[k]]
        if changed:
            is_real[row] = True
            kind[row] = truth["kind"][max(changed, key=lambda k: abs(truth["flux"][k]))]
        else:
            is_unclear[row] = any(sign * truth["flux"][k] > 0.4 * least[k] for k in near)
    rows = LABELLED_SOURCE.catalog(dict(found) | {"is_real": is_real, "kind": kind})
    return rows, np.flatnonzero(~is_unclear)


PRECEDENCE = (
    DetectionKind.COSMIC_RAY, DetectionKind.BAD_PIXEL, DetectionKind.TRAIL, DetectionKind.BRIGHT_STAR,
)  # fmt: skip


def artefact_kinds(found: Catalog, truth: dict[str, np.ndarray], scene: Scene) -> list[DetectionKind]:
    """Return what is the cause of each detection, if it is an artefact."""
    reach = max(1, round(0.6 * scene.fwhm))
    stars = cKDTree(np.stack([truth["star_x"], truth["star_y"]], axis=1))
    noise = np.sqrt(scene.sky) * scene.fwhm * 1.5

    def cause(x: float, y: float) -> DetectionKind:
        around = (slice(max(round(y) - reach, 0), round(y) + reach + 1),
                  slice(max(round(x) - reach, 0), round(x) + reach + 1))  # fmt: skip
        for kind in PRECEDENCE:
            if kind in scene.causes and scene.causes[kind][around].any():
                return kind
        if min(x, y, SIDE - 1 - x, SIDE - 1 - y) < 1.5 * scene.fwhm:
            return DetectionKind.EDGE
        near = stars.query_ball_point((x, y), 2.0 * scene.fwhm)
        if any(truth["star_flux"][k] > 10 * noise for k in near):
            return DetectionKind.DIPOLE
        if DetectionKind.GHOST in scene.causes and scene.causes[DetectionKind.GHOST][around].any():
            return DetectionKind.GHOST
        halo = stars.query_ball_point((x, y), 10.0 * scene.fwhm)
        return (
            DetectionKind.BRIGHT_STAR if any(truth["star_flux"][k] > 5e3 * noise for k in halo) else DetectionKind.NOISE
        )

    return [cause(float(x), float(y)) for x, y in zip(found["x"], found["y"], strict=True)]


def make_scene(seed: int) -> LabelledDetections | None:
    """Return the labelled detections of one scene; None if its images cannot be differenced, or show none."""
    scene = draw_scene(np.random.default_rng(seed))
    clean_science, clean_reference, truth = render(scene)
    science, reference, mask, reference_mask = spoil(scene, clean_science, clean_reference)
    science_image = calibrated(scene, science, mask, sky=scene.sky, fwhm=scene.fwhm)
    reference_image = calibrated(scene, reference, reference_mask, sky=scene.reference_sky, fwhm=scene.reference_fwhm)
    context = DetectionContext(visit=seed, detector=1, rcid=1, mjd_start=MJD, mjd_tai=MJD, band_id=2, program=1)
    bright = truth["star_flux"] > 100 * scene.saturation / 10
    stars = (truth["star_x"][bright], truth["star_y"][bright], np.full(bright.sum(), 13.0))
    try:
        result = MakeDifference().run(science_image, reference_image)
        found = DetectCandidates().run(
            result, science_image, reference_image, context=context,
            reference_sources=reference_catalog(scene, reference_image, truth), bright_stars=stars,
        )  # fmt: skip
    except DataError as problem:
        print(f"scene {seed}: {problem}")
        return None
    if found.catalog.n_rows == 0:
        return None
    triplet = Triplet(science_image.pixels, reference_image.pixels, result.difference.pixels)
    views = views_of(found.catalog, triplet)
    rows, sure = labelled(found.catalog, truth, scene)
    return LabelledDetections(rows, views).select(sure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.scenes)
    if options.workers > 1:
        with Pool(options.workers) as pool:
            made = pool.map(make_scene, seeds, chunksize=4)
    else:
        made = [make_scene(seed) for seed in seeds]
    whole = joined([part for part in made if part is not None])
    write_labelled(options.out, whole)
    print(f"{whole.rows.n_rows} detections of {len(made)} scenes, {int(whole.is_real.sum())} real")


if __name__ == "__main__":
    main()
