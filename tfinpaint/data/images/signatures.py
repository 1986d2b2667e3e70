"""Recognise what a file is by its first bytes."""

from __future__ import annotations

import os
import re
import stat

HEAD_BYTES = 512  # of a file that are read to recognise it

_IMAGES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",  # the last two are BigTIFF
}  # fmt: skip
_BMP = re.compile(rb"BM.{12}(?:\x0c|[\x28-\x7c])\0\0\0", re.DOTALL)  # "BM" alone begins many a text
# Binary PBM, PGM and PPM, whose whole header is within the first bytes.
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])+\d{1,10}"
_PNM = re.compile(rb"P(?:4" + 2 * _NUMBER + rb"|[56]" + 3 * _NUMBER + rb")\s")
_CANON_RAW = re.compile(rb"II\*\0....CR", re.DOTALL)  # begins as a TIFF file

# Formats that are common among photographs and scans, but are not decoded here.
_UNSUPPORTED = {
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\0\0\0\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL", b"8BPS": "Photoshop",
    b"\0\0\1\0": "ICO", b"FUJIFILMCCD-RAW": "camera raw",
}  # fmt: skip
_BRANDS = {  # of ISO media files
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
_BY_EXTENSION = {  # of formats whose first bytes are ambiguous; many raw photographs begin as TIFF files
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
_OTHERS = {
    b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a RAR archive",
    b"%PDF-": "a PDF document", b"%!PS": "a PostScript document",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file", b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
}  # fmt: skip
_MARKUP = {b"<!doctype html": "an HTML page", b"<html": "an HTML page", b"<svg": "an SVG drawing"}


def read_head(path: str) -> bytes:
    """Return the first HEAD_BYTES bytes of a file; nothing for a pipe or a device.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, HEAD_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def image_format(head: bytes) -> str:
    """Return the supported image format that a file's first bytes show; "" for none."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if _BMP.match(head):
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    return "" if _CANON_RAW.match(head) else _find_prefix(_IMAGES, head)


def unsupported_format(head: bytes, extension: str = "") -> str:
    """Return the name of an image format that is not supported, such as "HEIC"; "" for all other files.

    Args:
        head: the first HEAD_BYTES bytes.
        extension: of the file's name, with its dot, in lower case; "": the first bytes alone decide.
    """
    if name := _find_prefix(_UNSUPPORTED, head):
        return name
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if _CANON_RAW.match(head):
        return "camera raw"
    if head[128:132] == b"DICM":
        return "DICOM"
    name, supported = _BY_EXTENSION.get(extension, ""), image_format(head)
    return name if not supported or (supported == "TIFF" and name == "camera raw") else ""


def describe_content(head: bytes) -> str:
    """Return what a file that is not an image contains, such as "an HTML page"; "" if that is unknown.

    Args:
        head: the first HEAD_BYTES bytes.
    """
    if name := _find_prefix(_OTHERS, head):
        return name
    if head[4:8] == b"ftyp":
        return "a video"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text.lower()
    for beginning, name in _MARKUP.items():
        if lower.startswith(beginning) or (lower.startswith((b"<?xml", b"<!--")) and beginning in lower):
            return name
    if lower.startswith(b"<?xml"):
        return "an XML document"
    return "text" if _is_text(text, is_cut=len(head) == HEAD_BYTES) else ""


def _is_text(data: bytes, is_cut: bool) -> bool:
    """Return True for UTF-8 without control characters; the last character may be incomplete if the data is cut."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if not is_cut or len(data) - error.start >= 4:
            return False
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in data)


def _find_prefix(names: dict[bytes, str], head: bytes) -> str:
    return next((name for beginning, name in names.items() if head.startswith(beginning)), "")
