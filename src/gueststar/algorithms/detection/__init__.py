"""Sources above the noise."""
