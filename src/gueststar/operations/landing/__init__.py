"""Where files arrive: folders that are watched until each file in them is whole, then taken in."""
