"""Rollouts: prompts, the crop tool, generation, transcripts and rewards."""
