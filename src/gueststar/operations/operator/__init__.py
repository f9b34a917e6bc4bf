"""The operator: one process that runs a survey by itself."""
