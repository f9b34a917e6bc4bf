"""The archive: a second copy of what cannot be made again, on another disk, readable without this package."""
