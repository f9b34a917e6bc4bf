"""What of the facts is an alarm: one function a kind, from facts to what is wrong or right."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from gueststar.core.errors import ConfigError
from gueststar.model.camera import Camera
from gueststar.model.metrics import METRICS_BY_NAME, Grade
from gueststar.operations.actions.contract import Condition
from gueststar.operations.watch.alarm_lines import duration
from gueststar.operations.watch.facts import Facts, Sample
from gueststar.operations.watch.kinds import ALARM_KINDS
from gueststar.store.alarms import Severity
from gueststar.store.ledger_rows import JobState
from gueststar.store.pulse import UnitPulse


@dataclass(frozen=True)
class Limits:
    """Beyond what something is an alarm: ``operation.alarms.limits`` in survey.yaml changes them by name."""

    no_exposure_min: float = 40.0
    """Minutes without an exposure in the night, where some are expected or came before."""
    dark_sun_deg: float = -12.0
    """It is night while the sun is below this altitude."""
    waiting_grows_min: float = 20.0
    """Minutes over which waiting work must have grown."""
    waiting_grows_by: int = 50
    """By at least so many units."""
    alerts_wait_min: float = 10.0
    """Minutes that alerts may wait for the brokers."""
    failures_of: int = 48
    """Last detector images among which failures are counted."""
    failed_fraction: float = 0.3
    """Of them, that may fail."""
    poor_exposures: int = 5
    """Last exposures that must all be in red."""
    refused_fraction: float = 0.5
    """Of the last twenty files, that may be refused."""
    workers_replaced: int = 3
    """Workers that may be replaced within an hour."""
    orbits_days: float = 14.0
    """Age of the orbits of known bodies."""
    certificate_days: float = 14.0
    """Before the end of a certificate."""
    message_waits_min: float = 30.0
    """Minutes that a message to people may wait."""


def limits_of(changed: Mapping[str, float]) -> Limits:
    """Return the limits with some changed; ConfigError for a name that is none."""
    known = {item.name for item in fields(Limits)}
    if unknown := sorted(changed.keys() - known):
        there_are = ", ".join(sorted(known))
        raise ConfigError(f"survey.yaml: operation.alarms.limits.{unknown[0]}: no such limit; there are {there_are}")
    return dataclasses.replace(Limits(), **changed)  # type: ignore[arg-type]


def conditions_of(facts: Facts, camera: Camera, limits: Limits = Limits()) -> list[Condition]:
    """Return all that can be judged now, wrong or right; what is not known is neither."""
    found = [condition for check in _ALWAYS for condition in check(facts, limits)]
    if not facts.database:
        found += [condition for check in _WITH_LEDGER for condition in check(facts, limits)]
        found += _in_red(facts, limits, camera)
    return found


# What needs no ledger


def _operator(facts: Facts, limits: Limits) -> list[Condition]:
    state = facts.operator
    if state is None or state.mode == "stopping":  # it never ran here, or was ended on purpose
        return [_told("operator_silent", "", False, "")]
    age = duration(facts.beat_age_s or 0.0)
    text = f"the operator (process {state.pid} on {state.host}) was last heard of {age} ago"
    return [
        _told("operator_silent", "", facts.is_operator_gone, text),
        _told("operator_waiting", "", not facts.is_operator_gone and state.mode == "waiting", f"it waits: {state.why}"),
        _told(
            "operator_paused", "", not facts.is_operator_gone and state.mode == "paused" and facts.waiting > 0,
            f"it is paused ({state.why}) and {facts.waiting} units of work wait",
        ),
    ]  # fmt: skip


def _database(facts: Facts, limits: Limits) -> list[Condition]:
    root = next((str(disk.path) for disk in facts.disks if disk.name == "sandbox"), "")
    return [_told("database_away", root, bool(facts.database), facts.database)]


def _disks(facts: Facts, limits: Limits) -> list[Condition]:
    found = []
    for disk in facts.disks:
        is_archive = disk.name == "archive"
        where = str(disk.path)
        found.append(
            _told(
                "archive_away" if is_archive else "repository_away",
                where,
                bool(disk.trouble),
                f"{where} {disk.trouble}",
            )
        )
        if disk.free_gb is None:
            continue
        kind, subject = ("archive_low", where) if is_archive else ("disk_low", "sandbox")
        text = f"{disk.free_gb:.1f} GB free on the disk of {disk.path}, {disk.low_gb:.0f} GB are wanted"
        found.append(_told(kind, subject, disk.free_gb < disk.low_gb, text))
        if not is_archive:
            reserve = facts.settings.disks.reserve_gb
            text = f"{disk.free_gb:.1f} GB free on the disk of {disk.path}: below {reserve:g} GB nothing is begun"
            found.append(_told("disk_full", where, disk.free_gb < reserve, text))
    return found


def _landing(facts: Facts, limits: Limits) -> list[Condition]:
    places = [str(place.path) for place in facts.settings.landing]
    return [
        _told("landing_away", place, place in facts.landing_away, f"{place}: {facts.landing_away.get(place, '')}")
        for place in places
    ]


def _workers(facts: Facts, limits: Limits) -> list[Condition]:
    if facts.is_operator_gone:
        return []
    n = n_replaced([one for one in facts.history if one.time > facts.now - 3600.0])
    text = f"{n} workers were replaced within the last hour"
    return [_told("worker_killed", "", n > limits.workers_replaced, text)]


def n_replaced(samples: list[Sample]) -> int:
    """Return how many workers got another process while the operator stayed the same."""
    n = 0
    for before, after in pairwise(samples):
        if before.operator_pid is None or before.operator_pid != after.operator_pid:
            continue
        known = dict(before.worker_pids)
        n += sum(name in known and known[name] != pid for name, pid in after.worker_pids)
    return n


def _backlog(facts: Facts, limits: Limits) -> list[Condition]:
    since = facts.now - 60.0 * limits.waiting_grows_min
    samples = [one for one in facts.history if one.time >= since]
    if facts.is_operator_gone or len(samples) < 4 or samples[-1].time - samples[0].time < 0.6 * (facts.now - since):
        return []
    waiting = np.array([one.waiting + one.landing for one in samples])
    third = max(len(waiting) // 3, 1)
    medians = [float(np.median(part)) for part in (waiting[:third], waiting[third:-third], waiting[-third:])]
    is_growing = medians[0] < medians[1] < medians[2] and medians[2] - medians[0] >= limits.waiting_grows_by
    text = f"waiting work grew from {medians[0]:.0f} to {medians[2]:.0f} in {limits.waiting_grows_min:.0f} minutes"
    return [_told("backlog_growing", "", is_growing, text)]


def _certificates(facts: Facts, limits: Limits) -> list[Condition]:
    found = []
    for path, ends in facts.certificates.items():
        text = f"the certificate in {path} ends {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
        is_near = ends < facts.now + 86400.0 * limits.certificate_days
        found.append(_told("certificate_ending", path, is_near, text if ends else f"{path} cannot be read"))
    return found


def _messages(facts: Facts, limits: Limits) -> list[Condition]:
    waited = 0.0 if facts.message_since is None else facts.now - facts.message_since
    text = f"{facts.messages_waiting} messages to people wait for {duration(waited)}: {facts.messages_trouble}"
    is_wrong = bool(facts.messages_trouble) and waited > 60.0 * limits.message_waits_min
    return [_told("message_waiting", "", is_wrong, text)]


def _orbits(facts: Facts, limits: Limits) -> list[Condition]:
    age = facts.orbits_age_days
    if age is None:
        return []
    return [_told("ephemerides_old", "orbits", age > limits.orbits_days, f"the orbits in use are {age:.0f} days old")]


# What needs the ledger


def _late(facts: Facts, limits: Limits) -> list[Condition]:
    oldest = facts.oldest_waiting
    if oldest is None:
        return [_told("exposure_late", "", False, "")]
    exposure, received, n = oldest
    waited = facts.now - received
    text = (
        f"exposure {exposure} has waited {duration(waited)} since it was received "
        f"({duration(facts.settings.latency_required_s)} are allowed); {n} wait in all"
    )
    return [_told("exposure_late", "", waited > facts.settings.latency_required_s, text)]


def _units(facts: Facts) -> list[UnitPulse]:
    return [unit for exposure in facts.recent for unit in exposure.units]


def _failures(facts: Facts, limits: Limits) -> list[Condition]:
    units = [unit for unit in _units(facts) if unit.state not in (JobState.PENDING, JobState.RUNNING)]
    units = units[: limits.failures_of]
    failed = [unit for unit in units if unit.state in (JobState.FAILED, JobState.QUARANTINED)]
    if not units:
        return []
    reason, n = Counter(unit.reason for unit in failed).most_common(1)[0] if failed else ("", 0)
    text = f"{len(failed)} of the last {len(units)} detector images failed; {n} of them: {reason}"
    is_wrong = len(units) >= 8 and len(failed) > limits.failed_fraction * len(units)
    return [_told("many_failures", "", is_wrong, text)]


def _refused(facts: Facts, limits: Limits) -> list[Condition]:
    refused = [reason for status, reason in facts.last_files if status == "refused"]
    is_wrong = len(facts.last_files) >= 8 and len(refused) > limits.refused_fraction * len(facts.last_files)
    text = (
        f"{len(refused)} of the last {len(facts.last_files)} files were refused, the last one: {(refused or [''])[0]}"
    )
    return [_told("files_refused", "", is_wrong, text)]


def _quarantined(facts: Facts, limits: Limits) -> list[Condition]:
    n = sum(number for _, _, number in facts.quarantined)
    kind, reason, _ = facts.quarantined[0] if facts.quarantined else ("", "", 0)
    text = f"{n} units of work of night {facts.night} were set aside; the commonest ({kind}): {reason}"
    return [_told("quarantined", "", n > 0, text)]


def _no_exposures(facts: Facts, limits: Limits) -> list[Condition]:
    """Silence is wrong at night, where exposures were expected since the last one, or came before without a list."""
    if facts.sun_altitude_deg is None or facts.is_operator_gone:
        return []
    limit = 60.0 * limits.no_exposure_min
    is_dark = facts.sun_altitude_deg < limits.dark_sun_deg
    heard = facts.last_received
    if facts.last_expected is not None:
        is_silent = facts.now - (heard or 0.0) > limit and facts.last_expected > max(
            heard or 0.0, facts.now - 2 * limit
        )
    else:
        is_silent = heard is not None and facts.received > 0 and facts.now - heard > limit
    waited = "" if heard is None else f" for {duration(facts.now - heard)}"
    text = (
        f"no exposure has arrived{waited} (night {facts.night}: {facts.received} received, {facts.expected} expected)"
    )
    return [_told("no_exposures", "", is_dark and is_silent, text)]


def _stream(facts: Facts, limits: Limits) -> list[Condition]:
    if not facts.has_stream:
        return []
    since = facts.now - 60.0 * limits.alerts_wait_min
    samples = [one for one in facts.history if one.time >= since - 90.0]
    is_long = bool(samples) and samples[0].time <= since + 90.0 and all(one.alerts_waiting > 0 for one in samples)
    n, held = facts.stream.get("waiting", 0), facts.stream.get("held", 0)
    found = [_told("alerts_held", str(facts.night), held > 0, f"{held} alerts of night {facts.night} are held back")]
    text = f"{n} alerts of night {facts.night} have waited for more than {limits.alerts_wait_min:.0f} minutes"
    if n == 0 or is_long:
        found.append(_told("alerts_waiting", "", n > 0, text))
    return found


def _in_red(facts: Facts, limits: Limits, camera: Camera) -> list[Condition]:
    """Judge the last exposures by their middle detector image, in the metrics that tell of sky and focus."""
    found = []
    for kind, name in (("image_quality_poor", "fwhm_arcsec"), ("zero_point_low", "cloud_extinction_mag")):
        metric = METRICS_BY_NAME[name]
        values = [np.median(measured) for one in facts.recent if (measured := _measured(one.units, name))]
        values = values[: limits.poor_exposures]
        if len(values) < limits.poor_exposures:
            continue
        is_wrong = all(metric.grade(float(value), camera) is Grade.POOR for value in values)
        text = f"{metric.doc}: {values[0]:.2f} {metric.unit}, in red for the last {len(values)} exposures"
        found.append(_told(kind, "", is_wrong, text))
    return found


def _measured(units: tuple[UnitPulse, ...], name: str) -> list[float]:
    return [unit.metrics[name] for unit in units if name in unit.metrics]


def _told(kind: str, subject: str, is_wrong: bool, text: str, severity: Severity | None = None) -> Condition:
    return Condition(kind, subject, is_wrong, text if is_wrong else "", severity or ALARM_KINDS[kind].severity)


_Check = Callable[[Facts, Limits], list[Condition]]
_ALWAYS: tuple[_Check, ...] = (
    _operator,
    _database,
    _disks,
    _landing,
    _workers,
    _backlog,
    _certificates,
    _orbits,
    _messages,
)
_WITH_LEDGER: tuple[_Check, ...] = (_late, _failures, _refused, _quarantined, _no_exposures, _stream)
