"""lsst-alert-packet: Rubin's reader of packets whose schema is within."""

import io

from _telling import confluent_messages, counts_of, tell
from lsst.alert.packet import Schema, retrieve_alerts

packets, n_valid = {}, 0
for message in confluent_messages("lsst"):
    schema, found = retrieve_alerts(io.BytesIO(message.value()))
    (alert,) = found
    assert isinstance(schema, Schema)
    n_valid += schema.validate(alert)
    packets[alert["candid"]] = counts_of(alert)
tell(packets, n_valid=n_valid)
