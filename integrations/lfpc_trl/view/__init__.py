"""`lfpc view`: trajectories and curves of a run, on a local page."""
