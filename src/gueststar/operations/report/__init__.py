"""The report of a night: what became of every exposure, how good it was, what it cost."""
