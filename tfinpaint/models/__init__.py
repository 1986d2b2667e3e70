"""The networks and their losses. Nothing here knows about files, data or ranks."""
