"""Long jobs: split across processes, saved as they go, resumable."""
