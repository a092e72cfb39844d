"""Voice: spoken keywords and digits, by speaker."""
