"""The contingencies of the founding documents, one file a kind: each makes it happen and judges the recovery."""
