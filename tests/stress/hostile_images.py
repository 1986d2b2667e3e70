"""Images, pipes and devices that strangers could send to `prepare`, `predict` and trainings."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from good_inputs import Arguments, Good, Make, config, predict, write_yaml
from hostile_code import payload
from PIL import Image


def png(
    width: int, height: int, chunks: Sequence[tuple[bytes, bytes]] = (), data: bytes = b"", is_bilevel: bool = False
) -> bytes:
    depth, colour = (1, 0) if is_bilevel else (8, 2)
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(side: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), (9, 8, 7)).save(written, "JPEG")
    return written.getvalue()


def eps(canary: Path) -> bytes:
    return (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n({canary}) (w) file closefile\nshowpage\n%%EOF\n".encode()
    )


def tiff(tags: dict[int, int], data: bytes = b"") -> bytes:
    """A grey TIFF file, whose directory begins at byte 8."""
    tags = dict(sorted(({258: 8, 262: 1, 277: 1} | tags).items()))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + data


def wide_tiff() -> bytes:
    return tiff({256: 2**31 - 1, 257: 2**31 - 1, 273: 8, 279: 1})


def tiled_tiff(width: int, height: int) -> bytes:
    """An image of 16 x 16 pixels that is the corner of one tile."""
    packing = zlib.compressobj(9)
    data = b"".join(packing.compress(bytes(width)) for _ in range(height)) + packing.flush()
    tags = {256: 16, 257: 16, 259: 8, 322: width, 323: height, 324: 0, 325: len(data)}
    tags[324] = len(tiff(tags))
    return tiff(tags, data)


IMAGES: dict[str, Callable[[Good], bytes]] = {
    "PNG of 2.5 gigapixels": lambda good: png(50_000, 50_000, data=bytes(2**20)),
    "PNG of 300 megapixels in 37 kB": lambda good: png(
        20_000, 15_000, data=bytes(15_000 * (1 + 20_000 // 8)), is_bilevel=True
    ),
    "PNG with a text bomb": lambda good: png(
        32, 32, [(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**27), 9))], bytes(97 * 32)
    ),
    "PNG cut short": lambda good: (good.images / "a" / "0.png").read_bytes()[:500],
    "PNG without pixels": lambda good: png(32, 32),
    "JPEG cut short": lambda good: jpeg(256)[:700],
    "TIFF of exapixels": lambda good: wide_tiff(),
    "TIFF of one tile of 300 megapixels": lambda good: tiled_tiff(20_000, 15_000),
    "PostScript": lambda good: eps(good.canaries / "postscript"),
    "pickle": lambda good: payload(good.canaries / "image"),
    "empty": lambda good: b"",
}


def image_for_prepare(contents: Callable[[Good], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        shutil.copytree(good.images, folder / "images")
        (folder / "images" / "a" / "x.png").write_bytes(contents(good))
        return [folder / "images", out / "dest"]

    return make


def image_for_predict(contents: Callable[[Good], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        (folder / "x.png").write_bytes(contents(good))
        return predict(good, out, good.weights, photo=folder / "x.png")

    return make


def pipe(good: Good, folder: Path, out: Path) -> Arguments:
    shutil.copytree(good.images, folder / "images")
    os.mkfifo(folder / "images" / "a" / "x.png")
    return [folder / "images", out / "dest"]


def pipe_for(command: str) -> Make:
    """In place of the first image that a configuration names, which preview shows in any case."""

    def make(good: Good, folder: Path, out: Path) -> Arguments:
        images = Path(shutil.copytree(good.images, folder / "images"))
        (images / "a" / "0.png").unlink()
        os.mkfifo(images / "a" / "0.png")
        document = config(good, "pretrain" if command == "preview" else command)
        document["data"]["input_path"] = str(images)
        to: Arguments = ["--output", out / "preview.png"] if command == "preview" else ["--workdir", out / "run"]
        return ["--config", write_yaml(folder / "c.yaml", document), *to]

    return make


def endless(good: Good, folder: Path, out: Path) -> Arguments:
    shutil.copytree(good.images, folder / "images")
    (folder / "images" / "a" / "x.png").symlink_to("/dev/zero")
    return [folder / "images", out / "dest"]
