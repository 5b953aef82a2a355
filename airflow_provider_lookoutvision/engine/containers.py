"""Strips a JPEG or a PNG of everything that is not needed to draw it, before anything is decoded.

Text, profiles, thumbnails, further pictures and the like are dropped unread, so nothing can inflate or loop
over them. What is left is bounded: in the number of its parts, and in how often a JPEG may paint over its
pixels, which costs as much each time however little it says.
"""

import re
import struct
import zlib

from airflow_provider_lookoutvision.engine.errors import UnusableImage

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}
# As much as fits into a segment of a JPEG; the orientation takes a dozen bytes.
_MAX_EXIF = 65_535
_MAX_PARTS = 100_000
# Encoders make a dozen scans of an image at most.
_MAX_SCANS = 32
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# What else is kept, once: JFIF and Adobe's segment say how the colours were coded, EXIF which way is up.
_KEPT_NOTES = {0xE0: b"JFIF\0", 0xE1: b"Exif\0", 0xEE: b"Adobe"}
_NOTES = {*range(0xE0, 0xF0), 0xFE}
# Before the first scan; what a marker is padded with, and those that stand alone, are passed over.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")


def only_drawing(content: bytes) -> bytes:
    """The same picture in fewer bytes.

    :raises UnusableImage: the content is no JPEG or PNG, or is damaged, cut short, or beyond all measure
    """
    if content.startswith(PNG):
        return _png(content)
    if content.startswith(JPEG):
        return _jpeg(content)
    raise UnusableImage("the file is neither a JPEG nor a PNG, whatever its name says; convert it to one")


def _png(content: bytes) -> bytes:
    kept, position, parts = [PNG], len(PNG), 0
    while position < len(content):
        parts += 1
        header = content[position : position + 8]
        if len(header) < 8 or parts > _MAX_PARTS:
            raise UnusableImage("the PNG is damaged or cut short; upload it anew")
        length, name = struct.unpack(">I4s", header)
        end = position + 12 + length
        if end > len(content):
            raise UnusableImage("the PNG is cut short; upload it anew")
        if name in _CHUNKS and (name != b"eXIf" or length <= _MAX_EXIF):
            # The decoder doesn't look at those of the pixels.
            if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
                raise UnusableImage("the PNG is damaged: its checksums are not its content's; upload it anew")
            kept.append(content[position:end])
        position = end
        if name == b"IEND":
            return b"".join(kept)
    raise UnusableImage("the PNG is cut short; upload it anew")


def _jpeg(content: bytes) -> bytes:
    kept, position, notes = [content[:2]], 2, dict(_KEPT_NOTES)
    for _ in range(_MAX_PARTS):
        marker = _MARKER.search(content, position)
        if marker is None:
            break
        kind, start = marker[1][0], marker.end()
        position = start + max(2, int.from_bytes(content[start : start + 2], "big"))
        if content.startswith(_SCAN, start - 2):
            return b"".join([*kept, _scans(content, start - 2)])
        if kind not in _NOTES or (kind in notes and content.startswith(notes[kind], start + 2)):
            kept.append(content[marker.start() : position])
            notes.pop(kind, None)
    raise UnusableImage("the JPEG is damaged or cut short; upload it anew")


def _scans(content: bytes, start: int) -> bytes:
    # Within a scan, 0xFF is followed by 0 where it is data, and what lies between scans has no use for these.
    end = content.find(_END, start)
    if end < 0:
        raise UnusableImage("the JPEG is cut short; upload it anew")
    if content.count(_SCAN, start, end) > _MAX_SCANS:
        raise UnusableImage("the JPEG is painted in too many scans; save the image anew")
    return content[start : end + 2]
