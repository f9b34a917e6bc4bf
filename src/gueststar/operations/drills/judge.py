"""What two surveys have in common: the judgement whether a disturbance left a trace.

Products are compared by their bytes and alerts by their packets. An alert tells what was known of an object when it
left. Where an exposure came after later ones of the same sky, the later ones' packets could not know of it: those
may differ in the fields of history (`HISTORY`), and in nothing else. See docs/design/identical_nights.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gueststar.formats.avro import OWN_FIELDS, decode_alert
from gueststar.model.rights import Program
from gueststar.operations.report.account import Fate, account_of
from gueststar.store.alerts.log import AlertLog
from gueststar.store.products import PRODUCTS
from gueststar.store.repo import SurveyRepo

HISTORY = frozenset({"prv_candidates", "fp_hists", *OWN_FIELDS})
"""Parts of a packet that tell what was known when it left."""

HISTORY_OF_CANDIDATE = frozenset({"ndethist", "ncovhist", "jdstarthist", "jdendhist"})
"""Fields of its candidate that count that history."""


@dataclass(frozen=True)
class Compared:
    """How two collections of named things agree."""

    n_same: int
    missing: tuple[str, ...] = ()
    """In the first only."""
    extra: tuple[str, ...] = ()
    """In the second only."""
    different: tuple[str, ...] = ()
    only_history: tuple[str, ...] = ()
    """Alerts that differ in what was known when they left, and in nothing else."""

    @property
    def is_same(self) -> bool:
        """Whether both have the same things with the same content."""
        return not (self.missing or self.extra or self.different or self.only_history)

    @property
    def is_same_but_history(self) -> bool:
        """Whether they differ in nothing but the history that alerts tell."""
        return not (self.missing or self.extra or self.different)

    def line(self, what: str) -> str:
        """Return it as a line of text."""
        parts = [f"{self.n_same} {what} identical"]
        for number, word in (
            (len(self.only_history), "differ in history only"), (len(self.different), "DIFFERENT"),
            (len(self.missing), "MISSING"), (len(self.extra), "TOO MANY"),
        ):  # fmt: skip
            if number:
                parts.append(f"{number} {word}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Judgement:
    """Two surveys side by side."""

    products: dict[str, Compared] = field(default_factory=dict)
    """Kind of product -> comparison."""
    alerts: Compared = field(default_factory=lambda: Compared(0))
    fates: dict[str, int] = field(default_factory=dict)
    """Fate -> detector images of the second survey's night."""

    @property
    def is_same(self) -> bool:
        """Whether the second survey is what the first is."""
        return self.alerts.is_same and all(compared.is_same for compared in self.products.values())

    @property
    def unexplained(self) -> int:
        """Detector images of which nothing can be told, or for which work still waits."""
        return self.fates.get(Fate.UNEXPLAINED.value, 0) + self.fates.get(Fate.PENDING.value, 0)


def compare_surveys(
    quiet: Path, disturbed: Path, *, night: int, products: Collection[str] | None = None
) -> Judgement:  # fmt: skip
    """Compare a night of two surveys over the same sky: the first undisturbed, the second as it came out."""
    ours, theirs = product_digests(quiet, night, products), product_digests(disturbed, night, products)
    names = sorted({product for product, _ in ours.keys() | theirs.keys()})
    compared = {name: _compared(_of(ours, name), _of(theirs, name)) for name in names}
    with SurveyRepo.open(disturbed) as repo:
        account = account_of(repo.ledger, night)
    fates = {fate.value: account.count(fate) for fate in Fate}
    return Judgement(compared, compare_alerts(alert_packets(quiet, night), alert_packets(disturbed, night)), fates)


def _of(digests: Mapping[tuple[str, str], str], product: str) -> dict[str, str]:
    return {place: digest for (name, place), digest in digests.items() if name == product}


def product_digests(root: Path, night: int, products: Collection[str] | None = None) -> dict[tuple[str, str], str]:
    """Return (product, data id) -> SHA-256 of its file, of what was made of a night's exposures."""
    found = {}
    with SurveyRepo.open(root) as repo:
        visits = {row.id for row in repo.ledger.exposures(day_obs=night)}
        for name in PRODUCTS:
            if name == "raw" or (products is not None and name not in products):
                continue
            for ref in repo.find(name):
                if ref.data_id.visit in visits:
                    found[name, str(ref.data_id)] = hashlib.sha256(ref.path.read_bytes()).hexdigest()
    return found


def alert_packets(root: Path, night: int) -> dict[int, bytes]:
    """Return candid -> packet of a night's alerts of all programs."""
    with AlertLog(root) as log:
        return {entry.candid: log.read(entry) for entry in log.entries(day_obs=night, programs=frozenset(Program))}


def compare_alerts(ours: Mapping[int, bytes], theirs: Mapping[int, bytes]) -> Compared:
    """Compare packets by candid; those whose bytes differ are looked into."""
    common = ours.keys() & theirs.keys()
    unlike = sorted(candid for candid in common if ours[candid] != theirs[candid])
    late = [candid for candid in unlike if _without_history(ours[candid]) == _without_history(theirs[candid])]
    return Compared(
        n_same=len(common) - len(unlike),
        missing=tuple(str(candid) for candid in sorted(ours.keys() - theirs.keys())),
        extra=tuple(str(candid) for candid in sorted(theirs.keys() - ours.keys())),
        different=tuple(str(candid) for candid in unlike if candid not in late),
        only_history=tuple(map(str, late)),
    )


def _without_history(packet: bytes) -> dict[str, Any]:
    alert = {key: value for key, value in decode_alert(packet).items() if key not in HISTORY}
    alert["candidate"] = {k: v for k, v in alert["candidate"].items() if k not in HISTORY_OF_CANDIDATE}
    return alert


def _compared(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Compared:
    common = ours.keys() & theirs.keys()
    different = sorted(place for place in common if ours[place] != theirs[place])
    missing, extra = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    return Compared(len(common) - len(different), tuple(missing), tuple(extra), tuple(different))
