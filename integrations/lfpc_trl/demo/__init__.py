"""The demo: a small world, a small Qwen2.5-VL, and both LFPC stages on it."""
