"""Moving objects of a night."""
