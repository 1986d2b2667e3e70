"""Judge the features of an encoder by simple classifiers that are trained on them."""
