"""Evaluation: accuracy, crop quality, and whether a model's answers depend on its crops."""
