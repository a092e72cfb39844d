"""Data of one's own: tables, folders and clips described by a short YAML file."""
