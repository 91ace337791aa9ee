"""Checks whether a model directory works for training with tools."""
