"""What a survey keeps: the products, how each is identified, and references to stored ones."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gueststar.core.errors import ConfigError
from gueststar.model.calibration import KINDS

Holds = Literal[
    "raw", "image", "frame", "calibration", "calibration_table", "catalog", "cutouts", "streak_cutouts", "metrics"
]
"""What a product is: raw file, CalibratedImage, DetrendedFrame, CalibrationMaster, CalibrationTable, Catalog,
CandidateCutouts, StreakCutouts, or a JSON-able dict."""

SUFFIXES: dict[Holds, str] = {
    "raw": ".fits",
    "image": ".fits",
    "frame": ".fits",
    "calibration": ".fits",
    "calibration_table": ".fits",
    "catalog": ".parquet",
    "cutouts": ".fits",
    "streak_cutouts": ".fits",
    "metrics": ".json",
}
"""File name endings of stored products."""


@dataclass(frozen=True)
class Product:
    """A kind of stored thing: its name, its meaning in one line, what identifies it and what it holds."""

    name: str
    meaning: str
    keys: tuple[str, ...]
    """Fields of `DataId` that it needs, all of them and no others."""
    holds: Holds

    @property
    def is_calibration(self) -> bool:
        """Whether it has a validity range in time."""
        return self.holds in ("calibration", "calibration_table")


_VISIT = ("visit", "detector")
_REFERENCE = ("field", "detector", "band")

PRODUCTS: dict[str, Product] = {
    item.name: item
    for item in (
        Product("raw", "pixels as the camera wrote them", ("exposure", "detector"), "raw"),
        *(
            Product(
                kind.name, kind.meaning, ("detector", "physical_filter") if kind.is_per_filter else ("detector",),
                "calibration_table" if kind.is_table else "calibration",
            )
            for kind in KINDS.values()
        ),
        Product("science_image", "calibrated single epoch", _VISIT, "image"),
        Product("detrended_frame", "detrended pixels of a camera that sees no sky", ("exposure", "detector"), "frame"),
        Product("source", "PSF-fit catalog of the science image", _VISIT, "catalog"),
        Product("aperture_source", "aperture and moment catalog of the science image", _VISIT, "catalog"),
        Product("science_metrics", "measured quality of the science image", _VISIT, "metrics"),
        Product("difference_image", "science minus reference", _VISIT, "image"),
        Product("dia_source", "detections on the difference image", _VISIT, "catalog"),
        Product("candidate_cutouts", "three stamps of each likely candidate", _VISIT, "cutouts"),
        Product("streak", "streaks on the difference image, and trails masked before", _VISIT, "catalog"),
        Product("streak_cutouts", "pictures along the likely streaks", _VISIT, "streak_cutouts"),
        Product("forced_source", "fluxes on the difference image at known places", _VISIT, "catalog"),
        Product("difference_metrics", "measured quality of the difference image", _VISIT, "metrics"),
        Product("injected_source", "artificial sources put into the image, found or not", _VISIT, "catalog"),
        Product("injection_metrics", "completeness and flux errors, from artificial sources", _VISIT, "metrics"),
        Product("reference_image", "static co-add of one field, detector and band", _REFERENCE, "image"),
        Product(
            "reference_subbands", "the reference in parts of its band, one above the other, the bluest below",
            _REFERENCE, "frame",
        ),
        Product("reference_source", "PSF-fit catalog of the reference image", _REFERENCE, "catalog"),
        Product("reference_aperture_source", "aperture catalog of the reference image", _REFERENCE, "catalog"),
        Product("reference_change", "places whose flux is not that of the version before", _REFERENCE, "catalog"),
        Product("reference_metrics", "measured quality of the reference image", _REFERENCE, "metrics"),
    )
}  # fmt: skip
"""Every product of the survey, by name."""


def product_named(name: str) -> Product:
    """Return a product's description; ConfigError names the ones there are."""
    try:
        return PRODUCTS[name]
    except KeyError:
        raise ConfigError(f"there is no product {name!r}; products are {', '.join(PRODUCTS)}") from None


@dataclass(frozen=True, order=True)
class DataId:
    """Which one of a product: an exposure (visit), a detector, a filter, a field.

    A visit is one exposure here, so giving either gives both.
    """

    exposure: int | None = None
    visit: int | None = None
    detector: int | None = None
    band: str | None = None
    physical_filter: str | None = None
    field: int | None = None

    def __post_init__(self) -> None:
        if None not in (self.exposure, self.visit) and self.exposure != self.visit:
            raise ConfigError(f"exposure {self.exposure} is not visit {self.visit}: a visit is one exposure")
        either = self.visit if self.exposure is None else self.exposure
        object.__setattr__(self, "exposure", either)
        object.__setattr__(self, "visit", either)

    def values(self, product: Product) -> dict[str, Any]:
        """Return the keys that ``product`` needs; ConfigError names a missing or a foreign one."""
        chosen = {key: getattr(self, key) for key in product.keys}
        if missing := [key for key, value in chosen.items() if value is None]:
            raise ConfigError(f"{product.name} needs {', '.join(missing)}; got {self}")
        twins = {"exposure", "visit"} if {"exposure", "visit"} & set(product.keys) else set()
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None}
        if foreign := sorted(given - set(product.keys) - twins):
            raise ConfigError(f"{product.name} is not identified by {', '.join(foreign)}; got {self}")
        return chosen

    def __str__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "visit"}
        return ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None)


PRODUCTS_RUN = "products"
"""Collection of the registry for all that is not certified for a range of time."""


@dataclass(frozen=True)
class StagedProduct:
    """A product written to the staging folder by a worker, not yet known to the registry."""

    product: str
    data_id: DataId
    path: Path
    """File in the staging folder."""
    sha256: str
    """Digest of the file: the same content committed twice is the same product."""
    run: str | None = None
    """Collection it asks to be put into (calibrations: their night); None: the one given at commit."""


@dataclass(frozen=True)
class ProductRef:
    """A stored product: what, which, where."""

    product: str
    data_id: DataId
    path: Path
    run: str
    """Collection of the registry that holds it."""
