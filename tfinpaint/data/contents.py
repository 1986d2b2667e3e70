"""What the beginning of a file that is no image of ours says it is, for messages."""

from __future__ import annotations

LOOKED_AT = 512  # bytes

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"version https://git-lfs", "a Git LFS pointer, whose file was not fetched"),
)
_MARKUP = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<svg", "an SVG drawing"))
_BRANDS = {b"avif": "an AVIF image", b"heic": "a HEIC image", b"heix": "a HEIC image", b"mif1": "a HEIC image"}


def begins_as(head: bytes) -> str:
    """The image format whose mark a file's first bytes are; "" for none."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for beginning, name in _IMAGES if head.startswith(beginning)), "")


def what_it_is(head: bytes) -> str:
    """In words what a file that is no image begins as, such as "an HTML page"; "" where the bytes tell nothing.

    Args:
        head: the first LOOKED_AT bytes, or all.
    """
    for beginning, name in _OTHERS:
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video")
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    return _of_text(head)


def _of_text(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text.lower()
    for beginning, name in _MARKUP:
        if lower.startswith(beginning) or (lower.startswith((b"<?xml", b"<!--")) and beginning in lower):
            return name
    if lower.startswith(b"<?xml"):
        return "an XML document"
    printable = all(byte >= 32 or byte in b"\t\n\r\f" for byte in text)
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        # the last character may be cut through where the look ends
        printable = printable and len(text) - error.start < 4 and len(head) == LOOKED_AT
    return "text" if printable else ""
