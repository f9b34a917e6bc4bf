"""confluent-kafka and fastavro, as Lasair, ALeRCE and Kowalski read."""

import io

import fastavro
from _telling import confluent_messages, counts_of, tell

packets, keys, headers, schemas = {}, set(), set(), set()
for message in confluent_messages("confluent"):
    reader = fastavro.reader(io.BytesIO(message.value()))
    (alert,) = reader
    packets[alert["candid"]] = counts_of(alert)
    assert message.key().decode() == alert["objectId"]
    told = dict(message.headers())
    assert int(told["candid"]) == alert["candid"]
    headers.update(told)
    schemas.add((reader.writer_schema["name"], reader.metadata["avro.codec"], alert["schemavsn"]))
tell(packets, headers=sorted(headers), schemas=sorted(schemas))
