"""The forms in which alerts leave: one packet, several streams."""

from __future__ import annotations

from enum import StrEnum


class Flavour(StrEnum):
    """A form of the stream. All are made of the packet in the alert log, so none tells more than it does."""

    FULL = "full"
    """The packet of the log itself: ZTF schema 4.02, an Avro container with its schema, cut-outs included."""
    LITE = "lite"
    """Without cut-outs and without the schema, which it names by number."""
    RUBIN = "rubin"
    """In the form of Rubin's alerts, naming its schema by number."""
    FINK = "fink"
    """The full packet, its schema not before it but in the key of its message: as clients of Fink read."""
