"""Pictures: cached originals, sizes in visual tokens, crops from the original."""
