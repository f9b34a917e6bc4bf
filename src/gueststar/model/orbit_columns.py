"""Columns of orbits of Solar-System bodies."""

from __future__ import annotations

from gueststar.model.catalog import Column, Schema

ORBIT = Schema(
    "orbit",
    (
        Column("name", "U40", "", "number, or provisional designation without spaces"),
        Column("title", "U60", "", "number, name and designation as the source writes them"),
        Column("a", "f8", "au", "semi-major axis"),
        Column("e", "f8", "", "eccentricity, below 1"),
        Column("inclination", "f8", "deg", "to the ecliptic of J2000"),
        Column("node", "f8", "deg", "longitude of the ascending node"),
        Column("perihelion", "f8", "deg", "argument of perihelion"),
        Column("mean_anomaly", "f8", "deg", "at the epoch"),
        Column("epoch_mjd", "f8", "day", "epoch of the mean anomaly, MJD TDB"),
        Column("absolute_magnitude", "f8", "mag", "H in V; NaN if unknown"),
        Column("slope", "f8", "", "G of the H, G system; 0.15 if unknown"),
    ),
)
"""Osculating heliocentric orbits: elliptic, two-body."""

PREDICTED = Schema("predicted_orbit", tuple(column for column in ORBIT.columns if column.name != "title"))
"""What predictions need of them: a million titles would take more memory than all else."""
