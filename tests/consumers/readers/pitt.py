"""pittgoogle-client: alerts from the messages that Pitt-Google's bridge hands on from Kafka to Pub/Sub."""

import google.cloud.pubsub_v1
import pittgoogle
from _telling import confluent_messages, counts_of, tell

packets, n_rows = {}, 0
for message in confluent_messages("pittgoogle"):
    bridged = google.cloud.pubsub_v1.types.PubsubMessage(data=message.value())
    alert = pittgoogle.Alert.from_msg(bridged, schema_name="ztf")
    assert alert.sourceid == alert.dict["candid"]
    assert alert.objectid == alert.dict["objectId"]
    assert alert.get_key("mag") == "magpsf"
    packets[alert.sourceid] = counts_of(alert.dict)
    n_rows += len(alert.dataframe)
tell(packets, n_rows=n_rows)
