"""One pixel grid onto another, and stacks of such."""
