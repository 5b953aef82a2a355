"""A DAG run with an account and a proxy of its own, at whose requests the faults of its schedule happen."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

from airflow_instance import ENDED, RUN_SECONDS, Run, wait_for
from plant import Plant
from schedules import Fault, Kind, Schedule
from trained_models import QUICKLY, Account, plate

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy

MOST_CLEARS = 6
_PROJECT = r"/2020-11-20/projects/[^/]+"
_OPERATIONS = {
    "CreateProject": r"POST /2020-11-20/projects",
    "CreateDataset": rf"POST {_PROJECT}/datasets",
    "DescribeDataset": rf"GET {_PROJECT}/datasets/[^/]+",
    "CreateModel": rf"POST {_PROJECT}/models",
    "DescribeModel": rf"GET {_PROJECT}/models/[^/]+",
    "StartModel": rf"POST {_PROJECT}/models/[^/]+/start",
    "DetectAnomalies": rf"POST {_PROJECT}/models/[^/]+/detect",
}


@dataclass
class ChaoticRun:
    """A run, and what has happened to it.

    ``incarnations`` counts how often it was made, last at ``made_at``, in milliseconds since the epoch, and
    ``cleared`` the clears of each task that had failed;
    ``happened`` are the faults, and ``errors`` of what should have made them happen;
    ``repetitions`` are requests that were sent twice, as they were answered at first and later.
    """

    plant: Plant
    schedule: Schedule
    account: Account
    incarnations: int = 0
    made_at: int = 0
    cleared: Counter[str] = field(default_factory=Counter)
    happened: list[Fault] = field(default_factory=list)
    repetitions: list[tuple[Exchange, Exchange]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _conn_id: str = ""
    _proxy: LossyProxy = field(init=False)
    _later: list[threading.Timer] = field(default_factory=list)
    _requests: Counter[str] = field(default_factory=Counter)
    _request: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Held while there is no run, and by who looks at it.
    _exists: threading.Lock = field(default_factory=threading.Lock)

    @property
    def project_name(self) -> str:
        """The project of the run."""
        return f"plates-{self.schedule.seed}"

    @property
    def run(self) -> Run:
        """The run as Airflow has it."""
        dag_id = "chaos_deferred" if self.schedule.deferrable else "chaos"
        return Run(self.plant.airflow, dag_id, f"seed-{self.schedule.seed}")

    @property
    def images(self) -> dict[str, bytes]:
        """The images that have arrived, by name: each run has others."""
        seed = self.schedule.seed
        return {
            f"{number}.png": plate(100 * seed + number, number % 2 == 0) for number in range(3 + seed % 4)
        }

    def go(self) -> None:
        """Run the DAG to its good end: what has failed is cleared, as a person does."""
        self._prepare()
        url = self.plant.service.endpoint_url
        with LossyProxy(url, self._after, self._before) as self._proxy:
            services = {"lookoutvision": self._proxy.endpoint_url, "s3": url}
            self._conn_id = self.plant.airflow.connection(
                "",
                self.account.key,
                f"chaos_{self.schedule.seed}",
                service_config={name: {"endpoint_url": each} for name, each in services.items()},
            )
            self._make()
            # After the last fault nothing fails; but a busy machine may take what is slow for dead.
            for _ in range(MOST_CLEARS):
                if self._wait() == "success":
                    break
                self._clear()
            if self._wait() != "success":
                self.run.wait_for_success()  # which fails, with the logs
            for later in self._later:
                later.join()

    def instances(self) -> list[SimpleNamespace]:
        """The run's task instances as they are now."""
        with self._exists:
            return self._instances()

    def _prepare(self) -> None:
        folder = self.account.bucket / self.account.key.account
        for dataset_type, pictures in QUICKLY.items():
            self.account.write_manifest(f"{folder.name}/{dataset_type}.manifest", pictures)
        (folder / "arrived").mkdir()
        for name, content in self.images.items():
            (folder / "arrived" / name).write_bytes(content)

    def _make(self) -> None:
        self.incarnations += 1
        self.made_at = time.time_ns() // 1_000_000
        params = {"conn_id": self._conn_id, "account": self.account.key.account, "seed": self.schedule.seed}
        self.plant.airflow.run(self.run.dag_id, self.run.run_id, **params)

    def _wait(self) -> str:
        def ended() -> str | None:
            with self._exists:
                state = str(self.plant.airflow.request("GET", self._place)["state"])
            return state if state in ENDED else None

        return str(wait_for(ended, RUN_SECONDS, f"{self.schedule} to end", pause=1))

    def _clear(self) -> None:
        with self._exists:
            for instance in self._instances():
                self.cleared[instance.task_id] += instance.state == "failed"
            self.run.clear()

    def _delete_and_make_again(self) -> None:
        with self._exists:
            if self.plant.airflow.request("GET", self._place)["state"] not in ENDED:
                self.plant.airflow.request("PATCH", self._place, json={"state": "failed"})
            self.run.delete()
            self._make()

    def _instances(self) -> list[SimpleNamespace]:
        found = self.plant.airflow.request("GET", f"{self._place}/taskInstances")["task_instances"]
        return [SimpleNamespace(**each) for each in found]

    @property
    def _place(self) -> str:
        return f"/dags/{self.run.dag_id}/dagRuns/{self.run.run_id}"

    # -- at the proxy ----------------------------------------------------------------------------------------

    def _before(self, exchange: Exchange) -> bool:
        """Do what happens before the service gets a request; whether it is lost."""
        operation = _operation(exchange)
        with self._lock:
            self._requests[operation] += 1
            # The same thread answers it: each connection has one.
            self._request.number = self._requests[operation]
        return self._do(exchange, operation, before=True)

    def _after(self, exchange: Exchange) -> bool:
        """Do what happens when the service has answered; whether the answer is lost."""
        return self._do(exchange, _operation(exchange), before=False)

    def _do(self, exchange: Exchange, operation: str, *, before: bool) -> bool:
        lost = False
        for fault in self.schedule.faults:
            if (fault.operation, fault.before) == (operation, before) and fault.is_due(self._request.number):
                self.happened.append(fault)
                self.plant.done[fault.kind] += 1
                lost |= fault.kind == Kind.LOSE or fault.answer_lost
                try:
                    self._inflict(fault, exchange)
                except Exception as error:  # the proxy's thread would swallow it
                    self.errors.append(error)
                    raise
        return lost

    def _inflict(self, fault: Fault, exchange: Exchange) -> None:
        match fault.kind:
            case Kind.DUPLICATE:
                later = threading.Timer(fault.amount, self._send_again, [exchange])
                self._later.append(later)
                later.start()
            case Kind.DELAY:
                threading.Event().wait(fault.amount)
            case Kind.DELETE_RUN:
                self._delete_and_make_again()
            case _:
                self.plant.inflict(fault.kind, self.instances, fault.amount)

    def _send_again(self, exchange: Exchange) -> None:
        self.repetitions.append((exchange, self._proxy.resend(exchange)))


def _operation(exchange: Exchange) -> str:
    line = f"{exchange.method} {exchange.path.partition('?')[0]}"
    return next((name for name, pattern in _OPERATIONS.items() if re.fullmatch(pattern, line)), line)
