"""What a survey decides about its operation: sections of survey.yaml that the operator reads."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LandingPlace(_Section):
    """A folder where files arrive."""

    path: Path
    """The folder; folders within it are looked into as well."""
    holds: Literal["raw", "ephemerides", "schedule"] = "raw"
    """What arrives there: raw exposures; orbits of known bodies; lists of expected exposures."""
    complete_by: Literal["rename", "checksum", "stable"] = "stable"
    """When a file is whole: as soon as it has its name (it was renamed into place); when FILE.sha256 or FILE.md5 lies
    beside it and agrees; when its size and time stayed the same for ``stable_s``."""
    stable_s: float = Field(default=5.0, ge=0)
    """How long a file stays unchanged before it is taken as whole."""
    empty_s: float = Field(default=600.0, gt=0)
    """A file that has been empty for so long is refused, whatever ``complete_by`` says; if it grows later, it is taken
    again."""
    scan_s: float = Field(default=10.0, gt=0)
    """The folder is read through this often: events get lost, and network file systems send none."""
    transfer: Literal["copy", "link", "direct"] = "copy"
    """How files come into the repository."""
    after: Literal["leave", "remove"] = "leave"
    """What becomes of a file that the repository holds (verified by its checksum): it stays, or is removed."""


class MailSettings(_Section):
    """How messages leave; without ``server`` none do."""

    server: str | None = None
    port: int = Field(default=25, ge=1, le=65535)
    security: Literal["plain", "starttls", "tls"] = "plain"
    username: str | None = None
    password_variable: str = "GUESTSTAR_MAIL_PASSWORD"
    """Environment variable that holds the password: it is never stored."""
    sender: str = "gueststar@localhost"
    reports_to: tuple[str, ...] = ()
    """Who gets nightly and weekly reports."""
    alarms_to: tuple[str, ...] = ()
    """Who gets alarms."""


class AlarmSettings(_Section):
    """When and how somebody is called."""

    webhook: str | None = None
    """URL to which alarms are posted as JSON."""
    quiet_hours: tuple[str, str] | None = None
    """Local begin and end (HH:MM) between which only critical alarms are sent; the others wait until the end."""
    time_zone: str = "UTC"
    """Time zone of the quiet hours: America/Los_Angeles."""
    repeat_hours: float = Field(default=6.0, gt=0)
    """An alarm that stays open is sent again this often."""
    limits: dict[str, float] = {}
    """Changes of what counts as wrong, by the names of the table in the playbook: no_exposure_min: 20."""

    @field_validator("quiet_hours", mode="before")
    @classmethod
    def _as_written(cls, hours: Any) -> Any:
        return None if hours is None else tuple(_clock_time(item) for item in hours)

    @field_validator("time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone such as America/Los_Angeles") from None
        return name


def _clock_time(written: Any) -> str:
    """Return a time of day as HH:MM; YAML takes 22:00 without quotes for a number to the base 60."""
    text = f"{written // 60:02d}:{written % 60:02d}" if isinstance(written, int) else str(written)
    try:
        return time.fromisoformat(text.rjust(5, "0")).strftime("%H:%M")
    except ValueError:
        raise ValueError(f"{text!r} is no time of day such as 22:30") from None


class DiskSettings(_Section):
    """Marks of the disks that the operator watches."""

    sandbox_low_gb: float = Field(default=20.0, ge=0)
    """Free space of the repository's disk below which what can be made again is cleaned up."""
    archive: Path | None = None
    """Folder of a second copy (another disk) of raw files and products; None: there is none."""
    archive_low_gb: float = Field(default=50.0, ge=0)
    """Free space of the archive's disk below which an alarm is raised."""
    reserve_gb: float = Field(default=1.0, ge=0)
    """Free space below which nothing new is begun: what is running finishes, files stay in their landing places."""


class ClusterSettings(_Section):
    """Where work runs."""

    kind: Literal["local", "slurm", "htcondor", "pbs", "kubernetes", "scheduler"] = "local"
    """Processes of this machine; jobs of a batch system; pods; or the Dask scheduler at ``address``."""
    workers: int | None = Field(default=None, ge=1)
    """Worker processes of one core each; None: the machine's cores, at least one."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of a worker: one that takes more is ended and replaced. None: nine tenths of the machine, shared."""
    unit_limit_s: float = Field(default=900.0, gt=0)
    """A unit of work that takes longer than this is taken for hung: its worker is ended, and it is tried again."""
    address: str | None = None
    """Of a Dask scheduler that runs already: tcp://host:8786."""
    options: dict[str, Any] = {}
    """Further arguments of the cluster's class (queue, account, image...), passed on as they are."""


class QueueSettings(_Section):
    """In which order the operator works, and how long it waits."""

    patience_s: float = Field(default=240.0, ge=0)
    """How long an image whose candidates are ready waits for earlier exposures of the same sky: what an image becomes
    must not depend on which worker was faster. Later ones are taken as late."""
    calibrations_quiet_s: float = Field(default=120.0, ge=0)
    """A night's bias, dark and flat frames are a complete set when none came for this long."""
    backlog_share: int = Field(default=4, ge=2)
    """While tonight's exposures wait, every so many units of work is one of the backlog."""
    files_at_once: int = Field(default=8, ge=1)
    """Files taken in before other work has its turn."""
    prompt_s: float = Field(default=600.0, gt=0)
    """Exposures older than this when their files arrive are a backlog: newer ones are taken in before them."""
    publish_every_s: float = Field(default=2.0, gt=0)
    """Alerts are sent at most this often."""
    do_prewarm: bool = True
    """Load references and calibrations of the next pointing before its pixels come."""


class OperationSettings(_Section):
    """How the survey is operated."""

    landing: tuple[LandingPlace, ...] = ()
    """Where files arrive."""
    rules: Path | None = None
    """File of rules; None: REPO/rules.yaml if there, else those that ship."""
    mail: MailSettings = MailSettings()
    alarms: AlarmSettings = AlarmSettings()
    disks: DiskSettings = DiskSettings()
    cluster: ClusterSettings = ClusterSettings()
    queue: QueueSettings = QueueSettings()
    latency_required_s: float = Field(default=600.0, gt=0)
    """From shutter to received, and from received to alert, that 95 % of the images must keep."""
    latency_goal_s: float = Field(default=300.0, gt=0)
    """The same, hoped for."""
