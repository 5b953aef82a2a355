"""Links from tasks to the console."""
