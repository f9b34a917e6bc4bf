"""Filters of users: what they ask for, and what became of the alerts that passed."""
