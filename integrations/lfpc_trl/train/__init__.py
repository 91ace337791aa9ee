"""Training: settings and recipes, checks before the start, the run itself."""
