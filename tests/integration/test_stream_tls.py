"""Publication over TLS with a login, as production brokers want it: certificates are checked, mistakes are told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gueststar.core.errors import GueststarError
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.publication import Publication
from gueststar.store.settings import StreamSettings
from gueststar.stream.agreement import agreement_of
from gueststar.stream.publish import Publisher
from tests.kafka_server import NIGHT, packets, running_broker

pytestmark = pytest.mark.slow


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that vouches for itself; return it, and it with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with: apt-get install openssl")
    folder.mkdir()
    certificate, key, both = folder / "ca.pem", folder / "key.pem", folder / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return certificate, both


def test_packets_go_over_tls_and_certificates_that_nobody_vouches_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gueststar.stream.topics.TIMEOUT_S", 3.0)
    (tmp_path / "broker").mkdir()
    ours, both = certificates(tmp_path / "ours")
    foreign, _ = certificates(tmp_path / "foreign")
    with running_broker(tmp_path / "kafka", is_secure=True) as broker:
        state = broker.state
        assert state is not None
        broker.stop()
        properties = broker.folder / "server.properties"
        text = properties.read_text().replace("CLIENT:SASL_PLAINTEXT", "CLIENT:SASL_SSL")
        properties.write_text(
            f"{text}ssl.keystore.type=PEM\nssl.keystore.location={both}\n"
            f"ssl.truststore.type=PEM\nssl.truststore.location={ours}\n"
        )
        broker.start()
        monkeypatch.setenv("GUESTSTAR_KAFKA_PASSWORD", state.password)
        settings = StreamSettings(
            bootstrap_servers=state.bootstrap_servers, security="sasl_ssl", username="gueststar", ca_file=str(ours)
        )
        AlertLog(tmp_path).append(packets(5))
        doubtful = settings.model_copy(update={"ca_file": str(foreign)})
        with pytest.raises(GueststarError, match="certificate") as told, Publisher(tmp_path, doubtful) as publisher:
            publisher.publish()
        assert "\n" not in str(told.value)
        assert Publication(tmp_path).counts(NIGHT) == {(1, "waiting"): 5}
        with Publisher(tmp_path, settings) as publisher:
            assert publisher.publish().n_sent == 5
        assert agreement_of(tmp_path, settings, night=NIGHT, program=Program.PUBLIC).is_good
