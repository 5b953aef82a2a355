"""What every call shares: who calls, what it may do, how often, and that it is done once."""
