"""Trails of satellites and of fast asteroids on difference images, also where no single pixel shows them."""
