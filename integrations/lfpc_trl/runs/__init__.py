"""Runs on disk: the files that a training writes, and reading them back."""
