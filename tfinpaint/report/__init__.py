"""What a run leaves behind to read and to look at: values in, files out."""
