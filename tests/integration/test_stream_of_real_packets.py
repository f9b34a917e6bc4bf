"""Real packets of other surveys through log, publication and replay on a real broker: not a byte is changed."""

from __future__ import annotations

import io
from pathlib import Path

import fastavro
import pytest

from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.clients import client_options
from gueststar.stream.publish import Publisher, replay
from gueststar.stream.read import read_topic
from gueststar.stream.topics import Topics
from tests.kafka_server import NIGHT, running_broker

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

SETS = ("ampel_20180601", "ampel_recent", "kowalski_20200202")


def real_packets(folder: Path) -> dict[int, tuple[str, bytes]]:
    """Return candid -> (object, bytes) of the real packets, of schemas from 2018 on."""
    found = {}
    for name in SETS:
        for path in sorted((folder / "alerts_ztf" / name).glob("*.avro")):
            data = path.read_bytes()
            packet = next(iter(fastavro.reader(io.BytesIO(data))))
            assert isinstance(packet, dict)
            found[int(packet["candid"])] = (str(packet["objectId"]), data)
    return found


def test_real_packets_leave_and_come_again_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    real = real_packets(shared_data)
    assert len(real) > 30
    with running_broker(tmp_path / "kafka") as broker:
        assert broker.state is not None
        settings = StreamSettings(bootstrap_servers=broker.state.bootstrap_servers, flavours=("fink",))
        log = AlertLog(tmp_path)
        log.append(OutboxAlert(candid, name, NIGHT, 1, data) for candid, (name, data) in real.items())
        with Publisher(tmp_path, settings) as publisher:
            assert publisher.publish().n_sent == len(real)
        agreement = agreement_of(tmp_path, settings, night=NIGHT, program=Program.PUBLIC)
        assert agreement.is_good, agreement.line()
        options = client_options(tmp_path, settings)
        Topics(options, settings).ensure("again", 1)
        assert replay(log, log.entries(), options, "again") == len(real)
        for topic in (f"ztf_{NIGHT}_programid1", "again"):
            read = {packet.candid: packet.value for packet in read_topic(options, topic)}
            assert read == {candid: data for candid, (_, data) in real.items()}
        bare = {packet.candid: packet.value for packet in read_topic(options, f"fink_{NIGHT}_programid1")}
        assert set(bare) == set(real)
        assert all(bare[candid] in data for candid, (_, data) in real.items()), "without its schema, else the same"
