"""Every kind of alarm: what it means and what to do. The playbook's page and `gueststar alarm` are made from this."""

from __future__ import annotations

from typing import NamedTuple

from gueststar.store.alarms import Severity


class AlarmKind(NamedTuple):
    """One kind of alarm."""

    name: str
    severity: Severity
    """As it is raised, unless the condition says worse."""
    meaning: str
    """What is wrong, and what it costs."""
    what_to_do: str
    """By whom it is read at three in the morning: commands first."""


_KINDS = (
    # The operator and what it stands on
    AlarmKind(
        "operator_silent",
        "critical",
        "The operator has not told that it is alive for more than a minute, or it was ended and did not come "
        "back. Files go on landing; nothing is processed and no alert leaves.",
        "`gueststar status REPO`; `systemctl status gueststar-operator@...`, `gueststar log REPO`. If it is gone:"
        " start it. If it is there and stuck: kill it (`kill -9` loses nothing) and start it again. It goes on "
        "where it was.",
    ),
    AlarmKind(
        "operator_waiting",
        "warning",
        "The operator is alive and waits, for the reason that the alarm tells. What arrives lies safely where it "
        "landed.",
        "Mend what the reason names; the operator tries again by itself.",
    ),
    AlarmKind(
        "operator_paused",
        "notice",
        "Somebody paused the operator (or a maintenance window is open) while exposures wait.",
        "`gueststar operate REPO --resume` when the work is done.",
    ),
    AlarmKind(
        "database_away",
        "critical",
        "The survey's database does not answer. Raw files land and are remembered; nothing is processed until it "
        "is back.",
        "Look at the server (`systemctl status postgresql`, its log, its disk). Start it: the operator finds it "
        "within a minute and goes on. A SQLite survey: look whether the repository's disk is full or read-only.",
    ),
    AlarmKind(
        "message_waiting",
        "warning",
        "Messages to people cannot be delivered: the mail server or the webhook is away, or refuses.",
        "`gueststar alarm test REPO` tells why. They wait and leave when it works again.",
    ),
    AlarmKind(
        "repository_away",
        "critical",
        "The repository's disk is gone, read-only or does not answer.",
        "`mount`, `dmesg | tail`. Remount it; then `gueststar operate` goes on by itself. After a damaged file "
        "system: `gueststar archive verify REPO`, and restore what is broken.",
    ),
    AlarmKind(
        "clock_stepped",
        "warning",
        "The machine's clock was set by more than a few seconds, or differs from that of the file servers. "
        "Latencies of this time are wrong; the order of work is not, as durations are not taken from that clock.",
        "`timedatectl`, `chronyc tracking`: mend the time service. Nothing needs to be repeated.",
    ),
    AlarmKind(
        "rules_invalid",
        "critical",
        "The file of rules (or survey.yaml) cannot be read: the operator goes on with the last good one.",
        "`gueststar rules check REPO` names the line. Mend it; the operator reads it anew.",
    ),
    AlarmKind(
        "configuration",
        "critical",
        "A unit of work met something that a person must change: a parameter, a login, a missing package.",
        "The alarm names the key or the mend. Afterwards `gueststar process REPO --night NIGHT --retry`.",
    ),
    AlarmKind(
        "not_ready",
        "warning",
        "A line of the readiness check before the night is red; the alarm names it.",
        "Mend that line before the night; the check is made again by itself.",
    ),
    # Data coming in
    AlarmKind(
        "no_exposures",
        "warning",
        "It is night, exposures are expected or came before, and none has arrived for a long time.",
        "Ask the observatory: clouds, dome, glitch? If it observes, look at the data link and at the landing "
        "place: `gueststar status REPO` shows files that lie there incomplete. What comes late is caught up "
        "beside tonight's.",
    ),
    AlarmKind(
        "missing_exposures",
        "warning",
        "Exposures that the observing log names were never received.",
        "`gueststar night report REPO` lists them. Ask the observatory to send them again: they are taken in at "
        "any time.",
    ),
    AlarmKind(
        "landing_away",
        "critical",
        "A landing place is gone, stale or unreadable: what arrives there is not seen.",
        "`ls` it; remount it. The operator takes it up again by itself, and the scan finds what came meanwhile.",
    ),
    AlarmKind(
        "files_refused",
        "warning",
        "Several of the last files could not become exposures: a header without what is needed, truncated transfers.",
        "`gueststar status REPO` and the night's report give the reasons. One reason for all: the observing "
        "system or the link changed; tell the observatory. See *A file was refused* in the playbook.",
    ),
    # Work
    AlarmKind(
        "exposure_late",
        "warning",
        "An exposure has waited longer than its deadline.",
        "`gueststar why REPO EXPOSURE` tells for what. Workers all busy: see *backlog_growing*.",
    ),
    AlarmKind(
        "backlog_growing",
        "warning",
        "More arrives than is worked off: waiting units grew all through the last while.",
        "`gueststar status REPO`: are all workers there and working? Node down, disk slow, a crowded field? Add "
        "workers (`--workers`, `--cluster`); nothing is lost meanwhile, only late.",
    ),
    AlarmKind(
        "many_failures",
        "critical",
        "Too many of the last detector images failed.",
        "The alarm names the commonest reason. One reason for all is the camera, the sky or a calibration: look "
        "at the last images on the status page. Mended: `gueststar process REPO --night NIGHT --retry`.",
    ),
    AlarmKind(
        "quarantined",
        "warning",
        "Units of work failed as often as they may be tried and were set aside, with their traceback.",
        "`gueststar why REPO EXPOSURE` shows it. A defect of the software: report the traceback. Then `gueststar "
        "process REPO --night NIGHT --retry`.",
    ),
    AlarmKind(
        "worker_killed",
        "warning",
        "Workers were ended again and again: too much memory, hung, or killed by the system.",
        "`gueststar log REPO --level warning`, `dmesg | grep -i oom`. Memory: fewer workers, or a larger "
        "`operation.cluster.memory_gb`. One node only: take it out.",
    ),
    AlarmKind(
        "action_failed",
        "warning",
        "Something that a rule runs (a report, a clean-up, a copy to the archive) failed.",
        "`gueststar log REPO --level warning`; `gueststar rules list REPO` shows the rule. It is tried again at "
        "its next occasion.",
    ),
    AlarmKind(
        "unexplained",
        "critical",
        "The account of a night does not balance: something was received of which nothing tells what became of it.",
        "`gueststar night report REPO --night NIGHT`; `gueststar process REPO --night NIGHT` takes it up. Report "
        "it: this must not happen.",
    ),
    # The sky and the camera
    AlarmKind(
        "image_quality_poor",
        "warning",
        "The width of the stars was in red for the last exposures.",
        "Status page, last images: round and wide is seeing or focus; trailed is tracking. Tell the observer.",
    ),
    AlarmKind(
        "zero_point_low",
        "warning",
        "The last exposures lost much light against a clear sky: clouds, dew, a dome or shutter in the way.",
        "Look at the sky's camera; tell the observer. Alerts of dimmed images stay right, only shallower.",
    ),
    AlarmKind(
        "metric_poor",
        "notice",
        "A survey metric left its specification.",
        "The weekly page shows its history, and with which version of the software it changed.",
    ),
    AlarmKind(
        "calibration_old",
        "warning",
        "A calibration product in use is older than it should be, or a new one was refused.",
        "The night's report tells why none was made. Ask for new calibration frames.",
    ),
    AlarmKind(
        "ephemerides_old",
        "notice",
        "The orbits of known bodies are old: asteroids will be taken for new ones.",
        "Drop a new file of orbits into the landing place that holds ephemerides, or `gueststar orbits import`.",
    ),
    # Disks
    AlarmKind(
        "disk_low",
        "warning",
        "A disk is below its mark; clean-up runs and did not free enough.",
        "`gueststar status REPO` names it. Copy to the archive first (`gueststar archive status REPO`), then more"
        " can be cleaned up; or add room.",
    ),
    AlarmKind(
        "disk_full",
        "critical",
        "A disk is below the reserve: nothing new is begun, files stay in their landing places.",
        "Make room on the disk that is named. The operator goes on by itself as soon as there is some.",
    ),
    AlarmKind(
        "archive_away",
        "critical",
        "The archive's disk is gone or read-only: no second copy is made, and nothing may be cleaned up.",
        "Remount it. Copying goes on by itself; processing was never held up.",
    ),
    AlarmKind(
        "archive_lagging",
        "warning",
        "Copying to the archive falls behind.",
        "Look at its speed and at who else uses it. Nothing is deleted here before its copy is verified there.",
    ),
    AlarmKind(
        "archive_damaged",
        "critical",
        "A file of the archive is not what was written: its checksum differs.",
        "`gueststar archive verify REPO` names the files; copy them again from the repository while they are there.",
    ),
    AlarmKind(
        "archive_low",
        "warning",
        "The archive's disk is below its mark, or lasts for few more nights.",
        "`gueststar action run REPO check_archive_disk` says for how many. Add room, or name a larger disk in "
        "survey.yaml (`operation: disks: archive`), copy the old one there, and go on.",
    ),
    AlarmKind(
        "product_damaged",
        "critical",
        "A file of the repository is not what its name says: the disk or the memory changed its bytes.",
        "The alarm names it. If the archive has it: `gueststar archive restore REPO FILE` (the damaged file is put "
        "aside). Else `gueststar process REPO --night NIGHT --again`. Look at `dmesg`, `smartctl -a`.",
    ),
    AlarmKind(
        "database_damaged",
        "critical",
        "A database file failed its own check. It was neither tidied up nor copied over the last sound back-up.",
        "Stop the operator. `sqlite3 FILE .recover` saves what can be read; else put the newest back-up (the alarm "
        "names its folder, `sha256sum -c SHA256SUMS` checks it) in its place and ingest again what came since.",
    ),
    AlarmKind(
        "field_unprepared",
        "warning",
        "A field of the coming night has no stars in any reference catalog, or nobody tells where it is: its images "
        "will fail.",
        "Put tables of stars into the folder that the rule *off-grid fields* names, or `gueststar refcat import`; "
        "then `gueststar action run REPO prepare_off_grid_fields`.",
    ),
    # The stream
    AlarmKind(
        "alerts_waiting",
        "warning",
        "Alerts are made and wait: the brokers are away or refuse.",
        "Mend the brokers or the login. The operator sends what waits by itself; nothing is lost or sent twice.",
    ),
    AlarmKind(
        "alerts_held",
        "warning",
        "An image has more alerts than `stream.max_alerts_per_image`: they are held back.",
        "Look at its difference on the status page. Good: `gueststar alerts release REPO --night NIGHT`; bad: the"
        " same with `--drop`.",
    ),
    AlarmKind(
        "certificate_ending",
        "warning",
        "The certificate by which the brokers are known ends soon: then no alert leaves.",
        "Renew the file that the alarm names before the day it names.",
    ),
    AlarmKind(
        "test",
        "notice",
        "Somebody tried whether alarms arrive.",
        "Nothing: they do.",
    ),
)

ALARM_KINDS: dict[str, AlarmKind] = {kind.name: kind for kind in _KINDS}
"""Name -> kind."""


def advice_on(kind: str) -> str:
    """Return what to do about an alarm of a kind; empty for one that is not in the table."""
    return ALARM_KINDS[kind].what_to_do if kind in ALARM_KINDS else ""
