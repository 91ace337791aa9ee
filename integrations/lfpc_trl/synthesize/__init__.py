"""Synthetic data: pictures of signs on large backgrounds, with questions and exact nested boxes."""
