"""What was trained, as files that other programs load without this one."""
