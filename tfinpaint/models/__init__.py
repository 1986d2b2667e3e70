"""The networks and their losses. Nothing here opens a file except `keras_json`, and nothing knows about ranks."""
