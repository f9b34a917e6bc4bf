"""From a raw exposure to a calibrated image and its catalogs."""
