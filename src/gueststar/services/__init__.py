"""What is served over HTTP: handlers ask a service, the service asks the store."""
