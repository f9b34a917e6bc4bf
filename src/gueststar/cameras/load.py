"""Read a camera's description from YAML, the packaged ones by name.

The file is the model of `gueststar.model.camera.Camera` as YAML. Many detectors that differ in a few
numbers are written as one template and a table:

    detector_template:
      name: "{ccd}.{quadrant}"
      amplifiers: [{name: A, gain: "{gain}", ...}]
      ...
    detector_table:
      columns: [id, ccd, quadrant, gain]
      rows:
        - [0, 1, 1, 6.2]

A text that is exactly ``"{column}"`` becomes the value of the table, with its type; within a longer
text the value is written in. Columns that are fields of a detector (id, ccd, quadrant) need not be in the
template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gueststar.core.errors import ConfigError
from gueststar.model.camera import Camera, Detector

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which a key that is written twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != "tag:yaml.org,2002:merge" and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


def camera_names() -> tuple[str, ...]:
    """Return the names of the packaged cameras, in alphabetical order."""
    room = resources.files("gueststar.cameras")
    return tuple(sorted(item.name for item in room.iterdir() if (item / "camera.yaml").is_file()))


def load_camera(name_or_path: str | Path) -> Camera:
    """Return a packaged camera by name, or the one that a YAML file describes.

    Raises ConfigError naming file, key and value of the first mistake.
    """
    text = str(name_or_path)
    if text in camera_names():
        content = (resources.files("gueststar.cameras") / text / "camera.yaml").read_text(encoding="utf-8")
        return parse_camera(content, source=f"camera {text}")
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"there is no camera or file {text!r}; packaged cameras: {', '.join(camera_names())}")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"camera file {text} cannot be read: {error}") from None
    return parse_camera(content, source=text)


def parse_camera(content: str, *, source: str) -> Camera:
    """Return the camera that YAML text describes; ``source`` is for messages."""
    try:
        data = yaml.load(content, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source} holds {type(data).__name__}, needs keys such as name, site, detectors")
    data.pop("definitions", None)
    try:
        return Camera.model_validate(_expanded(data, source))
    except ValidationError as error:
        raise ConfigError(_first_mistake(error, source)) from None


def _expanded(data: dict[str, Any], source: str) -> dict[str, Any]:
    """Return ``data`` with its detector template and table turned into a list of detectors."""
    rest = {key: value for key, value in data.items() if key not in ("detector_template", "detector_table")}
    if len(rest) == len(data):
        return data
    template, table = data.get("detector_template"), data.get("detector_table")
    if not isinstance(template, dict) or not isinstance(table, dict) or set(table) != {"columns", "rows"}:
        raise ConfigError(f"{source}: detector_template and detector_table (with columns and rows) go together")
    if "detectors" in data:
        raise ConfigError(f"{source}: detectors and detector_table exclude each other")
    columns, detectors = table["columns"], []
    for number, row in enumerate(table["rows"]):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ConfigError(
                f"{source}: detector_table.rows.{number} is {row!r}, needs {len(columns)} values {columns}"
            )
        values = dict(zip(columns, row, strict=True))
        own = {key: values[key] for key in columns if key in Detector.model_fields}
        detectors.append({**own, **_filled(template, values, source)})
    return {**rest, "detectors": detectors}


def _filled(item: Any, values: Mapping[str, Any], source: str) -> Any:
    if isinstance(item, dict):
        return {key: _filled(value, values, source) for key, value in item.items()}
    if isinstance(item, list):
        return [_filled(value, values, source) for value in item]
    if not isinstance(item, str):
        return item
    unknown = set(_PLACEHOLDER.findall(item)) - set(values)
    if unknown:
        raise ConfigError(f"{source}: {item!r} in detector_template names no column of {list(values)}")
    whole = _PLACEHOLDER.fullmatch(item)
    return values[whole[1]] if whole else _PLACEHOLDER.sub(lambda match: str(values[match[1]]), item)


def _first_mistake(error: ValidationError, source: str) -> str:
    mistakes = error.errors()
    first = mistakes[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole"
    value = repr(first["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    more = f" ({len(mistakes) - 1} more mistakes)" if len(mistakes) > 1 else ""
    return f"{source}: {key} = {value}: {first['msg'].removeprefix('Value error, ')}{more}"


def to_yaml(camera: Camera) -> str:
    """Return a description that `load_camera` reads back to an equal camera; defaults are left out."""
    data = camera.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))
