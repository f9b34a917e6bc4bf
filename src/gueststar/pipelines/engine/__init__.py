"""Where units of work run: in this process, or on worker processes of one machine or of a cluster."""
