"""How a detector answers to light: gain, linearity, crosstalk, charge repulsion, charge transfer."""
