"""How a camera's description is drafted from the headers of a file."""
