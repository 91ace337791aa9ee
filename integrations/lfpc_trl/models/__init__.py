"""Models: families, processors, weights, prepared directories, and the engines that generate turns."""
