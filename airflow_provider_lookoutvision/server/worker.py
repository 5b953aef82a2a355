"""The worker: a process beside the API, or on another machine with the same database, that does the jobs.

``lookoutvision serve`` starts one and starts it again when it dies; ``lookoutvision worker`` is the same
process on its own. It looks for work when the API wakes it (a byte on its standard input), and else every
second. When its standard input ends, the API that started it has gone, and so does it.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import uuid
from contextlib import suppress

import sqlalchemy as sa

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.datasets.importer import Importer
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.jobs.handler import JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Lease, Stopped
from airflow_provider_lookoutvision.server.models.trainer import Trainer
from airflow_provider_lookoutvision.server.settings import Settings, as_environ
from airflow_provider_lookoutvision.server.signals import on_stop_signal
from airflow_provider_lookoutvision.server.storage import buckets
from airflow_provider_lookoutvision.server.storage.database import Database

POLL_SECONDS = 1.0
RESTART_SECONDS = 1.0
STOP_SECONDS = 30
LEAVE_SECONDS = 20

log = logging.getLogger("lookoutvision")


class Worker:
    """The threads of one worker process."""

    def __init__(self, settings: Settings, database: Database, owner: str) -> None:
        self._settings, self._database, self._owner = settings, database, owner
        self._stopping = threading.Event()
        self._work = threading.Condition()

    def run(self) -> None:
        """Work until ``stop``."""
        store, stopping = buckets.store(self._settings), self._stopping.is_set
        trainer = Trainer(self._database, store, self._settings, stopping)
        with suppress(OSError, sa.exc.SQLAlchemyError):
            trainer.tidy()
        handlers: list[tuple[int, JobHandler]] = [
            (self._settings.import_workers, Importer(self._database, store, self._settings, stopping)),
            (self._settings.training_workers, trainer),
        ]
        threads = [
            threading.Thread(target=self._loop, args=(handler,), name=f"{handler.kinds[0]}-{number}")
            for count, handler in handlers
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Give back what is under way, and end."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """Look for work now."""
        with self._work:
            self._work.notify_all()

    def _loop(self, handler: JobHandler) -> None:
        while not self._stopping.is_set():
            try:
                if self._do_one(handler):
                    continue
            except Exception:  # a thread that ended here would be missed by nobody
                log.exception("the worker met an error, and goes on")
            with self._work:
                if not self._stopping.is_set():
                    self._work.wait(POLL_SECONDS)

    def _do_one(self, handler: JobHandler) -> bool:
        job = queue.claim(self._database, self._owner, handler.kinds)
        if job is None:
            return False
        job_fields = {"job": job.id, "kind": job.kind, "subject": job.subject_id, "attempt": job.attempts}
        log.info("job begun", extra=job_fields)
        try:
            if job.attempts > queue.MOST_ATTEMPTS:
                handler.give_up(job)
            else:
                handler.run(job)
        except Stopped:
            Lease(self._database, job).release()
            log.info("job given back", extra=job_fields)
        except queue.LeaseLost:
            log.warning("job lost to another worker", extra=job_fields)
        except sa.exc.DBAPIError:
            raise  # the lease runs out, and the job is claimed again
        except Exception:
            log.exception("job failed", extra=job_fields)
            with suppress(queue.LeaseLost):
                handler.fail_unexpectedly(job)
        else:
            log.info("job ended", extra=job_fields)
        return True


def work(settings: Settings, database: Database) -> None:
    """Run a worker in this process until SIGTERM, SIGINT, or the end of its standard input."""
    logs.configure(settings.log_level)
    owner = os.environ.get(_OWNER_VARIABLE) or _new_owner()
    worker = Worker(settings, database, owner)

    def stop() -> None:
        worker.stop()
        # A download that hangs holds up nobody: it ends with the process, and its lease runs out.
        exit_later = threading.Timer(LEAVE_SECONDS, os._exit, (1,))
        exit_later.daemon = True
        exit_later.start()

    def listen() -> None:
        while os.read(0, 4096):
            worker.wake()
        stop()

    on_stop_signal(stop)
    if _OWNER_VARIABLE in os.environ:
        threading.Thread(target=listen, daemon=True).start()
    worker.run()


_OWNER_VARIABLE = "LOOKOUTVISION_WORKER_OWNER"


def _new_owner() -> str:
    return f"{socket.gethostname()[:20]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class WorkerProcess:
    """A worker beside the API: started, woken, started again when it dies, stopped."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._keeper.start()

    def wake(self) -> None:
        """Tell it that there is work."""
        process = self._process
        if process and process.stdin:
            with suppress(OSError):  # it is being started again, and then looks for work by itself
                process.stdin.write(b"\n")

    def stop(self) -> None:
        """Stop it, and wait until it has given back what was under way."""
        self._stopping.set()
        if self._keeper.ident is None:
            return  # it was never started
        if self._process:
            self._process.terminate()
        self._keeper.join(STOP_SECONDS)
        if self._keeper.is_alive() and self._process:
            self._process.kill()
            self._keeper.join(STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._run_one()
            except Exception:
                log.exception("the worker can't be kept")
            self._stopping.wait(RESTART_SECONDS)

    def _run_one(self) -> None:
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
        status = process.wait()
        if not self._stopping.is_set():
            log.error("the worker ended and is started again", extra={"exit_status": status})
        queue.abandon(self._database, owner)
