"""Signing in: by an access key, for a region."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_lookoutvision.server.console import rendering
from airflow_provider_lookoutvision.server.console.visit import base_of
from airflow_provider_lookoutvision.server.settings import Settings

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_DEFAULT_REGION = "us-east-1"
_FRAMED = (
    "In a frame of another site, as Airflow's is here, browsers keep nobody signed in. "
    "Open the console in a tab of its own:"
)
_NO_COOKIE = (
    "The key is right, but the browser doesn't send the session's cookie back. Allow cookies here; in a "
    "frame of another site, as Airflow's can be, open the console in a tab of its own:"
)


@dataclass(frozen=True)
class Attempt:
    """What somebody has filled in; ``problem`` is what is wrong with it."""

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    region: str = ""
    problem: str | None = None


def attempt(fields: Mapping[str, str], settings: Settings) -> Attempt:
    """Read the form."""
    key, secret = fields.get("access_key_id", "").strip(), fields.get("secret_access_key", "").strip()
    region = fields.get("region", "").strip() or default_region(settings)
    problem = region_problem(region, settings)
    if not key or not secret:
        problem = "Fill in the access key ID and its secret."
    return Attempt(key, secret, region, problem)


def region_problem(region: str, settings: Settings) -> str | None:
    """What is wrong with a region, or None."""
    if settings.regions and region not in settings.regions:
        return f"This service has the regions {', '.join(settings.regions)}: choose one of them."
    if not _REGION.fullmatch(region) or len(region) > 64:
        return f"{region[:64]!r} is no region: write it as us-east-1."
    return None


def default_region(settings: Settings) -> str:
    """The region that the form begins with."""
    return settings.regions[0] if settings.regions else _DEFAULT_REGION


def target(request: Request) -> str:
    """The page to go to after signing in: one of the console's own."""
    to = request.query_params.get("to", "/")
    return (
        to if to.startswith("/") and not to.startswith(("//", "/\\", "/sign-")) and to.isprintable() else "/"
    )


def form(
    request: Request,
    settings: Settings,
    to: str,
    filled: Attempt | None = None,
    problem: str | None = None,
) -> Response:
    """The page with the form; ``entered`` in the query says that somebody has signed in just now."""
    address = None
    if "entered" in request.query_params or _is_framed_elsewhere(request):
        problem = problem or (_NO_COOKIE if "entered" in request.query_params else _FRAMED)
        host = request.headers.get("x-forwarded-host") or request.headers.get("host", "")
        address = f"{request.url.scheme}://{host}{base_of(request)}{to}"
    region = filled.region if filled else request.query_params.get("region", default_region(settings))
    return rendering.page(
        "sign_in.html",
        401 if problem else 200,
        base=base_of(request),
        to=to,
        access_key_id=filled.access_key_id if filled else "",
        region=region,
        regions=settings.regions,
        problem=problem,
        address=address,
    )


def _is_framed_elsewhere(request: Request) -> bool:
    """Whether another site shows the page in a frame. Browsers say so with TLS, and to their own machine."""
    headers = request.headers
    return headers.get("sec-fetch-dest") == "iframe" and headers.get("sec-fetch-site") == "cross-site"
