"""The part of the schema that says what is done to an image: the steps of `data.transforms`, masks among them.

Every default of these steps stands in this file and nowhere else. Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Shape = tuple[int | None, int | None, int]  # height, width (None: differs from image to image), channels


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


Positive = Annotated[int, Field(ge=1)]
MOST_SIDE = 2**13  # of an image as a network sees it, pixels: 0.8 GB as float32
Size = Annotated[list[Annotated[int, Field(ge=1, le=MOST_SIDE)]], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=2, max_length=2)]
PerChannel = float | list[float]
Fill = Literal["black", "mean", "noise"]
MOST_RECTANGLES = 4096  # of a mask; more take gigabytes for a batch, and cover an image anyway


class _Mask(Section):
    """What a mask erases from each image; the network sees the rest, and `fill` in the hole."""

    fill: Fill = Field(
        "black",
        description="what the network sees in the hole: black, the mean colour of the image's visible pixels, or noise "
        "uniform in 0 to 1",
    )


class RandomPatches(_Mask):
    """Squares of one size at random places, as the seed tool cuts them."""

    number: int | None = Field(None, ge=1, le=MOST_RECTANGLES, description="squares per image; they may overlap")
    size: int = Field(ge=1, description="side of a square, pixels")
    area: float | None = Field(
        None, gt=0, le=0.75, description="instead of number: squares are added up to this share of the image"
    )

    @model_validator(mode="after")
    def _number_or_area(self) -> RandomPatches:
        if (self.number is None) == (self.area is None):
            raise ValueError("expected number (of squares) or area (share of the image), one of the two")
        return self


class Center(_Mask):
    """The middle of each image (Context Encoders, section 3.3, central region)."""

    side: float = Field(0.5, gt=0, lt=1, description="share of the image's height and of its width")


class RandomBlock(_Mask):
    """Rectangles of random sides at random places (Context Encoders, section 3.3, random block)."""

    side: ShareRange = Field(
        [0.1, 0.3], description="least and greatest side of a block, drawn per block, as shares of height and width"
    )
    number: int | None = Field(
        None, ge=1, le=MOST_RECTANGLES, description="blocks per image instead of up to an area; they may overlap"
    )
    area: float | None = Field(
        None,
        gt=0,
        le=0.75,
        description="blocks are added up to this share of the image; null: 0.25, unless number is given",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> RandomBlock:
        _refuse_falling("side", self.side)
        if self.number is not None and self.area is not None:
            raise ValueError("expected number (of blocks) or area (share of the image), one of the two")
        return self

    @property
    def limit(self) -> float:
        """The share of the image up to which blocks are added, where their number is not given."""
        return 0.25 if self.area is None else self.area


class RandomRegion(_Mask):
    """Free-form shapes, new ones for each image (Context Encoders, section 3.3, random region)."""

    area: ShareRange = Field([0.2, 0.3], description="least and greatest share of the image, drawn per image")

    @model_validator(mode="after")
    def _rising(self) -> RandomRegion:
        _refuse_falling("area", self.area)
        return self


class Grid(_Mask):
    """A share of the cells of a grid (He et al., Masked Autoencoders, arXiv 2111.06377, section 3)."""

    size: int = Field(16, ge=1, description="side of a cell, pixels; it divides height and width")
    ratio: float = Field(
        0.75, gt=0, lt=1, description="share of the cells, rounded to whole cells, the same number each time"
    )


def _refuse_falling(name: str, limits: list[float]) -> None:
    if limits[0] > limits[1]:
        raise ValueError(f"{name}: the first of the two must not be the greater one")


MASKS = ("random_patches", "center", "random_block", "random_region", "grid")


class Normalize(Section):
    mean: PerChannel = Field(0.0, description="subtracted from the values, which are 0 to 1; or one per channel")
    std: PerChannel = Field(1.0, description="then divided by; or one per channel")

    @field_validator("std")
    @classmethod
    def _not_zero(cls, std: PerChannel) -> PerChannel:
        if 0 in (std if isinstance(std, list) else [std]):
            raise ValueError("a standard deviation of 0 cannot be divided by")
        return std


ColorCode = Literal[
    "BGR2RGB", "RGB2BGR", "RGB2GRAY", "BGR2GRAY", "GRAY2RGB", "GRAY2BGR",
    "RGB2HSV", "BGR2HSV", "HSV2RGB", "HSV2BGR", "RGB2YUV", "BGR2YUV", "YUV2RGB", "YUV2BGR",
]  # fmt: skip


class Transform(Section):
    """One step of a list of transforms: a mapping with exactly one key."""

    resize: Size | None = Field(None, description="[width, height] in pixels; bilinear, anti-aliased")
    center_crop: Size | None = Field(None, description="[width, height] in pixels, cut out at the centre")
    jitter_crop: Share | None = Field(
        None, description="C: cut c S / 2 pixels off each side, S the image's extent, c uniform in [0, C) per side"
    )
    random_horizontal_flip: Share | None = Field(None, description="probability of mirroring left to right")
    random_vertical_flip: Share | None = Field(None, description="probability of mirroring top to bottom")
    random_zoom: Share | None = Field(
        None, description="C: zoom in until c S / 2 pixels are lost on every side, c uniform in [0, C) per image"
    )
    rotate: float | None = Field(None, description="degrees clockwise about the centre; 0 where nothing comes from")
    random_rotate: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="A: rotate by degrees uniform in [-A, A]"
    )
    convert_color: ColorCode | None = Field(
        None, description="OpenCV's name of a conversion; values stay 0 to 1 (hue too)"
    )
    normalize: Normalize | None = None
    grayscale: Literal[True] | None = Field(None, description="one channel, the luma of RGB")
    random_patches: RandomPatches | None = None
    center: Center | None = None
    random_block: RandomBlock | None = None
    random_region: RandomRegion | None = None
    grid: Grid | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_empty_mask(cls, given: Any) -> Any:
        for name in MASKS if isinstance(given, dict) and len(given) == 1 else ():
            if name in given and given[name] is None:
                raise ValueError(f"{name} is empty; for its defaults write `{name}: {{}}`")
        return given

    @model_validator(mode="after")
    def _exactly_one(self) -> Transform:
        given = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if len(given) != 1 or len(self.model_fields_set) != 1:
            raise ValueError(f"expected exactly one of {', '.join(Transform.model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _only_the_one(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if name in self.model_fields_set}

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def section(self) -> Any:
        """What the one key holds: a number, a name or a section of its own."""
        return getattr(self, self.kind)

    @property
    def changes_values(self) -> bool:
        """True for a step that changes values and not places; masks pass it by."""
        return self.kind in ("convert_color", "normalize", "grayscale")

    @property
    def erases(self) -> bool:
        """True for a mask: it makes input and target apart."""
        return self.kind in MASKS

    @property
    def is_random(self) -> bool:
        """True for an augmentation, which evaluation leaves out."""
        return self.kind == "jitter_crop" or (self.kind.startswith("random_") and not self.erases)

    def shape_after(self, shape: Shape) -> Shape:
        """The shape of an image after this step."""
        height, width, channels = shape
        if size := self.resize or self.center_crop:
            return size[1], size[0], channels
        if self.jitter_crop is not None:
            return None, None, channels
        if self.grayscale or (self.convert_color or "").endswith("GRAY"):
            return height, width, 1
        return height, width, 3 if self.convert_color else channels


def shape_after(steps: Sequence[Transform], channels: int) -> Shape:
    """The shape of an image of any size after these steps."""
    shape: Shape = (None, None, channels)
    for step in steps:
        shape = step.shape_after(shape)
    return shape
