"""From raw counts to electrons."""
