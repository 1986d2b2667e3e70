"""Networks that a JSON file describes: read, and built from an allow-list of layers."""
