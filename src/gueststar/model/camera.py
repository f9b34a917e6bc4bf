"""A camera as data: detectors, amplifiers, filters, site."""

from __future__ import annotations

import re
from functools import cached_property
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gueststar.core.errors import ConfigError
from gueststar.model.header import HeaderMapping

if TYPE_CHECKING:
    from gueststar.model.wcs import Wcs

_SECTION = re.compile(r"^\[(\d+):(\d+),(\d+):(\d+)\]$")


def parse_section(text: str) -> tuple[slice, slice]:
    """Return the numpy ``(y, x)`` slices of a FITS section ``[x1:x2,y1:y2]`` (1-based, inclusive)."""
    match = _SECTION.match(text.replace(" ", ""))
    if not match:
        raise ValueError(f"{text!r} is not a FITS section such as [1:2048,1:4096]")
    x1, x2, y1, y2 = (int(group) for group in match.groups())
    if x1 < 1 or y1 < 1 or x2 < x1 or y2 < y1:
        raise ValueError(f"section {text!r} is empty or starts before pixel 1")
    return slice(y1 - 1, y2), slice(x1 - 1, x2)


def _overlap(first: tuple[slice, slice], second: tuple[slice, slice]) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(first, second, strict=True))


def _checked_section(text: str) -> str:
    parse_section(text)
    return text


Section = Annotated[str, AfterValidator(_checked_section)]


class Part(BaseModel):
    """A model whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Overscan(Part):
    """Where an amplifier's overscan (or prescan) lies in the raw file."""

    section: Section
    """FITS section within its extension."""
    extension: int | str | None = None
    """Extension that holds it; None: the amplifier's own."""


class Amplifier(Part):
    """One readout channel: where its pixels lie and how it responds."""

    name: str
    data_section: Section
    """FITS section of the light-sensitive pixels within the raw extension."""
    detector_section: Section
    """FITS section they fill in the assembled detector image."""
    extension: int | str = 0
    """HDU of the raw file, by number or name (0: the first image HDU of a plain or .fz file)."""
    overscans: tuple[Overscan, ...] = ()
    """Overscan regions; empty: none, the bias level comes from the bias master or the camera's value."""
    flip_x: bool = False
    """Mirror along x on assembly (read out from the right)."""
    flip_y: bool = False
    """Mirror along y on assembly (read out from the top)."""
    reads_from_right: bool = False
    """The output lies at the right of the data section as the raw file has it: pixels there are read first."""
    reads_from_top: bool = False
    """The same for its last row."""
    gain: float = Field(gt=0)
    """Electrons per ADU."""
    read_noise: float = Field(ge=0)
    """Electrons, rms."""
    saturation: float = Field(gt=0)
    """ADU above which a raw pixel is saturated (before bias subtraction)."""
    linear_below: float | None = Field(default=None, gt=0)
    """ADU above which the response is not known to be linear (before bias subtraction), which makes pixels SUSPECT."""
    bias_level: float = 0.0
    """ADU to subtract where neither overscan nor bias master exists."""


class FocalPlanePosition(Part):
    """Where a detector sits: offset of its centre from the boresight and its orientation."""

    x_arcsec: float = 0.0
    """Offset towards west (-RA) at camera rotation 0, arcsec on the tangent plane."""
    y_arcsec: float = 0.0
    """Offset towards north (+Dec), arcsec."""
    rotation_deg: float = 0.0
    """Rotation of the sky on the detector, as in `Wcs.tangent`."""
    parity: int = Field(default=1, ge=-1, le=1)
    """1: as on the sky; -1: mirrored."""


class Detector(Part):
    """The processing unit: a CCD, or a readout quadrant of one."""

    id: int = Field(ge=0)
    """Number within the camera, stable for ever."""
    name: str
    ccd: int = 1
    """CCD number, from 1 (wire: ccdid)."""
    quadrant: int = Field(default=1, ge=1, le=4)
    """Readout quadrant within the CCD, from 1 (wire: part of rcid)."""
    shape: tuple[int, int]
    """(ny, nx) of the assembled image, pixels."""
    focal_plane: FocalPlanePosition = FocalPlanePosition()
    amplifiers: tuple[Amplifier, ...] = Field(min_length=1)
    readout_axis: str = Field(default="y", pattern="^[xy]$")
    """Axis along which charge moves to the register: saturated pixels bleed along it."""
    crosstalk_with: tuple[int, ...] = ()
    """Ids of detectors in the same raw file that are read at the same moment by the same electronics."""
    edge_pixels: int = Field(default=0, ge=0)
    """Width of the border that is doubtful in every exposure; the flat may show more."""

    @property
    def rcid(self) -> int:
        """Readout-channel id on the wire: (ccd - 1) * 4 + quadrant - 1."""
        return (self.ccd - 1) * 4 + self.quadrant - 1

    @property
    def readout_blocks(self) -> tuple[slice, ...]:
        """Parts of the readout axis, each read out by amplifiers of its own: charge passes from none to the next."""
        axis = 0 if self.readout_axis == "y" else 1
        targets = [parse_section(amplifier.detector_section)[axis] for amplifier in self.amplifiers]
        edges = sorted({edge for target in targets for edge in (target.start, target.stop)})
        return tuple(slice(*pair) for pair in pairwise(edges))

    @model_validator(mode="after")
    def _amplifiers_fill_the_detector(self) -> Detector:
        targets: list[tuple[slice, slice]] = []
        for amplifier in self.amplifiers:
            target = parse_section(amplifier.detector_section)
            source = parse_section(amplifier.data_section)
            sizes = [tuple(s.stop - s.start for s in part) for part in (target, source)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"amplifier {amplifier.name}: data_section is {sizes[1]} but detector_section {sizes[0]}"
                )
            if target[0].stop > self.shape[0] or target[1].stop > self.shape[1]:
                raise ValueError(f"amplifier {amplifier.name}: detector_section exceeds shape {self.shape}")
            targets.append(target)
        area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in targets)
        if area != self.shape[0] * self.shape[1] or any(_overlap(a, b) for a, b in combinations(targets, 2)):
            raise ValueError(f"detector {self.name}: amplifiers leave gaps or overlap in shape {self.shape}")
        return self


class Filter(Part):
    """A piece of glass and how it is tied to catalog bands."""

    physical_filter: str
    """Name of the glass, as products carry it."""
    band: str
    """Short band name (g, r, i, VR, clear...)."""
    fid: int = Field(ge=0)
    """Filter number on the wire (1 g, 2 r, 3 i for ZTF-like streams)."""
    aliases: tuple[str, ...] = ()
    """Header values that mean this filter."""
    catalog_band: str = "r"
    """Reference-catalog band the zero point is tied to."""
    colour: tuple[str, str] = ("g", "r")
    """Catalog colour of the colour term."""
    has_fringes: bool = False
    """The sky's emission lines interfere in the detector at these wavelengths (red filters, thinned detectors)."""


class Ghost(Part):
    """A family of reflections within the optics: where the ghost of a star falls, how large, how bright."""

    name: str
    scale: float
    """Distance of the ghost from the optical axis over that of its star: 1 at the star, -1 on the other side."""
    offset_arcsec: tuple[float, float] = (0.0, 0.0)
    """Of all ghosts of the family in the focal plane, towards west and north at camera rotation 0."""
    radius_arcsec: float = Field(gt=0)
    """Of the pupil out of focus."""
    obstruction: float = Field(default=0.0, ge=0, lt=1)
    """Inner over outer radius."""
    shear: float = 0.0
    """Displacement of the hole within the ghost over the distance of the star from the axis."""
    fraction: float = Field(gt=0, lt=1)
    """Of the star's light that is in the ghost."""

    @model_validator(mode="after")
    def _ghosts_depend_on_the_star(self) -> Ghost:
        if abs(self.scale) < 0.05:
            raise ValueError(
                f"scale {self.scale} of ghost {self.name}: a ghost that does not move with its star is sky"
            )
        return self


class Site(Part):
    """Where the telescope stands."""

    name: str
    latitude_deg: float = Field(ge=-90, le=90)
    longitude_deg: float = Field(ge=-180, le=180)
    """East-positive."""
    height_m: float = 0.0
    mpc_code: str = "500"
    """Observatory code; 500 is the geocentre."""

    @property
    def is_placed(self) -> bool:
        """Whether somebody filled in where it is: a draft stands at latitude 0, longitude 0."""
        return (self.latitude_deg, self.longitude_deg) != (0.0, 0.0)


class BlindSolving(Part):
    """How an exposure without a position is found in the whole sky, by Astrometry.net's solver."""

    index_folders: tuple[str, ...] = ("/usr/share/astrometry",)
    """Where index files lie, besides those that the repository made of its own reference catalogs."""
    cpu_limit_s: float = Field(default=60.0, gt=0)
    """The solver gives up after so many seconds of CPU."""


class Camera(Part):
    """Everything the pipelines know of a camera beforehand."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str = ""
    site: Site
    pixel_scale_arcsec: float = Field(gt=0)
    pixel_scale_tolerance: float = Field(default=0.05, ge=0, le=0.5)
    """Fraction by which the true scale may differ."""
    pointing_tolerance_arcmin: float = Field(default=5.0, gt=0)
    """How wrong the header's pointing may be."""
    rotation_tolerance_deg: float = Field(default=5.0, ge=0, le=180)
    """How wrong the rotation may be; 180: unknown."""
    is_parity_known: bool = True
    blind_solving: BlindSolving | None = None
    """Where it is given (``blind_solving: {}``), exposures whose header has no position are found by their stars."""
    has_sky: bool = True
    """False: a laboratory camera. Its science images are detrended, and that is all: no stars, no zero point."""
    exposure_range_s: tuple[float, float] = (0.05, 7200.0)
    """Science exposure times outside this are impossible."""
    filters: tuple[Filter, ...] = Field(min_length=1)
    detectors: tuple[Detector, ...] = Field(min_length=1)
    header: HeaderMapping
    """How raw headers are read."""
    typical_fwhm_arcsec: float = Field(default=2.0, gt=0)
    typical_depth_mag: float = 20.0
    """5-sigma limit of a typical exposure, AB."""
    ghosts: tuple[Ghost, ...] = ()
    """Ghosts of bright stars; where a star's is brighter than the noise of the sky, pixels are marked GHOST."""
    optical_axis_arcsec: tuple[float, float] = (0.0, 0.0)
    """Where the optical axis meets the focal plane, from the boresight towards west and north, for the ghosts."""
    settings: dict[str, dict[str, Any]] = {}
    """Overrides of pipeline parameters for this camera, by section; a repository's own override these."""

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Camera:
        for what, values in (
            ("detector id", [d.id for d in self.detectors]),
            ("detector name", [d.name for d in self.detectors]),
            ("physical_filter", [f.physical_filter for f in self.filters]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} is not unique: {values}")
        return self

    @model_validator(mode="after")
    def _filter_names_are_unambiguous(self) -> Camera:
        owner: dict[str, str] = {}
        for item in self.filters:
            for name in {item.physical_filter, *item.aliases}:
                if owner.setdefault(name, item.physical_filter) != item.physical_filter:
                    raise ValueError(f"filter name {name!r} means both {owner[name]} and {item.physical_filter}")
        default = self.header.default_filter
        if default is not None and self.filter_named(default) is None:
            raise ValueError(f"header.default_filter {default!r} is none of the filters {sorted(owner)}")
        if not 0 <= self.exposure_range_s[0] < self.exposure_range_s[1]:
            raise ValueError(f"exposure_range_s {self.exposure_range_s} must be (least, most)")
        return self

    @cached_property
    def detectors_by_id(self) -> dict[int, Detector]:
        """Detectors keyed by id."""
        return {detector.id: detector for detector in self.detectors}

    def detector(self, detector_id: int) -> Detector:
        """Return one detector; ConfigError if the camera has none of that number."""
        try:
            return self.detectors_by_id[detector_id]
        except KeyError:
            raise ConfigError(f"camera {self.name} has no detector {detector_id}") from None

    def filter_named(self, name: str) -> Filter | None:
        """Return the filter of this name, band or alias (exact, then without case); None if unknown."""
        for fold in (str, str.lower):
            for item in self.filters:
                if fold(name) in {fold(a) for a in (item.physical_filter, *item.aliases)}:
                    return item
        return None

    def nominal_wcs(self, detector: Detector, *, ra: float, dec: float, rotation_deg: float = 0.0) -> Wcs:
        """Return the undistorted WCS that a boresight pointing implies for one detector.

        ``rotation_deg`` turns the whole camera, in the sense of `Wcs.tangent`.
        """
        place = detector.focal_plane
        from gueststar.model.wcs import Wcs

        boresight = Wcs.tangent(ra=ra, dec=dec, x=0.0, y=0.0, scale_arcsec=1.0, rotation_deg=rotation_deg)
        # The boresight frame has one unit per arcsec; x runs west, y north at rotation 0.
        centre_ra, centre_dec = boresight.pixel_to_sky(x=place.x_arcsec, y=place.y_arcsec)
        ny, nx = detector.shape
        local = Wcs.tangent(
            ra=float(centre_ra), dec=float(centre_dec), x=(nx - 1) / 2, y=(ny - 1) / 2,
            scale_arcsec=self.pixel_scale_arcsec, rotation_deg=rotation_deg + place.rotation_deg,
            parity=place.parity,
        )  # fmt: skip
        return local
