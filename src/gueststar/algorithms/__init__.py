"""Functions from arrays to arrays, one folder a subject."""
