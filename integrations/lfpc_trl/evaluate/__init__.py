"""Evaluation: how good a model is, how well it crops, and whether its answers come from its crops."""
