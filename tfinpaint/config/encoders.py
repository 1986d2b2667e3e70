"""The networks that `model.encoder` can name: what is known of each without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EncoderName = Literal[
    "resnet50",
    "resnet18",
    "resnet101",
    "convnext_tiny",
    "efficientnet_v2_b0",
    "mobilenet_v3_large",
    "densenet121",
    "tiny",
]
EncoderOutput = Literal["before_add", "after_relu"]
Stem = Literal["standard", "small"]
LEAST_SIDE = 32  # pixels of an image that keras.applications accepts
# Pixels of the image from one position of the output to the next.
STRIDES: Mapping[Stem, int] = {"standard": 32, "small": 8}


@dataclass(frozen=True)
class Architecture:
    """The places in a network that other parts of the program refer to by the names of layers.

    All paths through the network pass each of these layers, except for `before_add`.

    Attributes:
        maps: channels of the output.
        stages: number of a stage, 2 to 5, whose outputs have 1/4, 1/8, 1/16 and 1/32 of the image's sides with the
            standard stem -> its last layer. Stage 5 ends with the network.
        stem: the last layer before stage 2.
        block: how the names of the last layers of blocks end.
        before_add: the layer before the last addition, without that of its shortcut; None if no addition is that late.
        has_small_stem: whether it can be built with `model.stem: small`.
        has_batchnorms: whether it has batch norms.
    """

    maps: int
    stages: Mapping[int, str]
    stem: str
    block: str
    before_add: str | None = None
    has_small_stem: bool = False
    has_batchnorms: bool = True

    def problem(self, stem: Stem, output: EncoderOutput) -> str | None:
        """Return why the network cannot be built with this stem and this end, and what to set; None if it can."""
        if stem == "small" and not self.has_small_stem:
            return "stem: small is for the ResNets; set model.stem: standard"
        if output == "before_add" and self.before_add is None:
            return "it does not end in an addition; set model.encoder_output: after_relu"
        return None

    def output_layer(self, output: EncoderOutput) -> str:
        """Return the last layer of an encoder that ends where `model.encoder_output` says."""
        if output == "after_relu":
            return self.stages[5]
        assert self.before_add
        return self.before_add


def _resnet(blocks: tuple[int, int, int, int], maps: int, convolutions: int) -> Architecture:
    """Return the places in a ResNet by its numbers of blocks and of convolutions in a block (He et al., 1512.03385)."""
    stages = {stage: f"conv{stage}_block{number}_out" for stage, number in enumerate(blocks, start=2)}
    last = f"conv5_block{blocks[-1]}_{convolutions}_bn"
    return Architecture(maps, stages, "pool1_pool", "_out", before_add=last, has_small_stem=True)


ARCHITECTURES: Mapping[EncoderName, Architecture] = {
    "resnet50": _resnet((3, 4, 6, 3), maps=2048, convolutions=3),
    "resnet18": _resnet((2, 2, 2, 2), maps=512, convolutions=2),
    "resnet101": _resnet((3, 4, 23, 3), maps=2048, convolutions=3),
    "convnext_tiny": Architecture(
        maps=768,
        stages={
            2: "convnext_tiny_stage_0_block_2_add",
            3: "convnext_tiny_stage_1_block_2_add",
            4: "convnext_tiny_stage_2_block_8_add",
            5: "convnext_tiny_head_layernorm",
        },
        stem="convnext_tiny_stem_layernorm",
        block="_add",
        has_batchnorms=False,
    ),
    "efficientnet_v2_b0": Architecture(
        maps=1280,
        stages={2: "block2b_add", 3: "block3b_add", 4: "block5e_add", 5: "top_activation"},
        stem="block1a_project_activation",
        block="_add",
    ),
    "mobilenet_v3_large": Architecture(
        maps=960,
        stages={2: "expanded_conv_2_add", 3: "expanded_conv_5_add", 4: "expanded_conv_11_add", 5: "conv_1_activation"},
        stem="expanded_conv_add",
        block="_add",
    ),
    "densenet121": Architecture(
        maps=1024,
        stages={2: "conv2_block6_concat", 3: "conv3_block12_concat", 4: "conv4_block24_concat", 5: "relu"},
        stem="pool1",
        block="_concat",
    ),
    "tiny": _resnet((1, 1, 1, 1), maps=128, convolutions=3),
}
