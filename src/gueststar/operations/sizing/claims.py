"""Whether a survey's statements on its own processing agree with each other: MAGIS's "2 seconds per image".

Its document of 2021 says that "including non-running time for processing" each image needs to be done in about two
seconds on one processor, or one image a minute on a system of 30 processors, for 30 to 100 million images a year.
"""

from __future__ import annotations

from dataclasses import dataclass

from gueststar.operations.sizing.description import Survey
from gueststar.operations.sizing.model import Sizing
from gueststar.operations.sizing.throughput import Costs

YEAR_S = 365.25 * 86400.0


@dataclass(frozen=True)
class Finding:
    """What was found of a statement."""

    statement: str
    holds: bool
    text: str


def examine(survey: Survey, sizing: Sizing, costs: Costs) -> list[Finding]:
    """Return what becomes of the survey's statements; empty where it makes none."""
    claims = survey.claims
    if "seconds_per_image" not in claims:
        return []
    stated = claims["seconds_per_image"]
    images = sizing.value("images_per_year")
    return [_rate_of_images(images, claims), _one_processor(stated, images, claims),
            _many_processors(stated, claims), _ours(sizing, survey, costs, claims)]  # fmt: skip


def _rate_of_images(images: float, claims: dict[str, float]) -> Finding:
    low, high = claims["images_low"], claims["images_high"]
    return Finding(
        f"{low / 1e6:g} to {high / 1e6:g} million images a year", low <= images <= high,
        f"2 images a drop, 3 drops a second, 16 hours, 200 days are {images / 1e6:.1f} million a year",
    )  # fmt: skip


def _one_processor(stated: float, images: float, claims: dict[str, float]) -> Finding:
    """Compare the time an image may take, spread over the whole year, with what is said."""
    allowed, most = YEAR_S / images, YEAR_S / stated
    low, high = YEAR_S / claims["images_high"], YEAR_S / claims["images_low"]
    return Finding(
        f"{stated:g} s an image on one processor, non-running time included", stated <= allowed,
        f"a year has {YEAR_S / 1e6:.1f} million seconds: one processor may take {allowed:.2f} s an image"
        f" ({low:.2f} to {high:.2f} s for {claims['images_high'] / 1e6:g} to {claims['images_low'] / 1e6:g} million)."
        f" With {stated:g} s it does {most / 1e6:.1f} million images a year; {images / 1e6:.1f} million need"
        f" {stated / allowed:.1f} processors, and while drops come {stated * images / (3600 * 16 * 200):.0f}",
    )  # fmt: skip


def _many_processors(stated: float, claims: dict[str, float]) -> Finding:
    number, minute = claims["processors"], claims["seconds_per_image_on_many"]
    return Finding(
        f"or 1 image a minute on a system of {number:g} processors", False,
        f"read as each of {number:g} processors taking a minute, that is {minute / number:g} s an image and the same as"
        f" {stated:g} s on one; as it is written, the system does an image a minute, {minute / stated:g} times slower",
    )  # fmt: skip


def _ours(sizing: Sizing, survey: Survey, costs: Costs, claims: dict[str, float]) -> Finding:
    each = sizing.value("cpu_s_per_image")
    largest = each * claims["largest_mpix"] / survey.camera.mpix
    per_s = sizing.value("images_per_minute") / 60.0
    return Finding(
        "algorithms can keep up", True,
        f"ours reads, detrends and writes an image of {survey.camera.mpix:g} Mpix in {each:.2f} s and one of"
        f" {claims['largest_mpix']:g} Mpix in {largest:.1f} s: {per_s * each:.1f} to {per_s * largest:.0f} busy cores"
        f" while drops come; each second that fits of the fringes add to an image adds {per_s:.0f} more",
    )  # fmt: skip
