"""What a survey decides for itself: the file survey.yaml of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole


class SurveySettings(BaseModel):
    """Settings of one survey; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "survey"
    """Shown in reports and alerts."""
    database: str | None = None
    """URL of a PostgreSQL database; None: SQLite files in the repository."""
    field_tolerance_arcmin: float | None = Field(default=None, gt=0)
    """Pointings this near are the same field, where headers name none; None: the camera's pointing tolerance."""
    parameters: dict[str, dict[str, Any]] = {}
    """Overrides of pipeline parameters by section, above those of the camera."""


def read_settings(path: Path) -> SurveySettings:
    """Read survey.yaml; ConfigError names the key that is wrong."""
    try:
        return SurveySettings.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(str(key) for key in first['loc'])}: {first['msg']}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path} is not YAML: {problem}") from None


def write_settings(path: Path, settings: SurveySettings) -> None:
    """Write survey.yaml."""
    with appearing_whole(path) as temporary:
        temporary.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
