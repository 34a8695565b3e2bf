"""Weight files of every kind, read and written."""
