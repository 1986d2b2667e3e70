"""Runs: the loop over steps and epochs (loop.py knows no files and no configurations), and all that goes with one."""
