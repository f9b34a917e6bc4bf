"""Detections, objects and visits: one record in SQL, mapped working sets beside it."""
