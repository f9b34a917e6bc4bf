"""What rules run besides the recipes of exposures: one file an action, all listed in ``catalog``."""
