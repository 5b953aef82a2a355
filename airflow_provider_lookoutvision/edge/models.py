"""The models of a device: which there are, in which state, and the turns in which images are looked at.

A model is started in a thread of its own and stopped while its caller waits. It looks at one image after
another; a few may wait for their turn, and more are refused, since each has its pixels in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lookoutvision.edge import components
from airflow_provider_lookoutvision.edge.components import Component
from airflow_provider_lookoutvision.edge.edge_agent_pb2 import ModelStatus
from airflow_provider_lookoutvision.edge.runner import Runner, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STOPPED_MESSAGE = "The model is stopped."
STARTING_MESSAGE = "The model is being started."
STOPPING_MESSAGE = "The model is being stopped."

log = logging.getLogger("lookoutvision.edge")


class Refusal(Enum):
    """Why something isn't done."""

    UNKNOWN = auto()
    WRONG_STATE = auto()
    BUSY = auto()


class Refused(Exception):
    """Something isn't done; the message says why, and what to do."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Description:
    """A model as clients see it; ``status`` is a ``ModelStatus``."""

    component: str
    model_arn: str
    status: ModelStatus
    status_message: str


class Model:
    """One model, and its state.

    :param threads: of its network.
    :param queue: images that it takes at a time, the one that is looked at among them.
    """

    def __init__(self, component: Component, threads: int | None, queue: int) -> None:
        self.component = component
        self._threads, self._queue = threads, queue
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._runner: Runner | None = None
        self._taken = 0
        self._status, self._message = ModelStatus.STOPPED, STOPPED_MESSAGE

    def describe(self) -> Description:
        """What is known of it."""
        with self._changed:
            component = self.component
            return Description(component.name, component.model_arn, self._status, self._message)

    @property
    def is_idle(self) -> bool:
        """Whether it is neither loaded nor about to be: another version may take its place."""
        with self._changed:
            return self._status in {ModelStatus.STOPPED, ModelStatus.FAILED}

    def start(self) -> None:
        """Begin to load it.

        :raises Refused: when it is neither STOPPED nor FAILED.
        """
        with self._changed:
            if self._status not in {ModelStatus.STOPPED, ModelStatus.FAILED}:
                raise self._wrong_state("only a model that is STOPPED or FAILED can be started")
            self._set(ModelStatus.STARTING, STARTING_MESSAGE)
        threading.Thread(target=self._load, name=f"start-{self.component.name}", daemon=True).start()

    def stop(self) -> None:
        """Unload it, once the image that is looked at is done.

        :raises Refused: when it isn't RUNNING.
        """
        with self._changed:
            if self._status != ModelStatus.RUNNING:
                raise self._wrong_state("only a model that is RUNNING can be stopped")
            self._set(ModelStatus.STOPPING, STOPPING_MESSAGE)
            self._changed.wait_for(lambda: not self._taken)
            self._runner = None
            self._set(ModelStatus.STOPPED, STOPPED_MESSAGE)

    def settled(self) -> Description:
        """What is known of it once it isn't STARTING any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._status != ModelStatus.STARTING)
        return self.describe()

    def detect(self, prepare: Callable[[Runner], NDArray[np.uint8]]) -> tuple[Verdict, bytes | None]:
        """Look at an image when its turn has come; the verdict, and the mask painted.

        :param prepare: makes of the image what the network is to see.
        :raises Refused: when the model isn't RUNNING, or too many images wait already.
        """
        with self._changed:
            runner = self._runner
            if self._status != ModelStatus.RUNNING or runner is None:
                raise self._wrong_state("start it, and wait until it is RUNNING")
            if self._taken >= self._queue:
                raise Refused(
                    Refusal.BUSY,
                    f"{self._taken} images wait for the model {self.component.name!r}, as many as may: send "
                    "fewer at a time",
                )
            self._taken += 1
        try:
            prepared = prepare(runner)
            with self._turn:
                if self.describe().status != ModelStatus.RUNNING:
                    raise self._wrong_state("it was stopped before the image had its turn")
                verdict = runner.look(prepared)
            return verdict, None if verdict.class_mask is None else runner.paint(verdict.class_mask)
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def _load(self) -> None:
        try:
            runner = Runner(self.component, self._threads)
        except Exception as error:
            log.exception("the model %s can't be started", self.component.name)
            with self._changed:
                self._set(ModelStatus.FAILED, f"The model can't be started: {error}")
        else:
            with self._changed:
                self._runner = runner
                self._set(ModelStatus.RUNNING, f"The model is running on {runner.provider}.")

    def _set(self, status: ModelStatus, message: str) -> None:
        self._status, self._message = status, message
        self._changed.notify_all()
        log.info("%s: %s", self.component.name, message)

    def _wrong_state(self, remedy: str) -> Refused:
        status = ModelStatus.Name(self._status)
        return Refused(Refusal.WRONG_STATE, f"The model {self.component.name!r} is {status}: {remedy}")


class Models:
    """The models of the components in a folder; the folder is looked into again whenever somebody asks.

    :param root: where components are, itself one or some levels above them.
    """

    def __init__(self, root: Path, *, threads: int | None, queue: int) -> None:
        self._root, self._threads, self._queue = root, threads, queue
        self._lock = threading.Lock()
        self._known: dict[str, Model] = {}

    def all(self) -> Mapping[str, Model]:
        """Every model, by the name of its component."""
        with self._lock:
            there = components.find(self._root)
            for name, component in there.items():
                known = self._known.get(name)
                if known is None or (known.is_idle and known.component != component):
                    self._known[name] = Model(component, self._threads, self._queue)
            for name in [name for name, model in self._known.items() if name not in there and model.is_idle]:
                del self._known[name]
            return dict(sorted(self._known.items()))

    def find(self, name: str, *, again: bool = True) -> Model:
        """The model of a component.

        :param again: whether to look into the folder first.
        :raises Refused: when there is no such component.
        """
        model = self.all().get(name) if again or name not in self._known else self._known.get(name)
        if model is None:
            raise Refused(
                Refusal.UNKNOWN,
                f"There is no component {name!r} in {self._root}: deploy it, or look at ListModels",
            )
        return model
