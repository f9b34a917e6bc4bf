"""Bytes to model and back: FITS, Parquet, Avro."""
