"""Reliability models as JSON: trees, calibration, and what they were trained on."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.algorithms.vetting.boosted_trees import Trees
from gueststar.algorithms.vetting.calibration import Calibration
from gueststar.algorithms.vetting.features import FEATURE_NAMES, FEATURE_VERSION
from gueststar.algorithms.vetting.score import ReliabilityModel
from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole

_DIGITS = 8


def write_reliability_model(path: Path, model: ReliabilityModel) -> None:
    """Write a model; the file appears whole or not at all."""
    content = {
        "version": model.version,
        "feature_version": model.feature_version,
        "feature_names": list(model.feature_names),
        "training": model.training,
        "calibration": model.calibration._asdict(),
        "bias": model.trees.bias,
        "feature": model.trees.feature.tolist(),
        "threshold": [_rounded(row) for row in model.trees.threshold],
        "nan_left": model.trees.nan_left.astype(int).tolist(),
        "value": [_rounded(row) for row in model.trees.value],
    }
    with appearing_whole(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


def read_reliability_model(path: Path) -> ReliabilityModel:
    """Read a model; raises ConfigError if the file is none or its features are not those measured here."""
    try:
        return _model_from(json.loads(path.read_text()), str(path))
    except OSError as problem:
        raise ConfigError(f"reliability model {path} cannot be read: {problem}") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is not a reliability model: {problem}") from problem


@cache
def default_reliability_model() -> ReliabilityModel:
    """Return the model that ships with the package."""
    name = "models/reliability.json"
    return _model_from(json.loads((resources.files("gueststar.formats") / name).read_text()), name)


def _model_from(content: dict[str, Any], name: str) -> ReliabilityModel:
    if content["feature_version"] != FEATURE_VERSION or tuple(content["feature_names"]) != FEATURE_NAMES:
        raise ConfigError(
            f"reliability model {name} was trained on features of version {content['feature_version']}; "
            f"this release measures version {FEATURE_VERSION}: train it again"
        )
    threshold = [[np.inf if edge is None else edge for edge in row] for row in content["threshold"]]
    trees = Trees(
        np.asarray(content["feature"], dtype=np.intp), np.asarray(threshold, dtype=np.float64),
        np.asarray(content["nan_left"], dtype=bool), np.asarray(content["value"], dtype=np.float64),
        float(content["bias"]),
    )  # fmt: skip
    calibration = Calibration(**content["calibration"])
    return ReliabilityModel(
        content["version"], content["feature_version"], FEATURE_NAMES, trees, calibration, content.get("training", {})
    )


def _rounded(values: Any) -> list[float | None]:
    """Return numbers with eight digits, infinity as null."""
    return [float(f"{x:.{_DIGITS}g}") if np.isfinite(x) else None for x in np.asarray(values).tolist()]
