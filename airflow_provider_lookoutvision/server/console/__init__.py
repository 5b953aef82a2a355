"""The console: pages of the service for people, who label, train, judge and try."""
