"""Long work: divided among processes, written down at once, gone on with after a stop."""
