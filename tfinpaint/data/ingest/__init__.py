"""Folders and archives as they are found -> training/ and testing/, or records."""
