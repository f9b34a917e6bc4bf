"""Figures by which a survey is verified: repeatability of stars in place and brightness, residual shapes."""
