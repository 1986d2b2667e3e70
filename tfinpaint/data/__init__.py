"""From folders of images to batches of tensors. Nothing here depends on models or on Horovod."""
