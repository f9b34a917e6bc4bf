"""fink-client: its consumer on the topic whose keys are the schema, its reader of files on exported packets."""

from _telling import ASKED, counts_of, group_of, tell
from fink_client.avro_utils import AlertReader
from fink_client.consumer import AlertConsumer

config = {"group.id": group_of("fink"), "bootstrap.servers": ASKED["servers"]}
if ASKED["user"]:
    config |= {"username": ASKED["user"], "password": ASKED["password"]}
packets = {}
with AlertConsumer([ASKED["keyed_topic"]], config, survey="ztf") as consumer:
    while len(packets) < ASKED["n"]:
        got = consumer.consume(50, 30)
        assert got, "no message came"
        for _topic, alert, _key in got:
            packets[alert["candid"]] = counts_of(alert)
files = {alert["candid"]: counts_of(alert) for alert in AlertReader(ASKED["files"]).to_iterator()}
assert files == packets
tell(packets, n_rows=len(AlertReader(ASKED["files"]).to_pandas()))
