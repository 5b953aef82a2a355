"""What lasts: the tables, the buckets, and the keys that encrypt secrets."""
