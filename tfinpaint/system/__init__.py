"""The machine and the process: what is there, what is installed, and running work on it."""
