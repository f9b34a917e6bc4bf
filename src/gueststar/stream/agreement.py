"""Do the log and the stream agree? Every packet is looked at, on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication
from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import client_options
from gueststar.stream.flavours import content_of
from gueststar.stream.read import first_offsets, read_topic
from gueststar.stream.topics import topic_of


@dataclass(frozen=True)
class Agreement:
    """How a topic compares with what the log says was sent to it. Numbers of packets."""

    topic: str
    n_in_log: int
    """Packets of the night and program in the log, sent or not."""
    n_marked: int
    """Packets that are marked as sent to the topic."""
    n_on_topic: int
    n_missing: int
    """Marked, but not on the topic."""
    n_doubled: int
    n_unknown: int
    """On the topic, but not in the log or not marked."""
    n_altered: int
    """Other bytes than in the log."""
    n_out_of_order: int
    """Behind one that entered the log later, in the same partition; not those that a person let go."""
    n_expired: int = 0
    """Marked, but older than what the brokers keep: they delete by age or size."""

    @property
    def is_good(self) -> bool:
        """Whether topic, marks and log agree."""
        return not (self.n_missing or self.n_doubled or self.n_unknown or self.n_altered or self.n_out_of_order)

    def line(self) -> str:
        """Return it in words."""
        faults = {
            "missing": self.n_missing, "twice": self.n_doubled, "unknown": self.n_unknown, "altered": self.n_altered,
            "out of order": self.n_out_of_order,
        }  # fmt: skip
        told = ", ".join(f"{n} {what}" for what, n in faults.items() if n) or "agree"
        told += f" ({self.n_expired} not kept by the brokers any more)" if self.n_expired else ""
        return f"{self.topic}: {self.n_in_log} in the log, {self.n_marked} sent, {self.n_on_topic} on the topic: {told}"


def agreement_of(
    root: Path, settings: StreamSettings, *, night: int, program: Program, flavour: Flavour = Flavour.FULL
) -> Agreement:
    """Compare a night's topic of one program, in one flavour, with the alert log."""
    log, state = AlertLog(root), Publication(root, flavour)
    try:
        topic = topic_of(settings, night=night, program=program, flavour=flavour)
        options = client_options(root, settings)
        entries = {entry.candid: entry for entry in log.entries(programs=(program,), day_obs=night)}
        marked, by_hand, expired = state.sent_to(topic), state.sent_by_hand(topic), _expired(state, options, topic)
        seen, last_serial = set[int](), dict[int, int]()
        n = doubled = unknown = altered = unordered = 0
        for n, packet in enumerate(read_topic(options, topic), start=1):  # noqa: B007
            doubled += packet.candid in seen
            seen.add(packet.candid)
            entry = entries.get(packet.candid)
            if entry is None or packet.candid not in marked:
                unknown += 1
                continue
            altered += content_of(flavour, log.read(entry)) != packet.value
            if packet.candid not in by_hand:
                unordered += entry.serial < last_serial.get(packet.partition, 0)
                last_serial[packet.partition] = max(entry.serial, last_serial.get(packet.partition, 0))
        missing = marked - seen
        return Agreement(
            topic, len(entries), len(marked), n, len(missing - expired), doubled, unknown, altered, unordered,
            len(missing & expired),
        )  # fmt: skip
    finally:
        state.close()
        log.close()


def _expired(state: Publication, options: Mapping[str, Any], topic: str) -> set[int]:
    """Return the packets that were sent to a topic and lie before what the brokers still keep of it."""
    first = first_offsets(options, topic)
    return {sent.candid for sent in state.places_on(topic) if sent.offset < first.get(sent.partition, 0)}
