"""What the first bytes of a file say it is. Files are judged by these, and by their endings only for speed."""

from __future__ import annotations

import os
import re
import stat

LOOKED_AT = 512  # bytes

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_BMP = re.compile(rb"BM.{12}(?:\x0c|[\x28-\x7c])\0\0\0", re.DOTALL)  # "BM" alone begins many a text
# Binary PBM, PGM and PPM, whose whole header is among the bytes that were looked at.
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])+\d{1,10}"
_PNM = re.compile(rb"P(?:4" + 2 * _NUMBER + rb"|[56]" + 3 * _NUMBER + rb")\s")
_PLAIN_PNM = re.compile(rb"P[123]\s+(?:#[^\r\n]*[\r\n]\s*)*\d{1,10}\s+\d{1,10}\s")

# Images and drawings that no decoder of the project reads: the mark of each, and its name.
_UNSUPPORTED = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"icns", "ICNS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"SIMPLE  =", "FITS"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"qoif", "QOI"),
    (b"II\xbc\1", "JPEG XR"),
    (b"gimp xcf", "GIMP"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
# What files are whose first bytes tell nothing. Many raw photographs begin as TIFF files, which tells no more.
_BY_ENDING = {
    **dict.fromkeys((".heic", ".heif"), "HEIC"),
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2"), "camera raw"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    ".avif": "AVIF",
    ".jp2": "JPEG 2000",
    ".jxl": "JPEG XL",
    ".psd": "Photoshop",
    ".svg": "SVG",
    ".tga": "TGA",
}

_OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer, whose file was not fetched"),
)
_MARKUP = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<svg", "an SVG drawing"))


def read_head(path: str) -> bytes:
    """Return the first LOOKED_AT bytes of a file; nothing of what is no regular file, which may have no end.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, LOOKED_AT) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def begins_as(head: bytes) -> str:
    """Return the supported image format whose mark a file's first bytes are; "" for none."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if _BMP.match(head):
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    if head[8:10] == b"CR" and head.startswith(b"II*\0"):  # Canon's raw photographs
        return ""
    return next((name for beginning, name in _IMAGES if head.startswith(beginning)), "")


def unsupported_format(head: bytes, ending: str = "") -> str:
    """Return the name of an image format that is not supported, such as "HEIC"; "" where it is none that is known.

    Args:
        head: the first LOOKED_AT bytes, or all.
        ending: of the file's name, with its dot, in lower case; "" looks at the bytes alone.
    """
    for beginning, name in _UNSUPPORTED:
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if head[8:10] == b"CR" and head.startswith(b"II*\0"):
        return "camera raw"
    if _PLAIN_PNM.match(head):
        return "plain PNM"
    if head[128:132] == b"DICM":
        return "DICOM"
    kind = _BY_ENDING.get(ending, "")
    is_told_by_ending = begins_as(head) == "" or (begins_as(head) == "TIFF" and kind == "camera raw")
    return kind if is_told_by_ending else ""


def what_it_is(head: bytes) -> str:
    """Return in words what a file that is no image begins as, such as "an HTML page"; "" where the bytes tell nothing.

    Args:
        head: the first LOOKED_AT bytes, or all.
    """
    for beginning, name in _OTHERS:
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return "a video"
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
