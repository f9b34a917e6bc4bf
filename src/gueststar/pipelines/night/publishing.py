"""What leaves after association: alerts to the stream, to the users' filters, into the archive's table."""

from __future__ import annotations

from gueststar.core.errors import ConfigError, DataError, ServiceDown, TransientError
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.table import AlertTable
from gueststar.store.repo import SurveyRepo
from gueststar.stream.clients import has_stream
from gueststar.stream.filter_round import run_filters
from gueststar.stream.publish import Publisher


def publish_night(repo: SurveyRepo, night: int) -> bool:
    """Send what waits in the alert log, ask the filters, and file the alerts; False while the brokers stay away.

    Brokers, filters or an archive that cannot be reached do not stop a night: the diary says so, and the next call
    does what was left.
    """
    is_sent = _publish(repo, night)
    _filter(repo, night)
    _file_alerts(repo)
    return is_sent


def _publish(repo: SurveyRepo, night: int) -> bool:
    settings = repo.settings.stream
    if not has_stream(repo.root, settings):
        return True
    try:
        with Publisher(repo.root, settings) as publisher:
            receipt = publisher.publish()
    except (TransientError, ConfigError, DataError) as problem:
        repo.ledger.event("stream", str(night), f"alerts wait: {problem}", is_waiting=True)
        return False
    repo.ledger.event("stream", str(night), receipt.line())
    return True


def _filter(repo: SurveyRepo, night: int) -> None:
    """Ask the users' filters of what was published, or of what is in the log where there is no stream."""
    try:
        lines = run_filters(repo.root, repo.settings)
    except (TransientError, ConfigError, DataError) as problem:
        lines = [f"filters wait: {problem}"]
    for line in lines:
        repo.ledger.event("filters", str(night), line)


def _file_alerts(repo: SurveyRepo) -> None:
    """Bring the archive's table up to date; where that cannot be, the next search does it."""
    try:
        with AlertLog(repo.root) as log:
            AlertTable(log).complete(do_wait=False)
    except ServiceDown as problem:
        repo.ledger.event("archive", text=f"the table of alerts is behind the log: {problem}")
