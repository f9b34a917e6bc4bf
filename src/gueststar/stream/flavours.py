"""What is sent of a packet of the alert log in each flavour of the stream."""

from __future__ import annotations

from gueststar.formats.avro import decode_alert
from gueststar.formats.schema_registry import lite_message
from gueststar.model.flavour import Flavour
from gueststar.store.settings import StreamSettings
from gueststar.stream.forms import Headers
from gueststar.stream.read import CANDID


def flavours_of(settings: StreamSettings) -> tuple[Flavour, ...]:
    """Return the flavours in which a survey sends its alerts, the full one first."""
    return (Flavour.FULL, *(flavour for flavour in Flavour if flavour in settings.flavours))


def content_of(flavour: Flavour, packet: bytes) -> bytes:
    """Return what a flavour sends of a packet as it is in the log; the same packet gives the same bytes.

    Raises DataError for a packet that the flavour cannot tell.
    """
    if flavour is Flavour.LITE:
        return lite_message(decode_alert(packet))
    return packet


def headers_of(candid: int, flavour: Flavour = Flavour.FULL) -> Headers:
    """Return a message's headers: the packet's number and, of a container, by what Hopskotch's clients know it."""
    container: Headers = [("_format", b"avro")] if flavour is Flavour.FULL else []
    return [(CANDID, str(candid).encode()), *container]
