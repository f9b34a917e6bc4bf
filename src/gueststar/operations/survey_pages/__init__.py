"""Pages on weeks and on the whole survey: coverage, depth, trends, metrics by version, growth."""
