"""How a detector answers to light."""
