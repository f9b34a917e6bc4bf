"""From a raw exposure to a calibrated science image and its catalogs."""
