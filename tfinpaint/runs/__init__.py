"""One run: its facts, its folder, its images, the session that trains or evaluates, and what it leaves on the disk."""
