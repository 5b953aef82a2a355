"""Jobs of a Ray cluster, by the REST API of its dashboard, which needs no Ray here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
import tenacity
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.http.hooks.http import HttpHook

from airflow_provider_lookoutvision.batches.job import UNUSABLE

_UNDER_WAY = ("PENDING", "RUNNING")
_POLL_SECONDS = 2.0
_REQUEST_SECONDS = 60.0
_GIVE_UP_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 30.0
_REFUSED = (401, 403)
_SERVER_ERROR = 500

log = logging.getLogger(__name__)


class RayJobs:
    """The jobs of one cluster.

    :param ray_conn_id: an Airflow connection of the type ``http`` to the dashboard, ``http://head:8265``;
        with a login and a password, or headers as its extra, where a proxy needs them.
    """

    def __init__(self, ray_conn_id: str) -> None:
        self._conn_id = ray_conn_id

    def run(self, name: str, command: str, stopped: Callable[[], bool]) -> bool:
        """Run a command as a job, and wait for its end, with its output in the log.

        A job is there once: who calls this again, after it was killed, waits for the same job. A job that has
        ended is followed by another.

        :param name: identifies what the job is for.
        :param stopped: whether the wait is to end; the job is then stopped.
        :return: whether the job has succeeded, and not been stopped.
        :raises AirflowFailException: when the cluster refuses the job, or the connection; when the job ends
            with the exit code ``UNUSABLE``.
        :raises AirflowException: when the job fails; when the cluster can't take it now, or doesn't answer
            for five minutes.
        """
        job, is_new = self._start(name, command)
        shown = 0
        while True:
            found = self._describe(job) or {
                "status": "LOST",
                "message": "the cluster doesn't know it any more",
            }
            shown = self._relay(job, shown)
            if found["status"] == "SUCCEEDED":
                return True
            if found["status"] == "STOPPED" and not is_new:  # by the try before, which was killed
                job, is_new = self._start(name, command)
                shown = 0
                continue
            if found["status"] not in _UNDER_WAY:
                # It ends with the job's last lines.
                reason = str(found.get("message") or "").strip().rpartition("\n")[2]
                kind = AirflowFailException if found.get("driver_exit_code") == UNUSABLE else AirflowException
                raise kind(f"The Ray job {job} is {found['status']}: {reason}")
            if stopped():
                log.info("Stopping the Ray job %s", job)
                self._request("POST", f"api/jobs/{job}/stop")
                return False
            time.sleep(_POLL_SECONDS)

    def _start(self, name: str, command: str) -> tuple[str, bool]:
        """The job that is under way, or a new one; and whether it is new."""
        for job in self._names(name):
            found = self._describe(job)
            if found is not None:
                if found["status"] not in _UNDER_WAY:
                    continue
                log.info("The Ray job %s is there already, and %s", job, found["status"])
                return job, False
            response = self._request("POST", "api/jobs/", json={"entrypoint": command, "submission_id": job})
            # Its answer may have been lost the first time.
            if response.ok or self._describe(job) is not None:
                log.info("The Ray job %s is submitted", job)
                return job, True
            reason = response.text.strip().rpartition("\n")[2]
            kind = AirflowException if response.status_code >= _SERVER_ERROR else AirflowFailException
            raise kind(f"The Ray cluster refuses the job {job}: {reason}")
        raise AssertionError("there is always another name")

    @staticmethod
    def _names(name: str) -> Iterator[str]:
        yield name
        number = 2
        while True:
            yield f"{name}-{number}"
            number += 1

    def _describe(self, job: str) -> dict[str, Any] | None:
        response = self._request("GET", f"api/jobs/{job}")
        if response.status_code == requests.codes.not_found:
            return None
        if not response.ok:
            raise AirflowFailException(
                f"The connection {self._conn_id} leads to no dashboard of Ray: {response.url} answers "
                f"{response.status_code} {response.reason}"
            )
        found: dict[str, Any] = response.json()
        return found

    def _relay(self, job: str, shown: int) -> int:
        """Log the job's new lines; how many there are."""
        response = self._request("GET", f"api/jobs/{job}/logs")
        if not response.ok:
            return shown
        lines = str(response.json()["logs"]).splitlines()
        for line in lines[shown:]:
            log.info("%s", line)
        return len(lines)

    def _request(self, method: str, path: str, **members: Any) -> requests.Response:
        """The response; a cluster that is away is waited for.

        :raises AirflowFailException: when it refuses who asks.
        :raises AirflowException: when it doesn't answer for five minutes.
        """
        hook = HttpHook(method, http_conn_id=self._conn_id)
        patience = {
            "wait": tenacity.wait_exponential(max=_LONGEST_PAUSE_SECONDS),
            "stop": tenacity.stop_after_delay(_GIVE_UP_SECONDS),
            "retry": tenacity.retry_if_exception_type((requests.ConnectionError, requests.Timeout))
            | tenacity.retry_if_result(_is_away),
            "before_sleep": tenacity.before_sleep_log(log, logging.WARNING),
            "retry_error_callback": lambda _: None,
        }
        options = {"check_response": False, "timeout": _REQUEST_SECONDS}
        response: requests.Response | None = hook.run_with_advanced_retry(
            patience, path, extra_options=options, **members
        )
        if response is None:
            raise AirflowException(
                f"The Ray cluster of the connection {self._conn_id} has not answered for "
                f"{_GIVE_UP_SECONDS:g} s"
            )
        if response.status_code in _REFUSED:
            raise AirflowFailException(
                f"The connection {self._conn_id} is refused: {response.status_code} {response.reason}"
            )
        return response


def _is_away(response: requests.Response) -> bool:
    """Whether a proxy, or a head that starts, says that there is nobody."""
    return response.status_code in (429, 502, 503, 504)
