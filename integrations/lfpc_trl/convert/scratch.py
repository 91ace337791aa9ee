"""A table on disk for state about every record."""

import sqlite3


def scratch_table(columns: str, options: str = "") -> sqlite3.Connection:
    """A table `t` in a temporary file, deleted with its connection: millions of entries stay off the heap.

    Args:
        columns: in SQL.
        options: of the table, in SQL.
    """
    connection = sqlite3.connect("", isolation_level=None)
    # One long transaction that is never committed: without it every insert would be a write to the disk.
    connection.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192;"
    )
    connection.execute(f"CREATE TABLE t ({columns}) {options}")
    connection.execute("BEGIN")
    return connection
