"""The night's account and the causal story of one thing."""
