"""From detections to alerts: association, history, packets."""
