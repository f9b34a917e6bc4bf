"""Places on the sky as users give them: one on the command line, or a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gueststar.core.errors import ConfigError
from gueststar.model.catalog import Catalog


def read_places(text: str) -> Catalog:
    """Return the columns place, ra and dec (degrees) of ``text``: RA,DEC or the name of a CSV file with a header.

    Without a column ``place`` they are numbered from 0. Raises ConfigError for what is neither.
    """
    path = Path(text)
    if path.is_file():
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        if not rows or not {"ra", "dec"} <= set(rows[0]):
            raise ConfigError(f"{path}: a table of places has a header with the columns ra and dec, and at least a row")
        words = [(row.get("place") or str(k), row["ra"], row["dec"]) for k, row in enumerate(rows)]
    else:
        words = [("0", *text.split(","))] if text.count(",") == 1 else []  # type: ignore[list-item]
    try:
        values = [(int(place), float(ra), float(dec)) for place, ra, dec in words]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"places {text!r}: {error}") from None
    if not values:
        raise ConfigError(f"places {text!r}: neither RA,DEC in degrees nor a file")
    place, ra, dec = zip(*values, strict=True)
    if not (np.abs(dec) <= 90.0).all() or not np.isfinite(ra).all():
        raise ConfigError(f"places {text!r}: declinations lie between -90 and 90 degrees")
    return Catalog({"place": np.array(place, dtype=np.int64), "ra": np.array(ra), "dec": np.array(dec)})
