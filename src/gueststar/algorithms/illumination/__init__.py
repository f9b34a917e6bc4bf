"""What only the sky itself shows of a camera: fringes, illumination, the shutter, pixels that fail in use, ghosts."""
