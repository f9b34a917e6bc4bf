"""From the sky to electrons: one science exposure of one detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photometry.bleeding import bleed_in_place
from gueststar.model.camera import Camera, Detector
from gueststar.model.catalog import Catalog
from gueststar.model.wcs import Wcs
from gueststar.simulation import detector as silicon
from gueststar.simulation.atmosphere import Air, colour_shift, make_air, refraction_stretch
from gueststar.simulation.bright_stars import add_far_light_in_place
from gueststar.simulation.charge import collect_with_repulsion
from gueststar.simulation.conditions import Conditions
from gueststar.simulation.cosmic_rays import add_cosmic_rays_in_place
from gueststar.simulation.detector import DetectorTruth
from gueststar.simulation.ephemeris import unit_vector
from gueststar.simulation.optics import Optics, field_radius_deg, focal_plane_position, true_wcs
from gueststar.simulation.point_spread import PsfField, air_fwhm, make_psf_field
from gueststar.simulation.rendering import Sources, add_sources_in_place
from gueststar.simulation.satellites import trail_sources
from gueststar.simulation.scenario import Scenario
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.stray_light import add_reflections_in_place, expose_through_shutter_in_place, sky_fringes
from gueststar.simulation.tiles import SkyDisc, is_in_any
from gueststar.simulation.truth import OBSERVED, detector_image_row
from gueststar.simulation.universe import Scene, Universe, magnitude_through, scene_of

Floats = NDArray[np.float64]
MARGIN_PIXELS = 60
"""Sources this far outside the detector still send light into it."""
FARTHEST_PIXELS = 400.0
"""So do stars of magnitude 0, were there any; 25 pixels less for each magnitude."""
FAINTEST_ELECTRONS = 1.0


@dataclass(frozen=True, eq=False)
class ExposureSky:
    """What is the same for all detectors of one exposure."""

    conditions: Conditions
    scene: Scene
    air: Air
    air_fwhm_arcsec: float
    satellites: Catalog
    directions: Floats
    """Unit vectors of the sources of the scene ``[3, n]``."""


@dataclass(frozen=True, eq=False)
class DetectorExposure:
    """What one detector collected, with the truth."""

    electrons: NDArray[np.float32]
    observed: Catalog
    row: Catalog
    wcs: Wcs

    def without_pixels(self) -> DetectorExposure:
        """Return the truth alone, to keep."""
        return DetectorExposure(np.zeros((0, 0), dtype=np.float32), self.observed, self.row, self.wcs)


def make_exposure_sky(
    camera: Camera, optics: Optics, scenario: Scenario, universe: Universe, conditions: Conditions,
    satellites: Catalog, *, seed: int,
) -> ExposureSky:  # fmt: skip
    """Return the sky in front of the camera during one exposure."""
    visit = conditions.visit
    scene = scene_of(universe, camera, visit)
    disc = SkyDisc(conditions.ra, conditions.dec, 1.02 * field_radius_deg(camera) + 0.03)
    scene = _select(scene, np.flatnonzero(is_in_any((disc,), scene.ra, scene.dec)))
    directions = unit_vector(scene.ra, scene.dec)
    air = make_air(
        scenario.atmosphere, seed=seed, exposure=conditions.exposure_id, weather=visit.weather,
        cloud_mag=conditions.cloud_mag, exposure_s=visit.exposure_s, pixel_scale_arcsec=camera.pixel_scale_arcsec,
        field_radius_deg=optics.field_radius_deg,
    )  # fmt: skip
    return ExposureSky(conditions, scene, air, air_fwhm(camera, optics, conditions.psf), satellites, directions)


def expose(
    camera: Camera, optics: Optics, scenario: Scenario, universe: Universe, truth: DetectorTruth, sky: ExposureSky,
    response: NDArray[np.float32], *, seed: int,
) -> DetectorExposure:  # fmt: skip
    """Return the electrons of one detector after a science exposure, charge moved by bleeding."""
    conditions, detector = sky.conditions, truth.detector
    visit = conditions.visit
    random = generator_for(seed, "pixels", conditions.exposure_id, detector.id)
    wcs = wcs_of(camera, optics, scenario, conditions, detector)
    psf = make_psf_field(camera, optics, detector, conditions.psf, air_fwhm_arcsec=sky.air_fwhm_arcsec)
    zero_point = conditions.zero_point + 2.5 * np.log10(truth.efficiency)
    sky_level = 10.0 ** (0.4 * (zero_point - conditions.sky_mag)) * camera.pixel_scale_arcsec**2
    # The sky as given is seen through the air: put back what the zero point takes for extinction.
    sky_level *= 10.0 ** (0.4 * conditions.extinction_mag)
    noise = float(np.sqrt(sky_level + detector.amplifiers[0].read_noise ** 2))
    sources, observed = _sources_on(camera, optics, scenario, universe, sky, detector, wcs, zero_point)
    electrons = np.zeros(detector.shape, dtype=np.float32)
    add_sources_in_place(electrons, sources, psf, noise=noise)
    _add_glare(electrons, camera, optics, sources, psf, detector, noise)
    _add_reflections(electrons, camera, optics, scenario, sky, detector, wcs, zero_point, noise)
    trails = trail_sources(
        sky.satellites, wcs=wcs, shape=detector.shape, zero_point=zero_point, exposure_s=visit.exposure_s
    )
    add_sources_in_place(electrons, trails, psf, noise=noise)
    pattern = conditions.sky_pattern.at(truth.field).astype(np.float32)
    if (fringes := sky_fringes(truth, visit.glass.band, conditions.exposure_id)) is not None:
        pattern = pattern * fringes
    electrons += np.float32(sky_level) * pattern * truth.area
    electrons *= response
    expose_through_shutter_in_place(electrons, truth, visit.exposure_s)
    n_rays = collect_in_place(electrons, truth, random, seconds=visit.exposure_s)
    centre = truth.field[:, detector.shape[0] // 2, detector.shape[1] // 2]
    row = detector_image_row(
        exposure_id=conditions.exposure_id, detector=detector.id, wcs=wcs, zero_point=zero_point,
        cloud_mag=float(sky.air.cloud_extinction(centre[:, None].astype(np.float64))[0]),
        sky=float(np.median(sky_level * pattern)), n_cosmic_rays=n_rays,
    )  # fmt: skip
    well = float(np.min(silicon.full_well(truth)))
    saturated = observed["flux"] * psf.profile[0] + sky_level > well
    return DetectorExposure(electrons, observed.replace(is_saturated=saturated), row, wcs)


def collect_in_place(
    electrons: NDArray[np.float32], truth: DetectorTruth, random: np.random.Generator, *, seconds: float
) -> int:
    """Turn expected into collected electrons: photon noise, dark current, cosmic rays, bleeding.

    Returns the number of cosmic rays.
    """
    electrons += truth.dark * np.float32(seconds)
    if truth.plan.repulsion:
        electrons[:] = collect_with_repulsion(electrons, truth.plan.repulsion, random)
    else:
        electrons[:] = random.poisson(np.maximum(electrons, 0.0))
    electrons += truth.fixed_charge
    # Half of the read-out time counts too; 10 s stand for it.
    n_rays = add_cosmic_rays_in_place(
        electrons, random, per_mpix_s=truth.plan.cosmic_rays_per_mpix_s, seconds=seconds + 5.0
    )
    bleed_in_place(electrons, silicon.full_well(truth), readout_axis=truth.detector.readout_axis)
    return n_rays


def wcs_of(camera: Camera, optics: Optics, scenario: Scenario, conditions: Conditions, detector: Detector) -> Wcs:
    """Return the true WCS of one detector in one exposure, differential refraction included."""
    stretch = None
    if scenario.atmosphere.has_refraction:
        stretch = refraction_stretch(
            zenith_distance_deg=conditions.zenith_distance_deg, parallactic_deg=conditions.parallactic_deg
        )
    return true_wcs(
        camera, optics, detector, ra=conditions.ra, dec=conditions.dec, rotation_deg=conditions.rotation_deg,
        stretch=stretch,
    )  # fmt: skip


def _sources_on(
    camera: Camera, optics: Optics, scenario: Scenario, universe: Universe, sky: ExposureSky, detector: Detector,
    wcs: Wcs, zero_point: float,
) -> tuple[Sources, Catalog]:  # fmt: skip
    conditions, scene = sky.conditions, sky.scene
    glass = conditions.visit.glass
    mags = magnitude_through(scene.mags, glass, scenario.optics.colour_terms)
    ny, nx = detector.shape
    centre_ra, centre_dec = wcs.pixel_to_sky(x=nx / 2, y=ny / 2)
    reach = np.radians((0.5 * np.hypot(nx, ny) + FARTHEST_PIXELS) * camera.pixel_scale_arcsec / 3600.0)
    close = np.flatnonzero(unit_vector(centre_ra, centre_dec) @ sky.directions > np.cos(1.02 * reach))
    scene, mags = _select(scene, close), mags[close]
    x, y = wcs.sky_to_pixel(ra=scene.ra, dec=scene.dec)
    # Galaxies, and stars with haloes, reach in from farther away; 60 pixels and more for the brightest.
    margin = np.maximum(MARGIN_PIXELS, FARTHEST_PIXELS - 25.0 * np.clip(scene.mags[1], 0.0, 30.0))
    near = (x > -margin) & (x < nx + margin) & (y > -margin) & (y < ny + margin)
    near &= mags < zero_point - 2.5 * np.log10(FAINTEST_ELECTRONS)
    chosen = np.flatnonzero(near)
    scene, x, y, mags = _select(scene, chosen), x[chosen], y[chosen], mags[chosen]
    field = focal_plane_position(camera, optics, detector, x, y)
    shift = sky.air.displacement(field)
    if scenario.atmosphere.has_refraction:
        shift = shift + colour_shift(
            wcs, band=glass.band, colour_g_i=scene.mags[0] - scene.mags[2],
            zenith_distance_deg=conditions.zenith_distance_deg, parallactic_deg=conditions.parallactic_deg,
        )  # fmt: skip
    x, y = x + shift[0], y + shift[1]
    flux = 10.0 ** (0.4 * (zero_point - mags - sky.air.cloud_extinction(field)))
    to_pixels = np.asarray(np.linalg.inv(wcs.cd) / 3600.0, dtype=np.float64)
    trail = (to_pixels @ np.array([scene.ra_end, scene.dec_end])).T
    shape, bulge, ratio = _galaxy_shapes(universe.galaxies, scene.galaxy, to_pixels)
    inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    band = "griz".find(glass.catalog_band)
    observed = OBSERVED.catalog(
        {
            "exposure_id": np.full(x.size, conditions.exposure_id), "detector": np.full(x.size, detector.id),
            "source_id": scene.source_id, "kind": scene.kind, "x": x, "y": y, "ra": scene.ra, "dec": scene.dec,
            "mag": scene.mags[max(band, 0)], "flux": flux, "trail": np.hypot(trail[:, 0], trail[:, 1]),
            "is_saturated": np.zeros(x.size, dtype=bool),
        }
    )  # fmt: skip
    return Sources(x, y, flux, shape, bulge, ratio, trail), observed.select(np.flatnonzero(inside))


def _galaxy_shapes(galaxies: Catalog, rows: NDArray[np.int64], to_pixels: Floats) -> tuple[Floats, Floats, Floats]:
    """Return half-light ellipses ``[n, 3]``, pixel**2, bulge fractions and radius ratios; zero, 0, 1 for points."""
    shape, bulge, ratio = np.zeros((rows.size, 3)), np.zeros(rows.size), np.ones(rows.size)
    extended = np.flatnonzero(rows >= 0)
    table = galaxies.select(rows[extended])
    angle = np.radians(table["position_angle"])
    major = table["disc_radius"] * np.array([np.sin(angle), np.cos(angle)])
    minor = table["disc_radius"] * table["axis_ratio"] * np.array([np.cos(angle), -np.sin(angle)])
    major, minor = to_pixels @ major, to_pixels @ minor
    shape[extended] = np.array(
        [major[0] ** 2 + minor[0] ** 2, major[0] * major[1] + minor[0] * minor[1], major[1] ** 2 + minor[1] ** 2]
    ).T
    bulge[extended] = table["bulge_fraction"]
    ratio[extended] = table["bulge_radius"] / table["disc_radius"]
    return shape, bulge, ratio


def _add_glare(
    electrons: NDArray[np.float32], camera: Camera, optics: Optics, sources: Sources, psf: PsfField,
    detector: Detector, noise: float,
) -> None:  # fmt: skip
    points = np.flatnonzero(sources.shape[:, 0] == 0.0)
    add_far_light_in_place(
        electrons, x=sources.x[points], y=sources.y[points], flux=sources.flux[points], psf=psf, noise=noise,
        spike_fraction=optics.plan.spike_fraction,
        spike_angle_deg=optics.spike_angle_deg + detector.focal_plane.rotation_deg,
        ghost_fraction=optics.plan.ghost_fraction, ghost_radius=45.0 / camera.pixel_scale_arcsec,
    )  # fmt: skip


def _add_reflections(
    electrons: NDArray[np.float32], camera: Camera, optics: Optics, scenario: Scenario, sky: ExposureSky,
    detector: Detector, wcs: Wcs, zero_point: float, noise: float,
) -> None:  # fmt: skip
    """Add ghosts of all bright stars of the field, those on other detectors too."""
    if not optics.plan.reflections:
        return
    mags = magnitude_through(sky.scene.mags, sky.conditions.visit.glass, scenario.optics.colour_terms)
    stars = np.flatnonzero((sky.scene.galaxy < 0) & (mags < zero_point - 2.5 * np.log10(noise)))
    x, y = wcs.sky_to_pixel(ra=sky.scene.ra[stars], dec=sky.scene.dec[stars])
    flux = 10.0 ** (0.4 * (zero_point - mags[stars]))
    add_reflections_in_place(electrons, camera, optics, detector, x=x, y=y, flux=flux, noise=noise)


def _select(scene: Scene, index: NDArray[np.int64]) -> Scene:
    values = {name: getattr(scene, name) for name in Scene.__dataclass_fields__}
    return Scene(**{name: v[:, index] if v.ndim == 2 else v[index] for name, v in values.items()})
