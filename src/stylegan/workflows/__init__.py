"""What a user does, from end to end: one function for each command, the public API."""
