"""Does a checkpoint do for training with tools? A suite of checks for any model directory."""
