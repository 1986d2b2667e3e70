"""The texts of a project's configurations, with comments, as templates of `string.Template`."""

from __future__ import annotations

from string import Template

PRETRAIN = Template("""\
# Pretraining on $images images, without labels. Each image is in a batch twice, as two views that are cropped, coloured
# and erased differently; the encoder learns to restore what was erased, and to give both views similar features. Of the
# recipes that were compared (docs/recipes.md: ResNet18, 32 pixels, 1,000 steps), this one gave the best features for a
# classifier with few labels.
#
#   tfinpaint pretrain --config $file
#
# With these values it was estimated to take $time. `tfinpaint config keys NAME` explains each key, such as NAME =
# learning_rate; `tfinpaint config check FILE` finds mistakes. Relative paths are relative to this file.
workdir: $run # the folder that this run writes
num_epochs: $epochs # a checkpoint and a test follow each epoch
steps_per_epoch: $steps # num_epochs times as many in all; more make better features, and take longer
data:
  type: images
$paths
  batch_size: $batch # images of a step; lower it if memory does not suffice
  test_batch_size: 128
  preload: $preload # whether decoded images are kept in memory
  views: 2
  transforms:
    - resize: [$side, $side] # width and height, multiples of 32; twice the side takes four times as long
    - random_resized_crop: {scale: [0.3, 1.0]} # a part of the image, with such a share of its area, enlarged
    - random_horizontal_flip: 0.5 # remove it where left and right matter, as in text
$colours
    - grid: {size: $cell, ratio: [0, 0.25, 0.5], fill: mean} # erases one of these shares of squares of so many pixels
optimizer:
  type: AdamW
  learning_rate: $learning_rate
  weight_decay: 0.05
  decay_kernels_only: true
  lr_scheduler: {type: Cosine, warmup_epochs: 1} # the rate rises in these epochs, then falls to 0
loss:
  function: MSE
  target: masked # what was erased, not the whole image, is compared with the original
  normalize_patches: $cell # as the size of grid
  reconstruction_weight: 0.5
  agreement: {type: nt_xent, weight: 1.0, temperature: 0.2, projector: [2048, 128]}
model: {encoder: $encoder, encoder_output: after_relu}
""")

PROBE = "probe: {every: 2} # so often, in epochs, labels judge the features; the classifier takes the best ones\n"

CLASSIFY = Template("""\
# A classifier of $classes classes, with $images labels. It begins with the pretrained encoder and with logistic
# regression on its features; then all layers are trained, the first ones least (docs/fine_tuning.md).
#
#   tfinpaint classify --config $file
#
# With these values it was estimated to take $time. `tfinpaint run` also trains it from scratch, in about $scratch_time,
# to show whether pretraining has helped. Relative paths are relative to this file.
workdir: $run # the folder that this run writes
num_epochs: $epochs # a checkpoint and a test follow each epoch
steps_per_epoch: $steps # num_epochs times as many in all
checkpoints:
  load: $encoder_run # the run folder of pretraining: its best checkpoint if that is known, or else its newest
data:
  input_type: images
  target_type: labels
$paths
  batch_size: $batch # images of a step
  test_batch_size: 128
  preload: $preload # whether decoded images are kept in memory
  transforms:
    - resize: [$side, $side] # as in pretraining
    - random_resized_crop: {scale: [0.5, 1.0]}
    - random_horizontal_flip: 0.5 # remove it where left and right matter, as in text
$colours
optimizer:
  type: AdamW
  learning_rate: 5.0e-4
  weight_decay: 0.05
  decay_kernels_only: true
  layer_decay: 0.7 # each stage of the encoder has this part of the learning rate of the stage behind it
  ema_decay: 0.99 # tests and checkpoints have averages of the weights of the last steps
  clip_norm: 1.0
  lr_scheduler: {type: Cosine, warmup_epochs: 1}
loss: {function: NLL, label_smoothing: 0.1}
model:
  encoder: $encoder
  encoder_output: after_relu
  head: pool
  head_init: logistic_regression # the last layer begins with what fits the pretrained features
""")
