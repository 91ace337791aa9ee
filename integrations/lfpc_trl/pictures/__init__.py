"""Pictures: originals read once, sizes in visual tokens, crops cut from the original."""
