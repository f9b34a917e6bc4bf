"""Corrections that the sky itself shows, against the truth of a simulated camera; fringes on a laboratory's frames too.

Run: python benchmarks/illumination.py [--sky FOLDER] [--repo FOLDER] [--coldatom FOLDER]
Two nights in i are simulated (scenario ``light``: fringes of two groups of lines, an iris shutter, a lamp that lights
unlike the sky, reflections, hot pixels and bad columns) and processed by the real commands (3 minutes of CPU). The
second night is corrected with what the first one taught. Printed are the products, and what is left on the second
night, against the truth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from gueststar.algorithms.background.mesh import bin_pixels
from gueststar.algorithms.illumination.fringe_fit import flattened
from gueststar.cameras.load import load_camera
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.formats.raw import read_headers, read_section
from gueststar.pipelines.calibration.fringe import patterns_of
from gueststar.simulation import stray_light
from gueststar.simulation.detector import lamp_in, make_detector, response_in
from gueststar.simulation.exposure import make_exposure_sky, wcs_of
from gueststar.simulation.scenario import load_scenario
from gueststar.simulation.simulate import Simulation, plan_simulation
from gueststar.simulation.universe import magnitude_through
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

CAMERA = Path(__file__).parent / "cameras" / "thinned.yaml"
SEED = 1
GLASS = "sim_i"


def gueststar(*words: object) -> None:
    done = subprocess.run([sys.executable, "-m", "gueststar", *map(str, words)], stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"gueststar {words[0]} ended with status {done.returncode}")


def prepare(sky: Path, repo: Path) -> None:
    """Simulate and process, unless that was done before."""
    if not (sky / "raw").is_dir():
        gueststar("simulate", sky, "--scenario", "light", "--camera", CAMERA, "--seed", SEED, "--quiet")
    if not repo.is_dir():
        gueststar("init", repo, "--camera", CAMERA)
        gueststar("refcat", "import", repo, sky / "refcat.parquet")
        gueststar("ingest", repo, sky / "raw", "--transfer", "link")
        gueststar("process", repo)


def newest(survey: SurveyRepo, kind: Any, glass: str | None = None) -> Any:
    """Return the product of the first night: the one that the second was corrected with."""
    found = survey.calibration_history(kind, 0, glass)
    return survey.read(found[-1])


def flat_cells(image: np.ndarray, is_masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cells of 4 pixels less their surroundings, and which are free."""
    cells, _, number = bin_pixels(image.astype(np.float32), is_masked, 4)
    is_free = number >= 8
    return flattened(cells, is_free, 64), is_free


def fringes(survey: SurveyRepo, simulation: Simulation, truth: Any, night: int) -> None:
    """Compare what was taken out of the second night's images with the fringes that were put in."""
    product = newest(survey, "fringe", GLASS)
    strengths = ", ".join(f"{1e3 * value:.1f}" for value in product.metadata["rms"])
    print(f"fringes: {product.metadata['n_patterns']} patterns from {product.n_frames} images, {strengths} thousandths "
          "of the sky (rms)")  # fmt: skip
    patterns, lit = patterns_of(product), []
    nothing = np.zeros(truth.detector.shape, dtype=bool)
    for conditions in (c for c in simulation.conditions if c.visit.day_obs == night):
        metrics = survey.get("science_metrics", DataId(visit=conditions.exposure_id, detector=0))
        fit = metrics["detrend"]["fringe"]
        factor = stray_light.sky_fringes(truth, "i", conditions.exposure_id)
        put_in = (factor - 1.0) * metrics["detrend"]["sky_level"]
        removed = np.tensordot(np.asarray(fit["amplitudes"], np.float32), patterns, axes=1)
        true_cells, _ = flat_cells(put_in, nothing)
        left_cells, _ = flat_cells(put_in - removed, nothing)
        slope = float(np.sum(true_cells * (true_cells - left_cells)) / np.sum(true_cells**2))
        lit.append((true_cells.std(), left_cells.std(), slope, metrics["detrend"]["sky_level"]))
    before, after, slope, level = np.median(np.array(lit), axis=0)
    print(f"  second night, {len(lit)} images, sky {level:.0f} e-: rms {before:.2f} e- put in, {after:.2f} left; "
          f"fraction of the amplitude removed {slope:.3f}")  # fmt: skip


def illumination(survey: SurveyRepo, truth: Any) -> None:
    product = newest(survey, "illumination", GLASS)
    # Flats were divided by their own lamp, stars were not: they are measured too bright where the lamp is faint.
    needed = 1.0 / lamp_in(truth, GLASS)
    needed = -2.5 * np.log10(needed / needed.mean())
    found = -2.5 * np.log10(product.pixels.image)
    error = 2.5 / np.log(10) * np.sqrt(product.pixels.variance) / product.pixels.image
    print(f"illumination: order {product.metadata['order']} from {product.metadata['n_stars']} stars; "
          f"error of the flat {1e3 * needed.std():.1f} mmag rms, left {1e3 * (found - needed).std():.1f}, stated error "
          f"{1e3 * np.sqrt(np.mean(error**2)):.1f}")  # fmt: skip


def shutter(survey: SurveyRepo, truth: Any) -> None:
    product = newest(survey, "shutter")
    delay = stray_light.shutter_delay(truth)
    off = product.pixels.image - delay
    truth_ms = f"delay {1e3 * delay.mean():.2f} ms, from place to place {1e3 * delay.std():.2f} ms rms"
    mean_ms = f"{1e3 * off.mean():+.2f} +- {1e3 * product.metadata['mean_delay_error_s']:.2f}"
    map_ms = f"{1e3 * off.std():.2f} rms (stated {1e3 * product.metadata['map_error_s']:.2f})"
    print(f"shutter: {truth_ms}; measured mean off by {mean_ms}, map off by {map_ms}")


def bad_pixels(survey: SurveyRepo, truth: Any, night: int) -> None:
    """Count true defects (off by more than the noise of an image) that are masked, and good pixels that are."""
    product = survey.read(survey.calibration_history("defects", 0)[0])
    metrics = [survey.read(ref) for ref in survey.find("science_metrics", day_obs=night)]
    noise = float(np.median([item["detrend"]["sky_rms"] for item in metrics]))
    charge = np.abs(60.0 * (truth.dark - np.median(truth.dark)) + truth.fixed_charge) / noise
    response = truth.pixel_response / ndimage.median_filter(truth.pixel_response, (1, 9))
    is_dead = response < 0.55
    is_fair = (charge < 0.3) & (np.abs(response - 1.0) < 0.05)
    masked = (product.pixels.mask & int(MaskPlane.BAD)) != 0
    in_masters = np.zeros_like(masked)
    for kind, glass in (("bias", None), ("dark", None), ("flat", GLASS)):
        in_masters |= (newest(survey, kind, glass).pixels.mask & int(MaskPlane.BAD)) != 0
    for name, is_bad in (("dead, or off by 3 sigma of an image", is_dead | (charge > 3.0)),
                         ("off by 1 to 3 sigma", (charge > 1.0) & (charge <= 3.0) & ~is_dead)):  # fmt: skip
        print(f"defects: {is_bad.sum()} pixels {name}: found {np.mean(masked[is_bad]):.3f} "
              f"(by bias, dark and flat alone {np.mean(in_masters[is_bad]):.3f})")  # fmt: skip
    print(f"  good pixels lost {np.mean(masked[is_fair]):.1e} ({np.mean(in_masters[is_fair]):.1e})")


def ghosts(survey: SurveyRepo, simulation: Simulation, truth: Any, night: int) -> None:
    """Compare the marked pixels with the ghosts' light."""
    bright = hit = marked = empty = 0
    camera, optics = simulation.camera, simulation.optics
    for conditions in (c for c in simulation.conditions if c.visit.day_obs == night):
        stored = survey.get("science_image", DataId(visit=conditions.exposure_id, detector=0))
        noise = float(np.sqrt(np.median(stored.pixels.variance)))
        sky = make_exposure_sky(
            camera, optics, simulation.scenario, simulation.universe, conditions, simulation.satellites, seed=SEED
        )
        wcs = wcs_of(camera, optics, simulation.scenario, conditions, truth.detector)
        zero_point = conditions.zero_point + 2.5 * np.log10(truth.efficiency)
        mags = magnitude_through(sky.scene.mags, conditions.visit.glass, simulation.scenario.optics.colour_terms)
        stars = np.flatnonzero(sky.scene.galaxy < 0)
        x, y = wcs.sky_to_pixel(ra=sky.scene.ra[stars], dec=sky.scene.dec[stars])
        light = np.zeros(truth.detector.shape, dtype=np.float32)
        stray_light.add_reflections_in_place(
            light,
            camera,
            optics,
            truth.detector,
            x=x,
            y=y,
            flux=10.0 ** (0.4 * (zero_point - mags[stars])),
            noise=noise,
        )
        is_ghost = (stored.pixels.mask & int(MaskPlane.GHOST)) != 0
        bright, hit = bright + int((light > noise).sum()), hit + int(is_ghost[light > noise].sum())
        marked, empty = marked + int(is_ghost.sum()), empty + int((is_ghost & (light < 0.1 * noise)).sum())
    print(f"ghosts: {bright} pixels brighter than the noise of the sky, marked {hit / max(bright, 1):.3f}; of {marked} "
          f"marked pixels {empty / max(marked, 1):.3f} hold no ghost")  # fmt: skip


def cold_atoms(data: Path) -> None:
    """Process a laboratory's triples with the packaged camera; print the scatter of the optical density."""
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        gueststar("init", repo, "--camera", "coldatom")
        gueststar("ingest", repo, data, "--transfer", "link")
        gueststar("process", repo)
        shots = {path.name.split("_")[-1].split(".")[0] for path in data.glob("Image_*")}
        dark = np.mean([whole(path) for path in data.glob("Background_*")], axis=0)
        with SurveyRepo.open(repo) as survey:
            rows = {r.info.object_name: r for r in survey.ledger.exposures(observation_type="science")}
            for shot in sorted(shots):
                frame = survey.get("detrended_frame", DataId(exposure=rows[shot].id, detector=0))
                own = [whole(next(data.glob(f"{kind}_*_{shot}.*"))) - dark for kind in ("Image", "Probe")]
                usual = -np.log(np.maximum(own[0], 1.0) / np.maximum(own[1], 1.0))
                image = frame.pixels.image
                ours = -np.log(np.maximum(image, 0.01) / np.median(image))
                is_free = free_of_atoms(ours) & frame.pixels.is_usable(UNUSABLE)
                figures = [
                    f"{b} px {scatter(usual, is_free, b):.4f} -> {scatter(ours, is_free, b):.4f}" for b in (1, 4, 8)
                ]
                print(f"  shot {shot}, outside the atoms ({is_free.mean():.0%}): {', '.join(figures)}")


def whole(path: Path) -> np.ndarray:
    raw = read_headers(path)
    ny, nx = raw.images[0].shape
    return read_section(raw, 0, f"[1:{nx},1:{ny}]").astype(np.float64)


def free_of_atoms(density: np.ndarray) -> np.ndarray:
    """Return where the smoothed optical density shows nothing, with a margin."""
    smooth = ndimage.gaussian_filter(density, 4.0)
    smooth -= np.median(smooth)
    noise = 1.4826 * np.median(np.abs(smooth))
    return ~ndimage.binary_dilation(np.abs(smooth) > 5.0 * noise, iterations=12)


def scatter(density: np.ndarray, is_free: np.ndarray, size: int) -> float:
    """Return the robust scatter of means over ``size`` x ``size`` free pixels."""
    ny, nx = (n // size * size for n in density.shape)
    shape = (ny // size, size, nx // size, size)
    weight = is_free[:ny, :nx].reshape(shape).sum(axis=(1, 3))
    total = np.where(is_free, density, 0.0)[:ny, :nx].reshape(shape).sum(axis=(1, 3))
    values = total[weight > size**2 / 2] / weight[weight > size**2 / 2]
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sky", type=Path)
    parser.add_argument("--repo", type=Path)
    parser.add_argument("--coldatom", type=Path, default=Path("../shared/data/coldatom_absorption"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sky, repo = options.sky or Path(folder) / "sky", options.repo or Path(folder) / "repo"
        prepare(sky, repo)
        camera, scenario = load_camera(CAMERA), load_scenario("light")
        simulation = plan_simulation(camera, scenario, seed=SEED)
        truth = make_detector(camera, simulation.optics, camera.detectors[0], scenario.detector, seed=SEED)
        assert response_in(truth, GLASS, 0).shape == truth.detector.shape
        with SurveyRepo.open(repo) as survey:
            night = sorted({c.visit.day_obs for c in simulation.conditions})[-1]
            fringes(survey, simulation, truth, night)
            illumination(survey, truth)
            shutter(survey, truth)
            bad_pixels(survey, truth, night)
            ghosts(survey, simulation, truth, night)
    if options.coldatom.is_dir():
        print("optical density of atoms, scatter: each shot over its own probe frame -> detrended here")
        cold_atoms(options.coldatom)
    else:
        print(f"{options.coldatom} is not there: no laboratory frames")


if __name__ == "__main__":
    main()
