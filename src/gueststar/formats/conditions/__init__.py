"""Conditions over alerts: the language, its check, and its evaluation. See docs/supplement/filters.md."""
