"""From folders of images to batches of tensors. Nothing here knows about models or about Horovod."""
