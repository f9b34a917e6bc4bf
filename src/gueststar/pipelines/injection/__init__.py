"""Artificial sources put into real images, and what the pipeline makes of them."""
