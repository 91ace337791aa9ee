"""LOCUS (arXiv 2606.16586): locate a crop in its full image; trained before LFPC or together with it."""
