"""The worker: a process that runs the jobs, beside the API or on another machine with the same database.

``lookoutvision serve`` starts one, and restarts it when it dies; ``lookoutvision worker`` is the same process
on its own. It polls the queue every second, and at once when the API wakes it by a byte on its standard
input. When its standard input ends, the API that started it has ended, and the worker stops.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

import sqlalchemy as sa

from airflow_provider_lookoutvision.server import cluster, logs
from airflow_provider_lookoutvision.server.datasets.importer import Importer
from airflow_provider_lookoutvision.server.jobs import heartbeat, process_identity, queue
from airflow_provider_lookoutvision.server.jobs.handler import JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Lease, WorkerStopping
from airflow_provider_lookoutvision.server.models.trainer import Trainer
from airflow_provider_lookoutvision.server.models.training_entries import import_ended
from airflow_provider_lookoutvision.server.packaging.packager import Packager
from airflow_provider_lookoutvision.server.settings import Settings, as_environ
from airflow_provider_lookoutvision.server.signals import on_stop_signal
from airflow_provider_lookoutvision.server.storage import stores
from airflow_provider_lookoutvision.server.storage.database import Database

POLL_SECONDS = 1.0
RESTART_SECONDS = 1.0
STOP_SECONDS = 30
EXIT_SECONDS = 20
_CHECK_SECONDS = 10.0
_HANGING_STATUS = 3

log = logging.getLogger("lookoutvision")


class Worker:
    """The threads of one worker process."""

    def __init__(self, settings: Settings, database: Database, owner: str) -> None:
        self._settings, self._database, self._owner = settings, database, owner
        self._stopping = threading.Event()
        self._wakeup = threading.Condition()
        self._ended = threading.Event()
        self._active_at: dict[str, float] = {}  # by thread, when it last showed that it goes on
        self._served: dict[tuple[str, ...], str] = {}  # by kinds, the account of the last job

    def run(self) -> None:
        """Run jobs until ``stop``."""
        store, stopping = stores.store(self._settings), self._is_stopping
        trainer_class = cluster.trainer() if self._settings.cluster else Trainer
        trainer = trainer_class(self._database, store, self._settings, stopping)
        importer = Importer(self._database, store, self._settings, stopping, import_ended)
        packager = Packager(self._database, store, self._settings, stopping)
        for handler in (trainer, packager):
            with suppress(OSError, sa.exc.SQLAlchemyError):
                handler.delete_leftovers()
        with suppress(sa.exc.SQLAlchemyError):
            queue.requeue_of_the_gone(self._database)
        handlers: list[tuple[int, JobHandler]] = [
            (self._settings.import_workers, importer),
            (self._settings.training_workers, trainer),
            (self._settings.packaging_workers, packager),
        ]
        threads = [
            threading.Thread(target=self._loop, args=(handler,), name=f"{handler.kinds[0]}-{number}")
            for count, handler in handlers
            for number in range(count)
        ]
        heart = threading.Thread(target=self._beat, name="heart", daemon=True)
        for thread in (heart, *threads):
            thread.start()
        for thread in threads:
            # In steps: a signal that the system gives to another thread doesn't interrupt a wait without end.
            while thread.is_alive():
                thread.join(POLL_SECONDS)
        self._ended.set()
        with suppress(sa.exc.SQLAlchemyError):
            heartbeat.stop(self._database, self._owner)

    def stop(self) -> None:
        """Put the jobs under way back into the queue, and end ``run``."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """Poll the queue now."""
        with self._wakeup:
            self._wakeup.notify_all()

    def _is_stopping(self) -> bool:
        """Whether it is stopping; jobs call this now and then, which shows that they go on."""
        self._active_at[threading.current_thread().name] = time.monotonic()
        return self._stopping.is_set()

    def _beat(self) -> None:
        """Be heard of while all threads go on; end the process when one hangs, so that another takes over."""
        while not self._ended.wait(heartbeat.BEAT_SECONDS):
            longest = self._settings.max_silent_minutes * 60
            now = time.monotonic()
            hanging = [name for name, moment in list(self._active_at.items()) if now - moment > longest]
            if hanging and not self._stopping.is_set():
                log.error(
                    "a job hangs, and ends this worker",
                    extra={"threads": hanging, "stacks": _stacks(hanging)},
                )
                os._exit(_HANGING_STATUS)
            with suppress(sa.exc.SQLAlchemyError):
                heartbeat.beat(self._database, self._owner)

    def _loop(self, handler: JobHandler) -> None:
        while not self._is_stopping():
            try:
                if self._run_next_job(handler):
                    continue
            except Exception:  # a thread that ended here would not be restarted
                log.exception("error in the worker; it continues")
            with self._wakeup:
                if not self._stopping.is_set():
                    self._wakeup.wait(POLL_SECONDS)

    def _run_next_job(self, handler: JobHandler) -> bool:
        after = self._served.get(handler.kinds, "")
        job = queue.claim(self._database, self._owner, handler.kinds, after)
        if job is None:
            return False
        self._served[handler.kinds] = job.account_id
        with logs.about_request(job.request_id):
            self._run(handler, job)
        return True

    def _run(self, handler: JobHandler, job: queue.Job) -> None:
        job_fields = {"job": job.id, "kind": job.kind, "subject": job.subject_id, "attempt": job.attempts}
        log.info("job started", extra=job_fields)
        try:
            if job.attempts > queue.MAX_ATTEMPTS:
                handler.give_up(job)
            else:
                handler.run(job)
        except WorkerStopping:
            Lease(self._database, job).release()
            log.info("job released", extra=job_fields)
        except queue.LeaseLost:
            log.warning("job lost to another worker", extra=job_fields)
        except sa.exc.DBAPIError:
            raise  # the lease expires, and the job is claimed again
        except Exception:
            log.exception("job failed", extra=job_fields)
            with suppress(queue.LeaseLost):
                handler.fail_unexpectedly(job)
        else:
            log.info("job finished", extra=job_fields)


def _stacks(names: Sequence[str]) -> dict[str, str]:
    """Where threads are."""
    frames = sys._current_frames()
    return {
        thread.name: "".join(traceback.format_stack(frames[thread.ident]))
        for thread in threading.enumerate()
        if thread.name in names and thread.ident in frames
    }


def work(settings: Settings, database: Database) -> None:
    """Run a worker in this process until SIGTERM, SIGINT, or the end of its standard input."""
    logs.configure(settings.log_level)
    if settings.cluster:
        cluster.connect(settings)
    owner = os.environ.get(_OWNER_VARIABLE) or _new_owner()
    worker = Worker(settings, database, owner)

    def stop() -> None:
        worker.stop()
        # A download that hangs must not delay the exit: it ends with the process, and its lease expires.
        exit_later = threading.Timer(EXIT_SECONDS, os._exit, (1,))
        exit_later.daemon = True
        exit_later.start()

    def listen() -> None:
        while os.read(0, 4096):
            worker.wake()
        stop()

    on_stop_signal(stop)
    if is_beside_the_api():
        threading.Thread(target=listen, daemon=True).start()
    worker.run()


_OWNER_VARIABLE = "LOOKOUTVISION_WORKER_OWNER"


def is_beside_the_api() -> bool:
    """Whether ``WorkerProcess`` has started this process, so that what it says is of the service's log."""
    return _OWNER_VARIABLE in os.environ


def _new_owner() -> str:
    return f"{process_identity.own()}-{secrets.token_hex(3)}"


class WorkerProcess:
    """A worker beside the API: it is restarted when it dies."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._supervisor.start()

    def wake(self) -> None:
        """Make the worker poll the queue now."""
        process = self._process
        if process and process.stdin:
            with suppress(OSError):  # it is being restarted, and polls at its start
                process.stdin.write(b"\n")

    def stop(self) -> None:
        """Stop the worker, and wait until its jobs are back in the queue."""
        self._stopping.set()
        if self._supervisor.ident is None:
            return  # it was never started
        if self._process:
            self._process.terminate()
        self._supervisor.join(STOP_SECONDS)
        if self._supervisor.is_alive() and self._process:
            self._process.kill()
            self._supervisor.join(STOP_SECONDS)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                self._run_once()
            except Exception:
                log.exception("the worker can't be started")
            self._stopping.wait(RESTART_SECONDS)

    def _run_once(self) -> None:
        command = [sys.executable, "-m", "airflow_provider_lookoutvision.server.cli", "worker"]
        owner = _new_owner()
        environ = {**os.environ, **as_environ(self._settings), _OWNER_VARIABLE: owner}
        # Its own session: Ctrl-C at the terminal stops the API, and that stops the worker.
        process = subprocess.Popen(  # noqa: S603 (our own command)
            command, env=environ, stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self._process = process
        if self._stopping.is_set():
            process.terminate()
        status = self._wait(process, owner)
        if not self._stopping.is_set():
            log.error("the worker ended and is restarted", extra={"exit_status": status})
        queue.requeue(self._database, owner)

    def _wait(self, process: subprocess.Popen[bytes], owner: str) -> int:
        """The status with which the worker ends; it is killed when it hangs."""
        started_at = time.monotonic()
        while True:
            try:
                return process.wait(_CHECK_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(sa.exc.SQLAlchemyError):
                    silence = self._silence(owner, time.monotonic() - started_at)
                    if silence > heartbeat.HANGING_SECONDS and not self._stopping.is_set():
                        log.error("the worker hangs and is killed", extra={"seconds": round(silence)})
                        process.kill()

    def _silence(self, owner: str, age: float) -> float:
        """For how many seconds the worker wasn't heard of, though it could have been."""
        with self._database.read() as connection:
            heard = heartbeat.silence(connection, owner)
        silence = age - heartbeat.MISSING_SECONDS if heard is None else heard  # its start takes its time
        if heartbeat.HANGING_SECONDS < silence < 2 * heartbeat.HANGING_SECONDS:
            # Whoever else holds up all writers, it isn't its fault; unless it is the one who does.
            with self._database.write():
                pass
        return silence
