"""A reader for each kind of source: what it looks like, and the entries that it has."""
