"""What a survey decides for itself: the file survey.yaml of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.plain_yaml import read_yaml
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.store.operation_settings import OperationSettings


class Release(BaseModel):
    """From a date on, a program's exposures up to a night are public."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: Literal["partnership", "private"]
    until_night: int = Field(ge=19000101, le=29991231)
    """Last night (YYYYMMDD) whose exposures are released."""
    date: str
    """When they become public, UTC: 2026-01-01T00:00:00."""

    @property
    def mjd_tai(self) -> float:
        """The moment of release, MJD TAI."""
        return times.mjd_tai_from_utc(self.date)

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, text: str) -> str:
        times.mjd_tai_from_utc(text)
        return text


class StreamSettings(BaseModel):
    """Where and how alerts are published; without ``bootstrap_servers`` they stay in the alert log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap_servers: str | None = None
    """Brokers of a Kafka: host:port,host:port. None: the repository's own broker if it has one."""
    topic: str = "ztf_{night}_programid{program}"
    """Name of a night's topic of one program; brokers' readers look for this form."""
    flavours: tuple[Literal["lite", "rubin", "fink"], ...] = ()
    """Forms in which each alert also leaves: without cut-outs; as those of Rubin; for clients of Fink."""
    lite_topic: str = "lite_{night}_programid{program}"
    """Name of a night's topic of packets without cut-outs."""
    rubin_topic: str = "rubin_{night}_programid{program}"
    """Name of a night's topic of packets in Rubin's form."""
    fink_topic: str = "fink_{night}_programid{program}"
    """Name of a night's topic of packets whose schema is in the message's key."""
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    username: str | None = None
    password_variable: str = "GUESTSTAR_KAFKA_PASSWORD"
    """Environment variable that holds the password: it is never stored."""
    ca_file: str | None = None
    """Certificates by which the brokers are known (PEM); None: the system's."""
    partitions: int = Field(default=1, ge=1)
    """Of a new topic. With one, alerts are in order; with more, those of one object are."""
    replication: int = Field(default=1, ge=1)
    """Copies of a new topic among the brokers."""
    max_alerts_per_image: int = Field(default=2000, ge=1)
    """A detector image with more alerts is held back and reported, not sent: something is wrong with it."""
    readers: dict[Literal["public", "partnership", "private"], tuple[str, ...]] = {"public": ("*",)}
    """Kafka users that may read a program's topics; * is every user. Used where the brokers have access lists."""

    @field_validator("topic", "lite_topic", "rubin_topic", "fink_topic")
    @classmethod
    def _names_night_and_program(cls, text: str) -> str:
        if "{night}" not in text or "{program}" not in text:
            raise ValueError("must hold {night} and {program}: programs never share a topic")
        try:
            text.format(night=20250101, program=1)
        except (LookupError, ValueError):
            raise ValueError("may hold {night} and {program} only") from None
        return text

    @model_validator(mode="after")
    def _flavours_have_topics_of_their_own(self) -> Self:
        if len({self.topic, self.lite_topic, self.rubin_topic, self.fink_topic}) < 4:
            raise ValueError("topic, lite_topic, rubin_topic and fink_topic must differ: their messages do")
        return self


class FilterSettings(BaseModel):
    """What filters of users may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget_ms: float = Field(default=100.0, gt=0)
    """CPU of one filter on one batch of alerts; one that takes more is paused and reported."""
    alerts_at_once: int = Field(default=1000, ge=1)
    """Alerts of a batch, about: whole detector images are taken."""


class SurveySettings(BaseModel):
    """Settings of one survey; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "survey"
    """Shown in reports and alerts."""
    database: str | None = None
    """URL of a PostgreSQL database; None: SQLite files in the repository."""
    field_tolerance_arcmin: float | None = Field(default=None, gt=0)
    """Pointings this near are the same field, where headers name none; None: the camera's pointing tolerance."""
    releases: tuple[Release, ...] = ()
    """What has become, or will become, public and when; nothing unless listed."""
    do_share_partnership_and_private: bool = False
    """Partnership alerts may carry private items and the reverse."""
    groups: dict[str, tuple[Literal["partnership", "private"], ...]] = {
        "partnership": ("partnership",), "private": ("private",),
    }  # fmt: skip
    """Groups of users, and the programs that each may see besides the public one."""
    stream: StreamSettings = StreamSettings()
    """Where alerts are published."""
    filters: FilterSettings = FilterSettings()
    """What filters of users may take."""
    operation: OperationSettings = OperationSettings()
    """How the survey is operated: landing places, mail, alarms, disks, cluster."""
    parameters: dict[str, dict[str, Any]] = {}
    """Overrides of pipeline parameters by section, above those of the camera."""


def rights_policy(settings: SurveySettings) -> RightsPolicy:
    """Return the data policy that a survey's settings describe."""
    until: dict[Program, tuple[tuple[int, float], ...]] = {}
    for release in settings.releases:
        program = Program[release.program.upper()]
        until[program] = (*until.get(program, ()), (release.until_night, release.mjd_tai))
    return RightsPolicy(Releases(until), settings.do_share_partnership_and_private)


def read_settings(path: Path) -> SurveySettings:
    """Read survey.yaml; ConfigError names the key that is wrong."""
    try:
        return SurveySettings.model_validate(read_yaml(path.read_text()) or {})
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(str(key) for key in first['loc'])}: {first['msg']}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path} is not YAML: {problem}") from None


def write_settings(path: Path, settings: SurveySettings) -> None:
    """Write survey.yaml."""
    with appearing_whole(path) as temporary:
        temporary.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
