"""Images in a few large files: TFRecord shards with an index."""
