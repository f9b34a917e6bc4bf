"""Where things live: products, ledger, detections, reference catalogs."""
