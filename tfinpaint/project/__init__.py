"""One's own images: settings that suit them, and the stages from a folder of images to a verdict."""
