"""From folders and archives of images to `training/` and `testing/`, as files or as records."""
