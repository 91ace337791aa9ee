"""Models: their families, processors and weights, prepared directories, and the engines that write turns."""
