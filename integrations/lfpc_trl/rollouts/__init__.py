"""Rollouts: what a model is told and may do, the turns it takes, and what they earn."""
