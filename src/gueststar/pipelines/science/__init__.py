"""From raw exposures to calibrated images and catalogs."""
