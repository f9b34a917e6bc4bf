"""What a survey is, as far as its machines are concerned: one YAML, every number with where it is from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gueststar.core.errors import ConfigError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Camera(_Part):
    """What is read out at each exposure."""

    images: int = Field(ge=1)
    """Images that are processed by themselves: CCDs, or readout quadrants."""
    mpix: float = Field(gt=0)
    """Pixels of one of them, millions."""
    bits: float = 16.0
    """Of a raw pixel."""
    overhead: float = 0.0
    """Overscan and the like, as a share of the pixels."""
    exposure_bytes: float | None = None
    """Raw bytes of an exposure, where they are told; None: from pixels and bits."""
    raw_compression: float = Field(default=1.0, ge=1.0)
    """How much smaller raw files are stored and sent."""


class Cadence(_Part):
    """When exposures come."""

    exposure_s: float = Field(gt=0)
    interval_s: float = Field(gt=0)
    """From one exposure to the next."""
    exposures_per_night: float = Field(gt=0)
    """Of the sky, of all sites together."""
    calibrations_per_night: float = 0.0
    nights_per_year: float = Field(gt=0, le=366)
    years: float = Field(gt=0)
    sites: int = Field(default=1, ge=1)
    """Telescopes that send at the same time; ``interval_s`` is that of each."""


class Sky(_Part):
    """What is on an image."""

    sources: float = Field(ge=0)
    """On a typical image."""
    crowded_sources: float | None = None
    """On the most crowded ones."""
    crowded_share: float = Field(default=0.0, ge=0, le=1)
    """Of the images that are so crowded."""
    alerts_per_exposure: float = Field(default=0.0, ge=0)
    peak_alerts_per_exposure: float | None = None
    """In the worst exposure."""
    fields: float | None = None
    """Pointings that get references; None: no references are counted."""
    filters: int = 1


class Keep(_Part):
    """What is kept."""

    copies: float = Field(default=2.0, ge=1)
    """Of raw files, packets and catalogs."""
    image_nights: float | None = None
    """Nights that images are kept (one copy); None: all."""
    cutouts: bool = True
    """Whether packets carry cut-outs."""


class Aim(_Part):
    """What is asked of the machines."""

    latency_s: float = 600.0
    """From the end of the exposure to alerts, for 95 % of the images."""
    goal_s: float = 300.0
    transfer_mbps: float | None = None
    """Rate of the link from the telescope; None: as much as is needed."""


class Told(_Part):
    """A figure of the survey's own documents."""

    what: str
    value: float
    unit: str
    figure: str
    """Which figure of the model it is compared with."""
    source: str
    is_input: bool = False
    """Numbers of this description were taken from it: it comes out as it went in."""


class Theirs(_Part):
    """What their own processing takes."""

    cpu_s_per_image: float | None = None
    product_bytes_per_image: float | None = None
    reference_bytes: float | None = None
    source: str = ""


class Survey(_Part):
    """A survey."""

    name: str
    title: str
    kind: Literal["sky", "laboratory"] = "sky"
    """laboratory: images are detrended only, as of a camera that sees no sky."""
    camera: Camera
    cadence: Cadence
    sky: Sky = Sky(sources=0)
    keep: Keep = Keep()
    aim: Aim = Aim()
    theirs: Theirs = Theirs()
    told: tuple[Told, ...] = ()
    """Figures that the model has to give as well."""
    sources: dict[str, str] = {}
    """Number of this file -> where it is from; ``assumed: ...`` where no document was found."""
    claims: dict[str, float] = {}
    """Numbers of statements that are examined (MAGIS)."""


def shipped_names() -> list[str]:
    """Return the names of the descriptions that come with this version."""
    folder = files("gueststar.operations.sizing").joinpath("surveys")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def read_survey(name_or_path: str) -> Survey:
    """Return a shipped description by name, or one of a file; ConfigError names what is wrong with it."""
    if name_or_path in shipped_names():
        folder = files("gueststar.operations.sizing").joinpath("surveys")
        text, where = folder.joinpath(f"{name_or_path}.yaml").read_text(), f"{name_or_path}.yaml"
    else:
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(shipped_names())
            raise ConfigError(f"{name_or_path} is no file and no survey that is known ({known})")
        text, where = path.read_text(), str(path)
    try:
        return Survey.model_validate(yaml.safe_load(text))
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ConfigError(f"{where}: {'.'.join(str(key) for key in first['loc'])}: {first['msg']}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{where} is not YAML: {str(problem).splitlines()[0]}") from None
