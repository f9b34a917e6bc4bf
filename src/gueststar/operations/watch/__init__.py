"""Watching the survey: alarms and their delivery, what is going on now, logs, figures for Prometheus, systemd."""
