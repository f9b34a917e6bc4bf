"""One folder a camera: geometry and defaults as data."""
