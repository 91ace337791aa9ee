"""Asking a model about a picture, at the keyboard and on a local page."""
