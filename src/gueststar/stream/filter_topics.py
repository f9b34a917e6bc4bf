"""What passed a filter goes to the filter's own topic, each packet once and in order, byte for byte.

As with the main stream, a packet is marked as sent when the brokers acknowledged it, and after whatever was killed or
failed the topic itself is read for what is there. The topic is the owner's: nobody else is on its access list. What its
owner may no longer see when it is sent does not leave.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from gueststar.core.errors import ConfigError, DataError
from gueststar.model.readers import OPERATOR
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Retraction, SentPacket
from gueststar.store.alerts.segments import AlertEntry
from gueststar.store.filters.definitions import owner_of_topic
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.settings import StreamSettings
from gueststar.stream.clients import client_options, error_of
from gueststar.stream.filters import NightsOf
from gueststar.stream.flavours import headers_of
from gueststar.stream.read import read_topic
from gueststar.stream.sending import Delivery, MessageParts, Sender, send_retraction
from gueststar.stream.topics import RETRACTIONS, Topics

BATCH = 500
"""Packets read from the log, sent and marked together."""
FILTER, VERSION = "filter", "filter_version"
"""Headers of a message that name the filter (owner/name) and its version."""


@dataclass
class FilterDelivery:
    """What one round of sending did."""

    n_sent: int = 0
    n_found: int = 0
    """Packets that were on their topic already, unmarked."""
    n_gone: int = 0
    """Packets whose topic has been deleted since."""
    n_dead: int = 0
    n_withheld: int = 0
    """Packets that passed, and that their owner may not see any more."""
    n_retracted: int = 0
    troubles: dict[str, str] = field(default_factory=dict)
    """Topic -> why nothing can be sent to it."""

    def lines(self) -> list[str]:
        """Return it in words."""
        parts = [(self.n_sent, "sent"), (self.n_found, "found on their topics"), (self.n_dead, "dead")]
        parts += [
            (self.n_withheld, "withheld"),
            (self.n_retracted, "retracted"),
            (self.n_gone, "gone with a deleted topic"),
        ]
        told = ", ".join(f"{n} {what}" for n, what in parts if n)
        lines = [f"filters: {told}"] if told else []
        return lines + [f"{topic}: {problem}" for topic, problem in self.troubles.items()]


class FilterTopics:
    """Sends what passed filters of the repository at ``root``.

    Raises ConfigError if there is no stream or the login is wrong, and TransientError where the brokers do not answer;
    what was not sent waits.
    """

    def __init__(self, root: Path, settings: StreamSettings, *, nights_of: NightsOf) -> None:
        self._options = client_options(root, settings)
        self._servers = str(self._options["bootstrap.servers"])
        self._log, self._marks, self._nights_of = AlertLog(root), FilterMarks(root), nights_of
        self._topics = Topics(self._options, settings, readers_of=lambda _, topic: _readers(topic))
        self._sender = Sender(self._options)
        self._reconciled: set[str] = set()
        self._refusing: set[str] = set()
        """Topics that refused a batch: the next packets go one by one."""

    def __enter__(self) -> FilterTopics:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.forget()
        self._marks.close()
        self._log.close()

    def send(self) -> FilterDelivery:
        """Send all that waits; a topic that a person must mend does not hold the others."""
        done = FilterDelivery()
        for topic in self._marks.waiting_topics():
            try:
                while self._send_some(topic, done):
                    pass
            except ConfigError as problem:
                done.troubles[topic] = str(problem)
                self._start_over()
        for topic, retraction in self._marks.waiting_retractions():
            if topic not in done.troubles:
                self._retract(topic, retraction, done)
        return done

    def _retract(self, topic: str, retraction: Retraction, done: FilterDelivery) -> None:
        """Tell a topic's owner, once, that a packet is taken back, if he may see it still."""
        entry, name = retraction.entry, topic + RETRACTIONS
        if self._nights_of(owner_of_topic(topic)).allows(Program(entry.program), day_obs=entry.day_obs):
            self._topics.ensure(name, Program.PRIVATE)
            send_retraction(self._sender, self._options, name, retraction)
            done.n_retracted += 1
        self._marks.mark_retracted(topic, entry.candid)

    def _send_some(self, topic: str, done: FilterDelivery) -> bool:
        """Send the next packets of a topic; return whether there may be more."""
        waiting = self._allowed(topic, self._marks.waiting(topic, BATCH), done)
        if not waiting:
            return bool(self._marks.waiting(topic, 1))
        number = self._topics.ensure(topic, Program.PRIVATE)  # closed to all but the owner
        if topic not in self._reconciled:
            done.n_gone += self._marks.recognise(topic, number)
            done.n_found += self._reconcile(topic)
            self._reconciled.add(topic)
            return True
        last, is_careful = self._marks.last_offsets(topic), topic in self._refusing
        self._refusing.discard(topic)
        delivery = self._sender.send(topic, self._messages(topic, waiting, done), is_careful=is_careful)
        if any(packet.offset <= last.get(packet.partition, -1) for packet in delivery.sent):
            self._start_over()  # the topic was deleted and made anew meanwhile
            return True
        done.n_sent += self._marks.mark_sent(delivery.sent, time=time.time())
        if not delivery.is_whole:
            self._settle(topic, delivery, done, is_careful=is_careful)
        return True

    def _allowed(
        self, topic: str, waiting: list[tuple[AlertEntry, int]], done: FilterDelivery
    ) -> list[tuple[AlertEntry, int]]:
        """Return what the owner may see now; the rest is set aside."""
        if not waiting:
            return []
        nights = self._nights_of(owner_of_topic(topic))
        allowed = [pair for pair in waiting if nights.allows(Program(pair[0].program), day_obs=pair[0].day_obs)]
        kept = {entry.candid for entry, _ in allowed}
        lost = [entry.candid for entry, _ in waiting if entry.candid not in kept]
        done.n_withheld += self._marks.set_aside(topic, lost, "its owner may not see it any more", time=time.time())
        return allowed

    def _messages(self, topic: str, waiting: list[tuple[AlertEntry, int]], done: FilterDelivery) -> list[MessageParts]:
        owner, name = owner_of_topic(topic), topic.rpartition("_")[2]
        messages = []
        for entry, version in waiting:
            try:
                packet = self._log.read(entry)
            except DataError as problem:
                done.n_dead += self._marks.set_aside(topic, [entry.candid], str(problem), time=time.time())
                continue
            headers = headers_of(entry.candid)
            headers += [(FILTER, f"{owner}/{name}".encode()), (VERSION, str(version).encode())]
            messages.append(MessageParts(entry.candid, entry.object_name, packet, headers))
        return messages

    def _reconcile(self, topic: str) -> int:
        """Mark what is on a topic beyond the last mark; return how many packets that was news of."""
        packets = read_topic(self._options, topic, after=self._marks.last_offsets(topic))
        found = [SentPacket(packet.candid, topic, packet.partition, packet.offset) for packet in packets]
        return self._marks.mark_sent(found, time=time.time())

    def _settle(self, topic: str, delivery: Delivery, done: FilterDelivery, *, is_careful: bool) -> None:
        """Bury what will never be taken, and raise what stopped the others, unless it was their neighbours."""
        self._start_over()
        verdict = delivery.verdict(is_careful=is_careful)
        for item in verdict.dead:
            done.n_dead += self._marks.set_aside(topic, [item.candid], item.error.str(), time=time.time())
        if verdict.must_be_careful:
            self._refusing.add(topic)
        elif verdict.is_stopped:
            raise error_of(delivery.trouble, self._servers, f"topic {topic}")

    def _start_over(self) -> None:
        """Believe nothing any more: what the brokers have, they will tell."""
        self._sender.forget()
        self._reconciled.clear()
        self._topics.forget()


def _readers(topic: str) -> tuple[str, ...]:
    """Return who may read a filter's topic: its owner; of the operator's, nobody who is not the brokers' own."""
    owner = owner_of_topic(topic)
    return () if owner == OPERATOR.name else (owner,)
