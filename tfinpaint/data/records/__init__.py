"""Images packed into a few large files: TFRecord shards with an index."""
