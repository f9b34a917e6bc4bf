"""What a detector image costs, as measured: CPU by stage and step, bytes by product, memory, alerts.

Costs of other images follow by a straight line through what was measured: so much for every pixel, so much for every
source. With images of one density of sources only, nothing is said of the dependence on it.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gueststar import __version__
from gueststar.core.errors import ConfigError

STAGES = ("science", "difference", "association")
"""Kinds of work from raw file to alerts."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MeasuredSky(_Part):
    """Medians over the images of one kind of sky."""

    name: str
    n_images: int
    mpix: float
    """Pixels of an image, millions."""
    n_sources: float
    """In its catalog."""
    n_alerts: float
    cpu_s: dict[str, float]
    """Stage -> seconds of CPU of an image."""
    steps: dict[str, float]
    """Stage and step -> seconds of CPU of an image."""
    bytes: dict[str, float]
    """Product -> bytes of an image."""
    alert_bytes: float | None = None
    """Of a packet; None: there were none."""
    memory_gb: float
    """Most that the process took."""


class Throughput(_Part):
    """A measurement: where, when, on what."""

    machine: str
    date: str
    """YYYY-MM-DD."""
    version: str
    """Of gueststar."""
    how: str
    """The command that measured."""
    skies: tuple[MeasuredSky, ...]


class Costs(_Part):
    """What an image costs that was not measured. One image of p million pixels and n sources."""

    per_mpix_s: float
    per_source_s: float
    steps_per_mpix_s: dict[str, float]
    """Step of the science stage -> seconds a million pixels, of the emptiest sky."""
    bytes_per_pixel: dict[str, float]
    """Product -> bytes, of the emptiest sky."""
    alert_bytes: float
    memory_per_core_gb: float
    memory_mpix: float
    """Size of the image that took it."""
    is_extrapolated: str
    """What of it was not measured; empty: nothing."""

    def cpu_s(self, mpix: float, n_sources: float) -> float:
        """Return seconds of CPU from raw file to alerts."""
        return self.per_mpix_s * mpix + self.per_source_s * n_sources


ALERT_BYTES = 75000.0
"""Median size of ZTF's packets, where none were made when costs were measured."""


def this_machine() -> str:
    """Return what kind of machine this is."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    return f"{model or platform.machine()}, {platform.system()}"


def measured_now(skies: Sequence[MeasuredSky], *, how: str) -> Throughput:
    """Return a measurement of this moment on this machine."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Throughput(machine=this_machine(), date=date, version=__version__, how=how, skies=tuple(skies))


def shipped_throughput() -> Throughput:
    """Return the measurement that comes with this version."""
    text = files("gueststar.operations.sizing").joinpath("measured.yaml").read_text()
    return Throughput.model_validate(yaml.safe_load(text))


def read_throughput(path: Path) -> Throughput:
    """Read a measurement; ConfigError names what is wrong with it."""
    try:
        return Throughput.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(key) for key in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path} is not YAML: {str(problem).splitlines()[0]}") from None


def costs_of(throughput: Throughput) -> Costs:
    """Return what images cost that were not measured."""
    skies = sorted(throughput.skies, key=lambda sky: sky.n_sources / sky.mpix)
    empty = skies[0]
    per_mpix, per_source, missing = _line(skies)
    packets = [sky.alert_bytes for sky in skies if sky.alert_bytes]
    if not packets:
        missing.append("size of packets: ZTF's")
    hungriest = max(skies, key=lambda sky: sky.memory_gb)
    return Costs(
        per_mpix_s=per_mpix, per_source_s=per_source,
        steps_per_mpix_s={step.split(": ")[1]: seconds / empty.mpix for step, seconds in empty.steps.items()
                          if step.startswith("science: ")},
        bytes_per_pixel={product: number / (empty.mpix * 1e6) for product, number in empty.bytes.items()},
        alert_bytes=statistics.median(packets) if packets else ALERT_BYTES,
        memory_per_core_gb=hungriest.memory_gb, memory_mpix=hungriest.mpix, is_extrapolated="; ".join(missing),
    )  # fmt: skip


def _line(skies: Sequence[MeasuredSky]) -> tuple[float, float, list[str]]:
    """Return seconds a million pixels and a source that give the measured totals, neither negative."""
    total = np.array([sum(sky.cpu_s.values()) for sky in skies])
    terms = np.array([(sky.mpix, sky.n_sources) for sky in skies])
    density = terms[:, 1] / terms[:, 0]
    if density.max() > 1.5 * density.min():
        solution: Any = np.linalg.lstsq(terms, total, rcond=None)[0]
        if solution.min() >= 0:
            return float(solution[0]), float(solution[1]), []
    return float(np.mean(total / terms[:, 0])), 0.0, ["the dependence on the number of sources was not measured"]
