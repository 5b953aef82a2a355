"""Whether Airflow's UI can show the console in its frame.

Where it can't, a browser shows a broken page and no reason. What can be known beforehand is said instead:
that the service doesn't allow it, or that Airflow has TLS and the service hasn't.
"""

from __future__ import annotations

from urllib.parse import urlsplit

_SECONDS = 3.0


def origin_of_frame(destination: str, referrer: str) -> str | None:
    """The origin of the page of Airflow that shows a frame; None when the page isn't known to be in one.

    :param destination: the request's Sec-Fetch-Dest, which browsers send with TLS, and to their own machine.
    :param referrer: its Referer.
    """
    if destination not in {"", "iframe"} or urlsplit(referrer).scheme not in {"http", "https"}:
        return None
    return f"{urlsplit(referrer).scheme}://{urlsplit(referrer).netloc}"


def obstacle(console: str, origin: str) -> str | None:
    """Why a browser won't show the console in a frame of that origin, and what to do; None when it may.

    :param console: the console's address, of Airflow's own configuration: it is requested from here.
    """
    import httpx

    if urlsplit(origin).scheme == "https" and urlsplit(console).scheme == "http":
        return "Airflow has TLS and the service hasn't, so browsers won't show it here: serve it with TLS."
    try:
        policy = httpx.get(f"{console}/sign-in", timeout=_SECONDS).headers.get("content-security-policy", "")
    except httpx.HTTPError:
        return None  # browsers may reach what Airflow's server doesn't
    directives = [directive.split() for directive in policy.lower().split(";")]
    allowed = next((words[1:] for words in directives if words[:1] == ["frame-ancestors"]), None)
    own = f"{urlsplit(console).scheme}://{urlsplit(console).netloc}"
    if allowed is None or any("*" in source for source in allowed):
        return None
    if origin.lower() in {own.lower() if source == "'self'" else source for source in allowed}:
        return None
    return (
        "The service doesn't allow Airflow to show its console here. Start the service with "
        f"--console-frame-ancestors {origin}"
    )
