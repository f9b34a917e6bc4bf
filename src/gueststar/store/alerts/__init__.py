"""Alerts that were made: the log that keeps every packet, and what has left for the brokers."""
