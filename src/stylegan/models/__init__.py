"""The networks: one family, one file."""
