"""Removes from a JPEG or a PNG file whatever is not needed to decode its pixels.

Text, colour profiles, thumbnails and data after the end are dropped unread, so that no decoder inflates them
or loops over them. The rest is bounded: the number of chunks or segments, and the number of scans of a JPEG,
each of which costs a pass over all pixels however short it is.
"""

import re
import struct
import zlib

from airflow_provider_lookoutvision.engine.errors import UnusableImage

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
_KEPT_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}
# The most that fits into a JPEG segment; the orientation takes a dozen bytes.
_MAX_EXIF = 65_535
_MAX_CHUNKS = 100_000
# Encoders write a dozen scans at most.
_MAX_SCANS = 32
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# Application segments that are kept, one of each: JFIF and Adobe for the colour coding, EXIF for orientation.
_KEPT_SEGMENTS = {0xE0: b"JFIF\0", 0xE1: b"Exif\0", 0xEE: b"Adobe"}
_APPLICATION_AND_COMMENT = {*range(0xE0, 0xF0), 0xFE}
# A marker before the first scan; padding and markers without a segment are skipped.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")


def strip_metadata(content: bytes) -> bytes:
    """The same image, without what is not needed to decode it.

    :param content: a JPEG or PNG file
    :raises UnusableImage: it is neither, or is damaged, truncated, or has too many chunks or scans
    """
    if content.startswith(PNG):
        return _strip_png(content)
    if content.startswith(JPEG):
        return _strip_jpeg(content)
    raise UnusableImage("the file is neither a JPEG nor a PNG, whatever its name says; convert it to one")


def _strip_png(content: bytes) -> bytes:
    kept, position, chunks = [PNG], len(PNG), 0
    while position < len(content):
        chunks += 1
        header = content[position : position + 8]
        if len(header) < 8 or chunks > _MAX_CHUNKS:
            raise UnusableImage("the PNG is damaged or cut short; upload it anew")
        length, name = struct.unpack(">I4s", header)
        end = position + 12 + length
        if end > len(content):
            raise UnusableImage("the PNG is cut short; upload it anew")
        if name in _KEPT_CHUNKS and (name != b"eXIf" or length <= _MAX_EXIF):
            # The decoder doesn't check those of the pixel data.
            if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
                raise UnusableImage("the PNG is damaged: its checksums are not its content's; upload it anew")
            kept.append(content[position:end])
        position = end
        if name == b"IEND":
            return b"".join(kept)
    raise UnusableImage("the PNG is cut short; upload it anew")


def _strip_jpeg(content: bytes) -> bytes:
    kept, position, wanted = [content[:2]], 2, dict(_KEPT_SEGMENTS)
    for _ in range(_MAX_CHUNKS):
        marker = _MARKER.search(content, position)
        if marker is None:
            break
        kind, start = marker[1][0], marker.end()
        position = start + max(2, int.from_bytes(content[start : start + 2], "big"))
        if content.startswith(_START_OF_SCAN, start - 2):
            return b"".join([*kept, _scans(content, start - 2)])
        if kind not in _APPLICATION_AND_COMMENT or (
            kind in wanted and content.startswith(wanted[kind], start + 2)
        ):
            kept.append(content[marker.start() : position])
            wanted.pop(kind, None)
    raise UnusableImage("the JPEG is damaged or cut short; upload it anew")


def _scans(content: bytes, start: int) -> bytes:
    # A plain search is enough: within a scan 0xFF is followed by 0 where it is data, and no segment between
    # scans contains these markers.
    end = content.find(_END_OF_IMAGE, start)
    if end < 0:
        raise UnusableImage("the JPEG is cut short; upload it anew")
    if content.count(_START_OF_SCAN, start, end) > _MAX_SCANS:
        raise UnusableImage("the JPEG has too many scans; save the image anew")
    return content[start : end + 2]
