"""Train a small convolutional network on handwritten digits with `model.fit`, in one process or in many.

    python examples/keras_fit.py
    horovodrun -np 2 python examples/keras_fit.py
    mpirun -np 2 python examples/keras_fit.py

All print the same figures, up to rounding. The lines marked "ranks" are all that several processes need;
docs/keras_fit.md explains them.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tfinpaint.distributed import DistributedOptimizer, OnRank0, SynchroniseRanks, join, shard  # ranks

BATCH_SIZE = 64  # images of all ranks together

world = join()  # ranks: before the program makes a model or a tensor
keras.utils.set_random_seed(1)

images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
training = tf.data.Dataset.from_tensor_slices((images[:1400], labels[:1400]))
training = training.shuffle(1400, seed=1)  # ranks: with a seed, so that they divide the same order
training = shard(training, world).batch(BATCH_SIZE // world.size)  # ranks
testing = shard((images[1400:], labels[1400:]), world, drop_remainder=False)  # ranks

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
optimizer = keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0)
model.compile(
    DistributedOptimizer(optimizer, world),  # ranks
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
model.fit(
    training,
    epochs=5,
    validation_data=testing,
    callbacks=[
        OnRank0(keras.callbacks.ModelCheckpoint("digits.keras", save_best_only=True, monitor="val_loss"), world),
        keras.callbacks.EarlyStopping(patience=3),
        SynchroniseRanks(world),  # ranks: last
    ],
    verbose=2 if world.is_rank0 else 0,  # ranks: one of them prints
)
if world.is_rank0:
    size = float(np.sqrt(sum(np.sum(np.square(weight)) for weight in model.get_weights())))
    print(f"{world.size} rank(s), norm of all weights {size:.6f}")
