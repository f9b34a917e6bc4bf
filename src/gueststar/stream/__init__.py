"""Alerts on Kafka: a broker for one machine, publication that is neither lost nor doubled, replay, retraction."""
