"""Networks that a JSON file describes: `parse` reads the file, `build` builds it from an allow-list of layers."""
