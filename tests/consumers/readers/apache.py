"""Apache's own Avro for Python: names, namespaces and defaults are checked as its Java library does."""

import io

import avro.datafile
import avro.io
from _telling import confluent_messages, counts_of, tell

packets, names = {}, set()
for message in confluent_messages("apache"):
    reader = avro.datafile.DataFileReader(io.BytesIO(message.value()), avro.io.DatumReader())
    (alert,) = reader
    packets[alert["candid"]] = counts_of(alert)
    names.add(avro.schema.parse(reader.schema).fullname)
tell(packets, names=sorted(names))
