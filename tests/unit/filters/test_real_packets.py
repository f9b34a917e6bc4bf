"""Real packets of all versions go through filters: the same rows in memory, in the stream and in the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gueststar.core.errors import DataError
from gueststar.formats.alert_table import alert_table, alert_table_schema
from gueststar.formats.avro import decode_alert
from gueststar.formats.conditions.evaluate import Batch
from gueststar.formats.conditions.parse import parse_condition
from gueststar.formats.conditions.tree import field_kinds
from gueststar.model.detections import OutboxAlert
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.operations.filter_trial import try_filter
from gueststar.store.alerts.log import AlertLog
from gueststar.store.filters.definitions import FilterRequest, FilterStore
from gueststar.store.filters.marks import FilterMarks
from gueststar.store.settings import FilterSettings
from gueststar.stream.filters import RunFilters

CONDITIONS = (
    "magpsf < 18.5 AND is_positive AND rb > 0.5",
    "n_det_30d >= 2 AND rise_rate > 0 AND (host_distance < 5 OR star_distance IS NULL)",
    "drb > 0.9 OR drb IS NULL AND rb > 0.7",
    "colour_g_r < 0.2 OR colour_r_i < 0.2",
    "NOT is_mover AND abs(galactic_latitude) > 20 AND days_limit_to_first < 3",
    "magpsf - magnr < 1 AND log10(1 + distnr) < 0.5 AND programid IN (1, 2)",
)
NIGHTS = PacketNights.of_programs(Program)


@pytest.mark.real_data
def test_real_packets_pass_as_they_are_and_the_corrupt_ones_do_not(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "alerts_ztf").glob("*/*.avro"))
    files = [path for path in files if path.parent.name.startswith(("ampel", "kowalski", "corrupt"))]
    log, store = AlertLog(tmp_path), FilterStore.of(tmp_path, None)
    payloads, packets = {}, {}
    for path in files:
        candid = int(path.stem)
        payloads[candid] = path.read_bytes()
        try:
            packets[candid] = decode_alert(payloads[candid])
        except DataError:
            assert path.parent.name == "corrupt_packets"
    log.append(OutboxAlert(candid, "ZTF", 20200101, 1, payload) for candid, payload in payloads.items())
    for number, condition in enumerate(CONDITIONS):
        store.add(FilterRequest("alice", f"f{number}x", condition, cap=1000))
    with RunFilters(tmp_path, store, FilterSettings(budget_ms=5000), nights_of=lambda _: NIGHTS) as filters:
        receipt = filters.run(must_be_sent=False)
    assert not receipt.paused
    assert receipt.n_unreadable == len(payloads) - len(packets)
    table, kinds, marks = alert_table(list(packets.values())), field_kinds(alert_table_schema()), FilterMarks(tmp_path)
    for number, condition in enumerate(CONDITIONS):
        passes = Batch(table).passes(parse_condition(condition, kinds))
        expected = sorted(np.array(list(packets))[passes].tolist())
        sent = [entry for entry, _ in marks.waiting(f"filter_alice_f{number}x", 1000)]
        request = FilterRequest("alice", "trial", condition, cap=1000)
        trial = try_filter(log, request, nights=NIGHTS, first_night=None, last_night=None)
        assert sorted(entry.candid for entry in sent) == expected
        assert sorted(trial.alerts["candid"].to_pylist()) == expected
        assert all(log.read(entry) == payloads[entry.candid] for entry in sent)
    assert receipt.n_passed > 0
    marks.close()
    log.close()
