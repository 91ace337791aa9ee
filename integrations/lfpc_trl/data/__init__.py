"""Data: the records of files, and the rows that are made of them."""
