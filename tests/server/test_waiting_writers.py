"""Writers that wait keep neither reads nor health from being answered, and their number has a limit."""

from __future__ import annotations

from contextlib import ExitStack

from locked_projects import projects_locked
from project_calls import PROJECTS, ProjectClient, body_of
from services import NewService, first_key_of, storage_of
from signed_http import SignedHttpClient

WAITING = 64
THREADS = 4


def test_reads_are_answered_while_writers_wait(new_service: NewService) -> None:
    service = new_service("--no-worker", "--threads", str(THREADS))
    signed_http = SignedHttpClient(service.endpoint_url, first_key_of(service))
    assert ProjectClient(signed_http).names() == []
    with storage_of(service) as storage, ExitStack() as requests:
        with projects_locked(storage):
            answers = [
                requests.enter_context(
                    signed_http.under_way(
                        "POST", PROJECTS, body_of(f"p{i}"), {"X-Amzn-Client-Token": f"t{i}"}
                    )
                )
                for i in range(WAITING + THREADS + 8)
            ]
            refused = answers[-1]()
            assert (refused.status, refused.code) == (503, "ServiceUnavailableException")
            assert refused.headers["retry-after"] == "1"
            assert ProjectClient(signed_http).names() == []
            assert signed_http.send("GET", "/livez", signed=False).status == 200
        statuses = [answer().status for answer in answers[:-1]]
    assert set(statuses) <= {200, 503}
    assert statuses.count(503) >= 7
    assert len(ProjectClient(signed_http).names()) == statuses.count(200)
