"""The transforms of a configuration, masks included: the steps of `data.transforms`. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from tfinpaint.config.base import Section

Shape = tuple[int | None, int | None, int]  # height, width (None: differs from image to image), channels
MAX_SIDE = 2**13  # pixels of an image as the network receives it: 0.8 GB as float32
MAX_RECTANGLES = 4096  # of a mask; more need gigabytes per batch, and cover an image anyway
Size = Annotated[list[Annotated[int, Field(ge=1, le=MAX_SIDE)]], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]
MaskShare = Annotated[float, Field(gt=0, lt=1)]
MaskShareOrNone = Annotated[float, Field(ge=0, lt=1)]
ShareRange = Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=2, max_length=2)]
PositiveRange = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]
PerChannel = float | list[float]
Fill = Literal["black", "mean", "noise"]


class _Mask(Section):
    """The region that is erased from each image, and what the network receives in its place."""

    fill: Fill = "black"
    """Values in the hole: black, the mean colour of the image's visible pixels, or noise uniform in [0, 1)."""


class RandomPatches(_Mask):
    """Squares of one size at random positions, as in rmldnn."""

    number: int | None = Field(None, ge=1, le=MAX_RECTANGLES)
    """Number of squares, which may overlap."""
    size: int = Field(ge=1)
    """Side of a square in pixels."""
    area: float | None = Field(None, gt=0, le=0.75)
    """Instead of `number`: fraction of the image up to which squares are added."""

    @model_validator(mode="after")
    def _check_limit(self) -> RandomPatches:
        if (self.number is None) == (self.area is None):
            raise ValueError("expected either number (of squares) or area (fraction of the image)")
        return self


class Center(_Mask):
    """The centre of each image (Context Encoders, section 3.3, central region)."""

    side: float = Field(0.5, gt=0, lt=1)
    """Sides of the hole as a fraction of the image's height and width."""


class RandomBlock(_Mask):
    """Rectangles of random size at random positions (Context Encoders, section 3.3, random block)."""

    side: ShareRange = Field([0.1, 0.3])
    """Range of a rectangle's sides, drawn per rectangle, as fractions of the image's height and width."""
    number: int | None = Field(None, ge=1, le=MAX_RECTANGLES)
    """Instead of `area`: number of rectangles, which may overlap."""
    area: float | None = Field(None, gt=0, le=0.75)
    """Fraction of the image up to which rectangles are added; null: 0.25, unless `number` is given."""

    @model_validator(mode="after")
    def _check_limit(self) -> RandomBlock:
        _check_range("side", self.side)
        if self.number is not None and self.area is not None:
            raise ValueError("expected either number (of rectangles) or area (fraction of the image)")
        return self

    @property
    def limit(self) -> float:
        """The fraction of the image up to which rectangles are added if `number` is not given."""
        return 0.25 if self.area is None else self.area


class RandomRegion(_Mask):
    """Free-form shapes, different for each image (Context Encoders, section 3.3, random region)."""

    area: ShareRange = Field([0.2, 0.3])
    """Range of the hole's area, drawn per image, as a fraction of the image."""

    @model_validator(mode="after")
    def _check_area(self) -> RandomRegion:
        _check_range("area", self.area)
        return self


class Grid(_Mask):
    """Random cells of a grid (He et al., Masked Autoencoders, arXiv 2111.06377, section 3)."""

    size: int = Field(16, ge=1)
    """Side of a cell in pixels, a divisor of the image's height and width."""
    ratio: MaskShare | list[MaskShareOrNone] = 0.75
    """Fraction of the cells to erase, the same number of cells in each image. A list: each image has one of these
    fractions at random; with 0 among them, some images of training stay whole, so that the encoder learns from such
    images, too."""
    complementary: bool = False
    """With `data.views: 2`: the second view loses the cells that the first one keeps (SplitMask, arXiv 2112.10740)."""

    @model_validator(mode="after")
    def _check_ratio(self) -> Grid:
        if isinstance(self.ratio, list) and not any(self.ratio):
            raise ValueError("ratio: at least one fraction must be above 0; without holes, remove the mask")
        if self.complementary and 0 in self.ratios:
            raise ValueError("ratio: with complementary: true, a fraction of 0 would erase the whole second view")
        return self

    @property
    def ratios(self) -> list[float]:
        """The fractions that an image may have."""
        return self.ratio if isinstance(self.ratio, list) else [self.ratio]


def _check_range(name: str, limits: list[float]) -> None:
    if limits[0] > limits[1]:
        raise ValueError(f"{name}: the first value must not be greater than the second")


class RandomResizedCrop(Section):
    """A random part of the image, enlarged to the size that the image had, as in Inception and torchvision."""

    scale: PositiveRange = Field([0.08, 1.0])
    """Range of the part's area as a fraction of the image, drawn uniformly; at most 1."""
    ratio: PositiveRange = Field([3 / 4, 4 / 3])
    """Range of the part's width divided by its height, drawn uniformly in the logarithm."""

    @model_validator(mode="after")
    def _check_ranges(self) -> RandomResizedCrop:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)
        if self.scale[1] > 1:
            raise ValueError("scale: a part of the image is at most 1")
        return self


class ColorJitter(Section):
    """Random changes of colours, as in torchvision, in this order: brightness, contrast, saturation, hue."""

    brightness: float = Field(0.0, ge=0)
    """B: multiply the values by a factor uniform in [max(0, 1 - B), 1 + B]."""
    contrast: float = Field(0.0, ge=0)
    """C: blend with the mean grey of the image; the image's share is uniform in [max(0, 1 - C), 1 + C]."""
    saturation: float = Field(0.0, ge=0)
    """S: blend with the grey image; the image's share is uniform in [max(0, 1 - S), 1 + S]."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """H: turn the hue by a part of the colour circle uniform in [-H, H]."""
    probability: Share = 1.0
    """Probability that the colours of an image are changed."""


class GaussianBlur(Section):
    """Blur by a Gaussian, as in SimCLR, with a kernel as wide as a tenth of the image's shorter side."""

    sigma: PositiveRange = Field([0.1, 2.0])
    """Range of the Gaussian's standard deviation in pixels, drawn uniformly."""
    probability: Share = 0.5
    """Probability that an image is blurred."""

    @model_validator(mode="after")
    def _check_sigma(self) -> GaussianBlur:
        _check_range("sigma", self.sigma)
        return self


MASKS = ("random_patches", "center", "random_block", "random_region", "grid")


class Normalize(Section):
    """(value - mean) / std, for all channels or for each."""

    mean: PerChannel = 0.0
    """Subtracted from the values, which are in [0, 1]; may be a list with one number per channel."""
    std: PerChannel = 1.0
    """Divisor after the subtraction; may be a list with one number per channel."""

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: PerChannel) -> PerChannel:
        if 0 in (std if isinstance(std, list) else [std]):
            raise ValueError("a standard deviation must not be 0")
        return std


ColorCode = Literal[
    "BGR2RGB", "RGB2BGR", "RGB2GRAY", "BGR2GRAY", "GRAY2RGB", "GRAY2BGR",
    "RGB2HSV", "BGR2HSV", "HSV2RGB", "HSV2BGR", "RGB2YUV", "BGR2YUV", "YUV2RGB", "YUV2BGR",
]  # fmt: skip


class Transform(Section):
    """One step of a list of transforms: a mapping with exactly one key."""

    resize: Size | None = None
    """Resize to [width, height] in pixels; bilinear with anti-aliasing."""
    center_crop: Size | None = None
    """Crop [width, height] in pixels at the centre."""
    jitter_crop: Share | None = None
    """C: crop c * S / 2 pixels from each side, S being the image's extent and c uniform in [0, C) per side."""
    random_horizontal_flip: Share | None = None
    """Probability of a horizontal flip."""
    random_vertical_flip: Share | None = None
    """Probability of a vertical flip."""
    random_resized_crop: RandomResizedCrop | None = None
    random_zoom: Share | None = None
    """C: zoom in about the centre until c * S / 2 pixels are lost on each side, S being the image's extent and c
    uniform in [0, C) per image."""
    rotate: float | None = None
    """Rotate clockwise about the centre, in degrees; uncovered pixels become 0."""
    random_rotate: Annotated[float, Field(ge=0, le=180)] | None = None
    """A: rotate by an angle uniform in [-A, A], in degrees."""
    convert_color: ColorCode | None = None
    """Colour conversion, as OpenCV names it; all values stay in [0, 1], hue too."""
    color_jitter: ColorJitter | None = None
    random_grayscale: Share | None = None
    """Probability that an image loses its colours and keeps its channels."""
    gaussian_blur: GaussianBlur | None = None
    normalize: Normalize | None = None
    grayscale: Literal[True] | None = None
    """Convert RGB to one channel (luma)."""
    random_patches: RandomPatches | None = None
    center: Center | None = None
    random_block: RandomBlock | None = None
    random_region: RandomRegion | None = None
    grid: Grid | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_empty_mask(cls, given: Any) -> Any:
        for name in MASKS if isinstance(given, dict) and len(given) == 1 else ():
            if name in given and given[name] is None:
                raise ValueError(f"{name} is empty; for its defaults write `{name}: {{}}`")
        return given

    @model_validator(mode="after")
    def _check_one_key(self) -> Transform:
        given = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if len(given) != 1 or len(self.model_fields_set) != 1:
            if len(named := [name for name in Transform.model_fields if name in self.model_fields_set]) > 1:
                raise ValueError(f"{' and '.join(named)} are {len(named)} steps; begin each of them with its own `- `")
            raise ValueError(f"expected exactly one of {', '.join(Transform.model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _write_one_key(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}

    @property
    def kind(self) -> str:
        """The one key."""
        return next(iter(self.model_fields_set))

    @property
    def section(self) -> Any:
        """The value of the one key: a number, a name or a section."""
        return getattr(self, self.kind)

    @property
    def changes_values(self) -> bool:
        """True for a step that changes values but moves no pixels; label maps skip it."""
        return self.kind in (
            "convert_color", "normalize", "grayscale", "color_jitter", "random_grayscale", "gaussian_blur"
        )  # fmt: skip

    @property
    def erases(self) -> bool:
        """True for a mask, after which input and target differ."""
        return self.kind in MASKS

    @property
    def without_whole_images(self) -> Transform:
        """The same mask with a hole in every image, as evaluation needs it."""
        if not self.grid or all(self.grid.ratios):
            return self
        return Transform(grid=self.grid.model_copy(update={"ratio": [ratio for ratio in self.grid.ratios if ratio]}))

    @property
    def is_random(self) -> bool:
        """True for an augmentation, which evaluation skips."""
        drawn = self.kind.startswith("random_") or self.kind in ("jitter_crop", "color_jitter", "gaussian_blur")
        return drawn and not self.erases

    def shape_after(self, shape: Shape) -> Shape:
        """Return the shape of an image of this shape after the step."""
        height, width, channels = shape
        if size := self.resize or self.center_crop:
            return size[1], size[0], channels
        if self.jitter_crop is not None:
            return None, None, channels
        if self.grayscale or (self.convert_color or "").endswith("GRAY"):
            return height, width, 1
        return height, width, 3 if self.convert_color else channels


def shape_after(steps: Sequence[Transform], channels: int) -> Shape:
    """Return the shape of an image of any size after these steps."""
    shape: Shape = (None, None, channels)
    for step in steps:
        shape = step.shape_after(shape)
    return shape
