"""Reliability models: trees, calibration and card as JSON, the network beside it as ONNX."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.algorithms.vetting.boosted_trees import Trees
from gueststar.algorithms.vetting.calibration import Calibration, Stack
from gueststar.algorithms.vetting.features import FEATURE_NAMES, FEATURE_VERSION
from gueststar.algorithms.vetting.network import StampNetwork
from gueststar.algorithms.vetting.score import CalibratedNetwork, ReliabilityModel
from gueststar.algorithms.vetting.stamps import INPUT_VERSION
from gueststar.core.errors import ConfigError
from gueststar.formats.atomic import appearing_whole

_DIGITS = 8


def write_reliability_model(path: Path, model: ReliabilityModel) -> None:
    """Write a model to ``path`` (.json), and its network beside it (.onnx); each file appears whole or not at all."""
    content: dict[str, Any] = {
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
    if model.network is not None:
        graph = model.network.network.graph
        content["network"] = {
            "input_version": model.network.network.input_version,
            "digest": _digest(graph),
            "calibration": model.network.calibration._asdict(),
            "stack": model.network.stack._asdict(),
        }
        with appearing_whole(network_path(path)) as temporary:
            temporary.write_bytes(graph)
    with appearing_whole(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


def network_path(path: Path) -> Path:
    """Return where the network of the model at ``path`` lies."""
    return path.with_suffix(".onnx")


def read_reliability_model(path: Path) -> ReliabilityModel:
    """Read a model; raises ConfigError if the file is none or its features are not those measured here."""
    try:
        content = json.loads(path.read_text())
        graph = network_path(path).read_bytes() if content.get("network") else None
        return _model_from(content, graph, str(path))
    except OSError as problem:
        raise ConfigError(f"reliability model {path} cannot be read: {problem}") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(f"{path} is not a reliability model: {problem}") from problem


@cache
def default_reliability_model() -> ReliabilityModel:
    """Return the model that ships with the package."""
    folder = resources.files("gueststar.formats") / "models"
    content = json.loads((folder / "reliability.json").read_text())
    graph = (folder / "reliability.onnx").read_bytes() if content.get("network") else None
    return _model_from(content, graph, "models/reliability.json")


def _model_from(content: dict[str, Any], graph: bytes | None, name: str) -> ReliabilityModel:
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
    return ReliabilityModel(
        content["version"], content["feature_version"], FEATURE_NAMES, trees, Calibration(**content["calibration"]),
        content.get("training", {}), _network_from(content["network"], graph, name) if graph is not None else None,
    )  # fmt: skip


def _network_from(content: dict[str, Any], graph: bytes, name: str) -> CalibratedNetwork:
    if content["digest"] != _digest(graph):
        raise ConfigError(f"the network beside reliability model {name} is another one: copy .json and .onnx together")
    if content["input_version"] != INPUT_VERSION:
        raise ConfigError(
            f"the network of reliability model {name} was trained on views of version {content['input_version']}; "
            f"this release makes version {INPUT_VERSION}: train it again"
        )
    network = StampNetwork(graph, int(content["input_version"]))
    return CalibratedNetwork(network, Calibration(**content["calibration"]), Stack(**content["stack"]))


def _digest(graph: bytes) -> str:
    return hashlib.blake2b(graph, digest_size=16).hexdigest()


def _rounded(values: Any) -> list[float | None]:
    """Return numbers with eight digits, infinity as null."""
    return [float(f"{x:.{_DIGITS}g}") if np.isfinite(x) else None for x in np.asarray(values).tolist()]
