"""From a survey and what images cost: rates, cores, memory, disks, network. Every figure says from what it follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gueststar.operations.sizing.description import Survey
from gueststar.operations.sizing.queueing import Waits, fewest_cores
from gueststar.operations.sizing.throughput import Costs

HEADROOM = 1.5
"""Cores that are planned for one that is needed: nodes fail, backlogs are to be caught up with."""

NIGHT_EXPOSURES = 240
"""Exposures of the simulated night: steady state is reached long before."""

RUN = 8
"""Exposures in a row that are crowded."""

BARE_GB = 0.4
"""Memory of a worker before it holds images: libraries and compiled code."""

FULLEST = 0.9
"""Share of their time that cores work at most: busier ones let the queue grow with every disturbance."""

_LABORATORY_STEPS = ("read", "detrend", "write")


@dataclass(frozen=True)
class Figure:
    """One number of the model."""

    name: str
    value: float
    unit: str
    follows: str
    """From what."""


@dataclass(frozen=True)
class Sizing:
    """What a survey needs."""

    survey: Survey
    figures: dict[str, Figure] = field(default_factory=dict)
    latency: Waits | None = None
    remarks: tuple[str, ...] = ()

    def value(self, name: str) -> float:
        """Return one figure's value."""
        return self.figures[name].value


def size_survey(survey: Survey, costs: Costs) -> Sizing:
    """Return what a survey needs with our processing, and what its own documents' figures give in the same model."""
    book = _Book()
    _rates(book, survey)
    _theirs(book, survey)
    typical, crowded = _cpu(book, survey, costs)
    waits = _cores(book, survey, costs, typical, crowded)
    _disks(book, survey, costs)
    _network(book, survey, costs)
    remarks = [f"not measured: {costs.is_extrapolated}"] if costs.is_extrapolated else []
    remarks += [f"assumed: {name}: {why.removeprefix('assumed: ')}" for name, why in survey.sources.items()
                if why.startswith("assumed")]  # fmt: skip
    return Sizing(survey, book.figures, waits, tuple(remarks))


class _Book:
    """Figures as they are worked out."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}

    def write(self, name: str, value: float, unit: str, follows: str) -> float:
        self.figures[name] = Figure(name, float(value), unit, follows)
        return float(value)


def _rates(book: _Book, survey: Survey) -> None:
    camera, cadence = survey.camera, survey.cadence
    if camera.exposure_bytes is not None:
        raw = book.write("exposure_bytes", camera.exposure_bytes, "B", "told")
    else:
        raw = book.write("exposure_bytes", camera.images * camera.mpix * 1e6 * (1 + camera.overhead) * camera.bits / 8,
                         "B", f"{camera.images} images x {camera.mpix:g} Mpix x {camera.bits:g} bits")  # fmt: skip
    book.write("camera_mpix", camera.images * camera.mpix, "Mpix", f"{camera.images} images x {camera.mpix:g} Mpix")
    rate = cadence.sites / cadence.interval_s
    every = f"every {cadence.interval_s:g} s" + (f" at {cadence.sites} sites" if cadence.sites > 1 else "")
    book.write("raw_mbps", raw * 8 * rate / 1e6, "Mb/s", f"{raw / 1e9:.3g} GB {every}")
    book.write("images_per_minute", camera.images * rate * 60, "", f"{camera.images} images {every}")
    book.write("mpix_per_s", camera.images * camera.mpix * rate, "Mpix/s", f"{camera.mpix:g} Mpix an image")
    images = book.write("images_per_night", camera.images * cadence.exposures_per_night, "",
                        f"{camera.images} images x {cadence.exposures_per_night:g} exposures")  # fmt: skip
    frames = cadence.exposures_per_night + cadence.calibrations_per_night
    night = book.write("raw_per_night", raw * frames, "B", f"{frames:g} exposures, calibrations too")
    nights = cadence.nights_per_year * cadence.years
    book.write("images", images * nights, "", f"{cadence.nights_per_year:g} nights a year, {cadence.years:g} years")
    book.write("images_per_year", images * cadence.nights_per_year, "", f"{cadence.nights_per_year:g} nights a year")
    book.write("raw_total", night * nights, "B", f"{nights:g} nights")
    book.write("raw_per_year", night * cadence.nights_per_year, "B", f"{cadence.nights_per_year:g} nights")
    book.write("hours_per_night", cadence.exposures_per_night / cadence.sites * cadence.interval_s / 3600.0, "h",
               f"{cadence.exposures_per_night / cadence.sites:g} exposures {every}")  # fmt: skip


def _theirs(book: _Book, survey: Survey) -> None:
    """Work out what the survey's own documents say of itself."""
    theirs, nights = survey.theirs, survey.cadence.nights_per_year * survey.cadence.years
    per_minute = book.figures["images_per_minute"].value
    if theirs.cpu_s_per_image:
        book.write("their_cores", per_minute / 60 * theirs.cpu_s_per_image, "cores",
                   f"{per_minute:.3g} images a minute x {theirs.cpu_s_per_image / 60:g} minutes")  # fmt: skip
    if theirs.product_bytes_per_image:
        night = book.write("their_products_per_night", theirs.product_bytes_per_image
                           * book.figures["images_per_night"].value, "B",
                           f"{theirs.product_bytes_per_image / 1e6:.3g} MB an image: {theirs.source}")  # fmt: skip
        book.write("their_products_total", night * nights, "B", f"{nights:g} nights")
    if survey.sky.fields:
        sky, images = survey.sky, survey.camera.images
        follows = f"{sky.fields:g} fields x {sky.filters} filters x {images} images"
        made = book.write("references", survey.sky.fields * sky.filters * images, "", follows)
        if theirs.reference_bytes:
            book.write("their_references_bytes", made * theirs.reference_bytes, "B",
                       f"{theirs.reference_bytes / 1e6:.3g} MB each: {theirs.source}")  # fmt: skip


def _cpu(book: _Book, survey: Survey, costs: Costs) -> tuple[float, float]:
    """Return seconds of CPU of a typical and of a crowded image."""
    mpix = survey.camera.mpix
    if survey.kind == "laboratory":
        each = sum(costs.steps_per_mpix_s.get(step, 0.0) for step in _LABORATORY_STEPS)
        cpu = book.write("cpu_s_per_image", each * mpix, "s",
                         f"{mpix:g} Mpix x {each:.3g} s ({', '.join(_LABORATORY_STEPS)} as measured)")  # fmt: skip
        return cpu, cpu
    sky = survey.sky
    cpu = book.write("cpu_s_per_image", costs.cpu_s(mpix, sky.sources), "s",
                     f"{mpix:g} Mpix x {costs.per_mpix_s:.3g} s + {sky.sources:g} sources x"
                     f" {1e3 * costs.per_source_s:.3g} ms, as measured")  # fmt: skip
    if sky.crowded_sources is None:
        return cpu, cpu
    crowded = book.write("cpu_s_per_crowded_image", costs.cpu_s(mpix, sky.crowded_sources), "s",
                         f"the same with {sky.crowded_sources:g} sources")  # fmt: skip
    return cpu, crowded


def _cores(book: _Book, survey: Survey, costs: Costs, typical: float, crowded: float) -> Waits:
    cadence, camera, sky = survey.cadence, survey.camera, survey.sky
    share = sky.crowded_share if sky.crowded_sources is not None else 0.0
    mean = (1 - share) * typical + share * crowded
    per_s = book.figures["images_per_minute"].value / 60
    book.write("cores_busy", per_s * mean, "cores", f"{per_s * 60:.3g} images a minute x {mean:.3g} s")
    before = _arrival(book, survey)
    cpu = np.where(_crowded_runs(share), crowded, typical)
    cores, waits = fewest_cores(
        images=camera.images * cadence.sites, interval_s=cadence.interval_s, cpu_s=cpu, limit_s=survey.aim.goal_s,
        least=int(np.ceil(per_s * mean / FULLEST)), before_s=before,
    )  # fmt: skip
    goal = f"95 % of the images within {survey.aim.goal_s:g} s in a simulated night, none busier than {FULLEST:.0%}"
    book.write("cores_needed", cores, "cores", goal)
    planned = book.write("cores_planned", np.ceil(cores * HEADROOM), "cores", f"{HEADROOM:g} times as many: headroom")
    for name, value in (("latency_p50", waits.p50), ("latency_p95", waits.p95), ("latency_p99", waits.p99)):
        book.write(name, value, "s", f"from the end of the exposure, {cores} cores, {before:.3g} s on the way")
    pixels = max(costs.memory_per_core_gb - BARE_GB, 0.0) * max(camera.mpix / costs.memory_mpix, 1.0)
    each = BARE_GB + pixels
    book.write("memory", planned * each * 1e9, "B",
               f"{each:.2g} GB a core; measured on {costs.memory_mpix:.3g} Mpix, more for larger images")  # fmt: skip
    busy_hours = book.figures["images_per_night"].value * mean / planned / 3600.0
    book.write("reprocess_night_h", busy_hours, "h", f"a whole night on {planned:g} cores")
    return waits


def _crowded_runs(share: float) -> np.ndarray:
    """Return which exposures of the simulated night are crowded: this share of them, in runs, as nights have them."""
    n_runs = NIGHT_EXPOSURES // RUN
    order = np.random.default_rng(1).permutation(n_runs)
    return np.repeat(order < round(share * n_runs), RUN)


def _arrival(book: _Book, survey: Survey) -> float:
    """Return seconds until an exposure has arrived."""
    size = book.figures["exposure_bytes"].value / survey.camera.raw_compression * survey.cadence.sites
    rate = survey.aim.transfer_mbps
    if rate is None:
        return book.write("transfer_s", survey.cadence.interval_s, "s", "a link that is just fast enough")
    return book.write("transfer_s", size * 8 / rate / 1e6, "s", f"{size / 1e9:.3g} GB at {rate:g} Mb/s")


def _disks(book: _Book, survey: Survey, costs: Costs) -> None:
    cadence, keep, pixels = survey.cadence, survey.keep, survey.camera.mpix * 1e6
    made = costs.bytes_per_pixel
    images = {"science_image", "difference_image"} if survey.kind == "sky" else {"science_image"}
    each = sum(made.get(name, 0.0) for name in images) * pixels
    rest = sum(number for name, number in made.items() if name not in images | {"detrended_frame"}) * pixels
    rest = rest if survey.kind == "sky" else 0.0
    n = book.figures["images_per_night"].value
    nights = cadence.nights_per_year * cadence.years
    night_images = book.write("images_bytes_per_night", n * each, "B",
                              f"{' and '.join(sorted(images))}: {each / 1e6:.3g} MB an image, as measured")  # fmt: skip
    night_rest = book.write("catalogs_bytes_per_night", n * rest, "B",
                            f"catalogs, cut-outs, metrics: {rest / 1e6:.3g} MB an image, as measured")  # fmt: skip
    alerts = survey.sky.alerts_per_exposure * cadence.exposures_per_night
    book.write("alerts_per_night", alerts, "", f"{survey.sky.alerts_per_exposure:g} an exposure")
    size = costs.alert_bytes if keep.cutouts else 5000.0
    packets = book.write("packets_bytes_per_night", alerts * size, "B", f"{size / 1e3:.3g} kB a packet")
    kept = min(keep.image_nights or nights, nights)
    raw = book.figures["raw_total"].value / survey.camera.raw_compression
    book.write(
        "raw_stored",
        raw * keep.copies,
        "B",
        f"{keep.copies:g} copies, compressed {survey.camera.raw_compression:g} times",
    )
    book.write("products_stored", night_images * kept + (night_rest + packets) * nights * keep.copies, "B",
               f"images of {kept:g} nights once, all else of {nights:g} nights {keep.copies:g} times")  # fmt: skip
    if "references" in book.figures:
        reference = (made.get("science_image", 0.0) * 2.0 + 0.5) * pixels
        book.write("references_bytes", book.figures["references"].value * reference, "B",
                   f"{reference / 1e6:.3g} MB each: an image of twice a science image's bytes, catalogs")  # fmt: skip
    stored = [book.figures[name].value for name in ("raw_stored", "products_stored", "references_bytes")
              if name in book.figures]  # fmt: skip
    book.write("disk_total", sum(stored), "B", "raw, products, references")


def _network(book: _Book, survey: Survey, costs: Costs) -> None:
    raw = book.figures["raw_mbps"].value / survey.camera.raw_compression
    book.write("network_in_mbps", raw * HEADROOM, "Mb/s", f"raw data, {HEADROOM:g} times as much to catch up")
    per_s = survey.sky.alerts_per_exposure / survey.cadence.interval_s * survey.cadence.sites
    book.write("alerts_per_s", per_s, "/s", "on average")
    peak = survey.sky.peak_alerts_per_exposure or survey.sky.alerts_per_exposure
    book.write("peak_alerts_per_s", peak / survey.cadence.interval_s * survey.cadence.sites, "/s",
               f"{peak:g} in an exposure")  # fmt: skip
    size = costs.alert_bytes if survey.keep.cutouts else 5000.0
    book.write("network_alerts_mbps", per_s * size * 8 / 1e6, "Mb/s", "one full stream of packets")
