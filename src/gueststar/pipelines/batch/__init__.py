"""Campaigns: the same units of work as workflows of Rubin's batch system, `lsst.ctrl.bps`."""
