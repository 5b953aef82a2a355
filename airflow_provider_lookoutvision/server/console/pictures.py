"""Pictures: thumbnails, and images and masks as they are, each with the key's right to its bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

import anyio.to_thread
from starlette.responses import Response

from airflow_provider_lookoutvision.server.console.objects import location_of
from airflow_provider_lookoutvision.server.console.thumbnails import NoThumbnail, Thumbnails
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.protocol.errors import ValidationException
from airflow_provider_lookoutvision.server.storage.buckets import Location

_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))
_FRESH = "private, max-age=60"


def pages(thumbnails: Thumbnails) -> Mapping[tuple[str, str], Callable[[Visit], Awaitable[Response]]]:
    """The routes, by method and path."""

    async def show_thumbnail(visit: Visit) -> Response:
        location = location_of(visit.query.get("uri", ""))
        tag = await anyio.to_thread.run_sync(_tag, visit, location)
        if visit.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_headers(tag))
        try:
            content = await thumbnails.get(f"{location} {tag}", lambda: visit.objects.read(location))
        except NoThumbnail:
            return await show_picture(visit)  # the browser may still show it, or says that it can't
        return Response(content, media_type="image/jpeg", headers=_headers(tag))

    async def show_picture(visit: Visit) -> Response:
        location = location_of(visit.query.get("uri", ""))
        content = await anyio.to_thread.run_sync(visit.objects.read, location)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if visit.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_headers(tag))
        kind = next((kind for start, kind in _KINDS if content.startswith(start)), None)
        if kind is None:
            raise ValidationException(f"{location} is neither a JPEG nor a PNG: convert it to one")
        return Response(content, media_type=kind, headers=_headers(tag))

    return {("GET", "/pictures/thumbnail"): show_thumbnail, ("GET", "/pictures/original"): show_picture}


def _tag(visit: Visit, location: Location) -> str:
    return f'"{hashlib.sha256(visit.objects.stamp(location).encode()).hexdigest()[:32]}"'


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": _FRESH}
