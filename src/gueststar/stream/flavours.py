"""What is sent of a packet of the alert log in each flavour of the stream."""

from __future__ import annotations

from gueststar.formats.avro import decode_alert, split_container
from gueststar.formats.schema_registry import lite_message, rubin_message
from gueststar.model.flavour import Flavour
from gueststar.store.settings import StreamSettings
from gueststar.stream.read import CANDID

Headers = list[tuple[str, str | bytes | None]]
"""Of a message."""


def flavours_of(settings: StreamSettings) -> tuple[Flavour, ...]:
    """Return the flavours in which a survey sends its alerts, the full one first."""
    return (Flavour.FULL, *(flavour for flavour in Flavour if flavour in settings.flavours))


def content_of(flavour: Flavour, packet: bytes) -> bytes:
    """Return the message of a packet as it is in the log; the same packet gives the same message.

    Raises DataError for a packet that the flavour cannot tell.
    """
    if flavour is Flavour.LITE:
        return lite_message(decode_alert(packet))
    if flavour is Flavour.RUBIN:
        return rubin_message(decode_alert(packet))
    if flavour is Flavour.FINK:
        return split_container(packet)[1]
    return packet


def key_of(flavour: Flavour, packet: bytes, object_name: str) -> str:
    """Return the key of a packet's message: the object's name; where clients look for the schema there, that."""
    return split_container(packet)[0] if flavour is Flavour.FINK else object_name


def headers_of(candid: int, flavour: Flavour = Flavour.FULL) -> Headers:
    """Return a message's headers: the packet's number and, of a container, by what Hopskotch's clients know it."""
    container: Headers = [("_format", b"avro")] if flavour is Flavour.FULL else []
    return [(CANDID, str(candid).encode()), *container]
