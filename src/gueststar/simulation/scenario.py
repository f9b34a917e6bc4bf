"""What to simulate: fields, nights, weather and populations, read from YAML with unknown keys as errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gueststar.core.errors import ConfigError


class Part(BaseModel):
    """A model whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Weather = Literal["clear", "thin_clouds", "bad"]
Preference = Literal["ecliptic", "high_latitude", "plane"]


class FieldPlan(Part):
    """One predefined pointing."""

    id: int = Field(ge=1)
    """Field number, as headers carry it."""
    ra: float | None = Field(default=None, ge=0, lt=360)
    """Right ascension, degrees; None: chosen for the site and the dates."""
    dec: float | None = Field(default=None, ge=-90, le=90)
    choose: Preference = "ecliptic"
    """What a chosen field is near: the ecliptic (away from the Galaxy), a galactic pole, the galactic plane."""
    near: int | None = None
    """Id of an earlier field from which this one is offset."""
    offset_deg: tuple[float, float] = (0.0, 0.0)
    """Offset from ``near`` on the sky, towards east and north."""


class VisitBlock(Part):
    """Visits of one night: in every round each field in each filter once."""

    fields: tuple[int, ...] = (1,)
    filters: tuple[str, ...] = ("r",)
    """Filter names, bands or aliases of the camera."""
    programs: tuple[int, ...] = (1,)
    """Access categories (programid), used in turn from exposure to exposure."""
    n_rounds: int = Field(default=1, ge=1)
    start_h: float = 0.0
    """Start, hours after the middle of the night (the Sun's lower culmination)."""
    every_minutes: float = Field(default=20.0, gt=0)
    """From the start of one round to that of the next."""
    exposure_s: float | None = Field(default=None, gt=0)
    """None: the scenario's."""
    weather: Weather | None = None
    """None: the night's."""
    lost: tuple[int, ...] = ()
    """Serial numbers within the block (from 0) of exposures that are scheduled but never arrive."""


class NightPlan(Part):
    """One night: when, in what weather, and what is observed."""

    day: int = Field(ge=0)
    """Days after the first night."""
    weather: Weather = "clear"
    blocks: tuple[VisitBlock, ...]


class StarPlan(Part):
    """The stars."""

    density: Literal["auto", "high_latitude", "plane"] | float = "auto"
    """auto: by galactic latitude; or as at b = 60 or b = 3; or a number per square degree brighter than r = 20."""
    bright_limit: float = 8.5
    """No stars brighter than this, r."""
    faint_limit: float = 23.0
    """No stars fainter than this, r."""


class GalaxyPlan(Part):
    """The galaxies."""

    factor: float = Field(default=1.0, ge=0)
    """Number density over that of the real sky."""
    faint_limit: float = 22.5
    """No galaxies fainter than this, r."""


class VariablePlan(Part):
    """Variable stars that are planted beside nature's constant ones."""

    n: int = Field(default=10, ge=0)
    """Per field."""
    magnitudes: tuple[float, float] = (15.0, 19.5)
    """Range of mean r magnitudes."""
    flagged_fraction: float = Field(default=0.7, ge=0, le=1)
    """Fraction that the reference catalog knows to be variable."""


class TransientPlan(Part):
    """New things."""

    n: int = Field(default=25, ge=0)
    """Per field that explode between two nights that are five days or more apart; fewer if they are closer."""
    n_first_night: int = Field(default=4, ge=0)
    """Per field that are there, or appear, in the first night."""
    magnitudes: tuple[float, float] = (16.5, 21.5)
    """Range of r magnitudes in the night for which each is drawn."""
    hosted_fraction: float = Field(default=0.75, ge=0, le=1)
    """Fraction that lies in galaxies, at offsets that follow the light."""


class AsteroidPlan(Part):
    """Solar-System bodies."""

    n: int = Field(default=6, ge=0)
    """Per field and night."""
    magnitudes: tuple[float, float] = (16.5, 20.0)
    """Range of r magnitudes (built-in orbits; absolute magnitudes follow)."""
    orbits: str | None = None
    """File of real orbits (reply of the JPL SBDB query service, JSON, may be gzipped); None: the built-in table."""
    n_near_earth: int = Field(default=0, ge=0)
    """Bodies that pass near the Earth, per field and night, besides ``n``."""
    near_earth_rates: tuple[float, float] = (1.0, 20.0)
    """Range of their speeds on the sky, arcsec per minute; drawn evenly in the logarithm."""
    near_earth_magnitudes: tuple[float, float] = (16.0, 19.5)
    """Range of their r magnitudes."""


class SatellitePlan(Part):
    """Trails of artificial satellites."""

    per_night: float = Field(default=1.5, ge=0)
    """Expected number of trails over the whole camera in a night."""
    magnitudes: tuple[float, float] = (5.0, 10.0)
    """Magnitude at an angular speed of half a degree a second is drawn from this range."""


class AtmospherePlan(Part):
    """Air."""

    fwhm_arcsec: float | None = Field(default=None, gt=0)
    """Median delivered image width at the zenith in r; None: the camera's typical value."""
    fwhm_scatter: float = Field(default=0.14, ge=0)
    """Scatter of the logarithm of the width in a night."""
    fwhm_correlation_minutes: float = Field(default=40.0, gt=0)
    wander_mas: float = Field(default=15.0, ge=0)
    """Astrometric displacement by turbulence, rms per axis in 30 s."""
    wander_scale_arcmin: float = Field(default=5.0, gt=0)
    """Coherence length of that displacement."""
    has_refraction: bool = True
    """Differential refraction: of field (a change of scale towards the zenith) and of colour."""
    has_moon: bool = True
    """Moonlight."""


class ReflectionPlan(Part):
    """Ghosts by reflections between optical surfaces: the pupil out of focus, mirrored about the optical axis."""

    scale: float = -1.0
    """Distance of the ghost from the axis over that of its star."""
    offset_arcsec: tuple[float, float] = (0.0, 0.0)
    radius_arcsec: float = Field(default=40.0, gt=0)
    fraction: float = Field(default=0.002, gt=0, lt=0.5)
    """Light of the star in it."""


class OpticsPlan(Part):
    """Telescope and optics."""

    zero_points: dict[str, float] = {}
    """Band -> AB magnitude of one electron per second above the air; absent: from the camera's typical depth."""
    colour_terms: dict[str, float] = {"g": -0.05, "r": 0.06, "i": 0.03, "z": 0.02}
    """Catalog band -> change of the zero point per magnitude of the filter's colour."""
    pointing_error_arcsec: float | None = Field(default=None, ge=0)
    """Rms per axis by which the header's pointing is wrong; None: a sixth of the camera's tolerance."""
    rotation_error_deg: float | None = Field(default=None, ge=0)
    """Rms by which the header's rotation is wrong; None: a sixtieth of the camera's tolerance."""
    dither_arcsec: float = Field(default=25.0, ge=0)
    """Rms per axis of the intended offsets between visits."""
    distortion: float = 0.003
    """Cubic radial distortion: relative displacement at the corner of the camera."""
    misplacement_pixels: float = Field(default=2.0, ge=0)
    """Rms by which detectors sit beside their nominal place (with 0.02 degrees of rotation)."""
    aberration_arcsec: float = Field(default=0.8, ge=0)
    """Size of optical blur at the corner of the camera (defocus, astigmatism, coma)."""
    halo_fraction: float = Field(default=0.025, ge=0, lt=0.5)
    """Light in the aureole."""
    spike_fraction: float = Field(default=0.004, ge=0, lt=0.5)
    """Light in the diffraction spikes of the secondary's supports."""
    ghost_fraction: float = Field(default=0.0015, ge=0, lt=0.5)
    """Light in the out-of-focus reflection of the pupil."""
    vignetting: float = Field(default=0.08, ge=0, lt=1)
    """Light lost at the corner of the camera."""
    reflections: tuple[ReflectionPlan, ...] = ()
    """Ghosts beside the one that ``ghost_fraction`` throws near each star."""


class DetectorPlan(Part):
    """Detectors and electronics."""

    bias_adu: float = 1000.0
    """Bias level where the camera does not say."""
    bias_structure: float = Field(default=0.5, ge=0)
    """Size of the two-dimensional bias pattern, in units of the read noise."""
    bias_jump_probability: float = Field(default=0.1, ge=0, le=1)
    """Per frame and amplifier: a step of the bias level by about the read noise at some row."""
    row_drift: float = Field(default=0.35, ge=0)
    """Rms of the slow drift of the bias level from row to row, in units of the read noise."""
    dark_e_per_s: float = Field(default=0.02, ge=0)
    hot_pixel_fraction: float = Field(default=2e-4, ge=0, le=0.1)
    bad_columns_per_mpix: float = Field(default=2.0, ge=0)
    pixel_response_rms: float = Field(default=0.006, ge=0)
    """Pixel-to-pixel sensitivity."""
    dust_per_mpix: float = Field(default=5.0, ge=0)
    """Dust grains, seen as donuts."""
    fringes: dict[str, float] = {}
    """Band -> amplitude of the sky's fringes, as a fraction of the sky; each exposure has strengths of its own."""
    shutter_delay_s: float = 0.0
    """By how much longer than told the shutter is open at the corner of the camera."""
    shutter_travel_s: float = 0.0
    """And by how much more in the middle (an iris opens there first, and closes there last)."""
    crosstalk: float = 0.0
    """Fraction of each amplifier's signal seen in the others of its detector."""
    crosstalk_scatter: float = Field(default=0.0, ge=0)
    """Rms by which the coefficients of pairs of amplifiers differ from that, as a fraction of it."""
    nonlinearity: float = Field(default=0.0, ge=0, lt=0.5)
    """Fraction of the counts that is missing at full well; it grows with the counts, 0.2 of it differs between
    amplifiers."""
    repulsion: float = Field(default=0.0, ge=0, lt=1e-4)
    """Brighter-fatter effect: fraction of its area that a pixel loses for each electron in it."""
    transfer_inefficiency: float = Field(default=0.0, ge=0, lt=1e-3)
    """Fraction of the charge that each transfer along the register leaves behind."""
    cosmic_rays_per_mpix_s: float = Field(default=0.25, ge=0)
    full_well_margin: float = Field(default=1.05, ge=1)
    """Full well over the camera's saturation level."""


class CalibrationPlan(Part):
    """Calibration frames of every night."""

    n_bias: int = Field(default=8, ge=0)
    n_dark: int = Field(default=3, ge=0)
    dark_s: float = Field(default=60.0, gt=0)
    n_flat: int = Field(default=4, ge=0)
    """Per filter in use."""
    short_flats_s: tuple[float, ...] = ()
    """Exposure times of further flats per filter, fainter in proportion, that show the shutter (the others: 5 s)."""
    flat_fraction_of_saturation: float = Field(default=0.4, gt=0, lt=1)
    ladder: tuple[float, ...] = ()
    """Further flats of the first filter in use, two of each of these fractions of saturation, by exposure time."""
    lamp_rms: float = Field(default=0.02, ge=0)
    """Scatter of the lamp's brightness from flat to flat."""


class RefcatPlan(Part):
    """The reference catalog."""

    complete_to: float = 20.5
    """Half of the stars of this r magnitude are in it."""
    position_error_mas: float = Field(default=3.0, ge=0)
    """Error floor of positions, per axis; grows towards the limit."""
    magnitude_error: float = Field(default=0.008, ge=0)
    """Error floor of magnitudes."""
    epoch: float = 2016.0
    """Julian year of positions."""
    margin_deg: float = Field(default=0.25, ge=0)


class Scenario(Part):
    """Everything that is chosen in a simulation, apart from camera and seed."""

    description: str = ""
    first_night: date
    """Local date of the first evening."""
    exposure_s: float = Field(default=30.0, gt=0)
    overhead_s: float = Field(default=15.0, ge=0)
    compression: Literal["rice", "none"] = "rice"
    fields: tuple[FieldPlan, ...] = (FieldPlan(id=1),)
    nights: tuple[NightPlan, ...] = Field(min_length=1)
    stars: StarPlan = StarPlan()
    galaxies: GalaxyPlan = GalaxyPlan()
    variables: VariablePlan = VariablePlan()
    transients: TransientPlan = TransientPlan()
    asteroids: AsteroidPlan = AsteroidPlan()
    satellites: SatellitePlan = SatellitePlan()
    atmosphere: AtmospherePlan = AtmospherePlan()
    optics: OpticsPlan = OpticsPlan()
    detector: DetectorPlan = DetectorPlan()
    calibrations: CalibrationPlan = CalibrationPlan()
    refcat: RefcatPlan = RefcatPlan()

    @model_validator(mode="after")
    def _fields_and_days_agree(self) -> Scenario:
        known: set[int] = set()
        for item in self.fields:
            if item.id in known:
                raise ValueError(f"field {item.id} is defined twice")
            if item.near is not None and item.near not in known:
                raise ValueError(f"field {item.id} is near field {item.near}, which is not defined before it")
            if (item.ra is None) != (item.dec is None):
                raise ValueError(f"field {item.id} needs both ra and dec, or neither")
            known.add(item.id)
        used = {number for night in self.nights for block in night.blocks for number in block.fields}
        if used - known:
            raise ValueError(f"blocks use the fields {sorted(used - known)}, which are not defined")
        days = [night.day for night in self.nights]
        if days != sorted(set(days)):
            raise ValueError(f"days of nights must rise, got {days}")
        return self

    def with_nights(self, n_nights: int) -> Scenario:
        """Return the first ``n_nights`` nights; beyond the plan the last night is repeated day by day."""
        nights = list(self.nights[:n_nights])
        while len(nights) < n_nights:
            nights.append(nights[-1].model_copy(update={"day": nights[-1].day + 1}))
        return self.model_copy(update={"nights": tuple(nights)})


def scenario_names() -> tuple[str, ...]:
    """Return the names of the packaged scenarios."""
    folder = resources.files("gueststar.simulation") / "scenarios"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Return a packaged scenario by name, or one from a YAML file; ConfigError names the wrong key."""
    if str(name_or_path) in scenario_names():
        text = (resources.files("gueststar.simulation") / "scenarios" / f"{name_or_path}.yaml").read_text()
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"{path} is neither a file nor one of the scenarios {', '.join(scenario_names())}")
        text = path.read_text()
    try:
        return Scenario.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"scenario {name_or_path} is not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"scenario {name_or_path}: {key or 'top level'}: {first['msg']}") from None


def adapted(
    scenario: Scenario,
    *,
    n_nights: int | None = None,
    density: str | None = None,
    orbits: str | None = None,
    filters: Mapping[str, str] | None = None,
) -> Scenario:
    """Return a scenario with what a caller overrides; ConfigError for a density that is neither a name nor a number.

    ``filters`` replaces names of the scenario's filters, for cameras that have others.
    """
    if n_nights is not None:
        scenario = scenario.with_nights(n_nights)
    if density is not None:
        try:
            stars = StarPlan.model_validate({**scenario.stars.model_dump(), "density": density})
        except ValidationError:
            raise ConfigError(f"density {density!r} is neither auto, high_latitude, plane nor a number") from None
        scenario = scenario.model_copy(update={"stars": stars})
    if orbits is not None:
        asteroids = scenario.asteroids.model_copy(update={"orbits": orbits})
        scenario = scenario.model_copy(update={"asteroids": asteroids})
    if filters:
        nights = tuple(_with_filters(night, filters) for night in scenario.nights)
        scenario = scenario.model_copy(update={"nights": nights})
    return scenario


def _with_filters(night: NightPlan, filters: Mapping[str, str]) -> NightPlan:
    blocks = tuple(
        block.model_copy(update={"filters": tuple(filters.get(name, name) for name in block.filters)})
        for block in night.blocks
    )
    return night.model_copy(update={"blocks": blocks})
