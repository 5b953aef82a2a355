"""What goes wrong in a run, as a value: the same seed gives the same schedule.

A fault happens at a request of the run's own: the service gets it next, or has answered it. So a fault meets
the same moment of the work on a quick machine and on a slow one; one whose request never comes, because the
work was done before, doesn't happen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a fault does."""

    LOSE = "lose requests or answers"
    DELAY = "delay"
    DUPLICATE = "send a request twice"
    KILL_TASK = "kill the task's process"
    KILL_SUPERVISOR = "kill the task's supervisor"
    KILL_BOTH = "kill the task's process and its supervisor"
    KILL_TRIGGERER = "kill the triggerer"
    KILL_SCHEDULER = "kill the scheduler and its workers"
    KILL_SERVICE = "kill the service"
    KILL_WORKER = "kill the service's worker"
    KILL_TRAINING = "kill the training process"
    KILL_REPLICA = "kill the inference units"
    CUT_DATABASE = "cut the service's connections to its database"
    SILENCE_DATABASE = "let the service's database fall silent for seconds"
    DELETE_RUN = "delete the run and make it again under its run_id"


# Where a kind of fault does most; and how often the run sends such a request at least.
REQUESTS = {
    "CreateProject": 1,
    "CreateDataset": 2,
    "DescribeDataset": 2,
    "CreateModel": 1,
    "DescribeModel": 6,
    "StartModel": 1,
    "DetectAnomalies": 6,
}
_WHERE = {
    Kind.KILL_TRIGGERER: ("DescribeDataset", "DescribeModel"),
    Kind.KILL_WORKER: ("CreateDataset", "CreateModel", "DescribeModel"),
    Kind.KILL_TRAINING: ("DescribeModel",),
    Kind.KILL_REPLICA: ("StartModel", "DetectAnomalies"),
}
_MORE_FAULTS = 2
_LOST_REQUESTS = (1, 2, 3, 4)  # a try sends each twice
_SECONDS = (1, 3, 8)
_LATE = (0, 2, 20)


@dataclass(frozen=True)
class Fault:
    """A fault at a request.

    :param operation: the operation that is requested.
    :param number: which of the run's requests of this operation, from 1 on; those that are lost count.
    :param before: whether it happens before the service gets the request, or after it has answered.
    :param answer_lost: whether the request or its answer is lost with it.
    :param amount: how many requests are lost; or seconds: of a delay, a silence, or until the repetition.
    """

    kind: Kind
    operation: str
    number: int
    before: bool
    answer_lost: bool = False
    amount: int = 0

    def is_due(self, number: int) -> bool:
        """Whether it happens at this request of its operation."""
        return self.number <= number < self.number + (self.amount if self.kind == Kind.LOSE else 1)

    def __str__(self) -> str:
        when = "before" if self.before else "after"
        lost = ", which is lost" if self.answer_lost else ""
        amount = f" ({self.amount})" if self.amount else ""
        return f"{self.kind}{amount} {when} {self.operation} {self.number}{lost}"


@dataclass(frozen=True)
class Schedule:
    """The faults of a run, and whether its tasks are deferred."""

    seed: int
    deferrable: bool
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """The schedule of a seed. Any eight seeds in a row have every kind of fault."""
        generator = random.Random(seed)
        kinds = list(Kind)
        chosen = [kinds[number % len(kinds)] for number in (2 * seed, 2 * seed + 1)]
        chosen += generator.choices(kinds, k=generator.randrange(_MORE_FAULTS + 1))
        deferrable = Kind.KILL_TRIGGERER in chosen or generator.random() < 0.5
        return cls(seed, deferrable, tuple(_fault(generator, kind) for kind in chosen))

    def __str__(self) -> str:
        tasks = "deferred tasks" if self.deferrable else "tasks"
        return f"seed {self.seed}, {tasks}: " + "; ".join(map(str, self.faults))


def _fault(generator: random.Random, kind: Kind) -> Fault:
    operation = generator.choice(_WHERE.get(kind, tuple(REQUESTS)))
    number = generator.randint(1, REQUESTS[operation])
    before, lost = generator.random() < 0.5, generator.random() < 0.5
    if kind == Kind.LOSE:
        return Fault(kind, operation, number, before, amount=generator.choice(_LOST_REQUESTS))
    if kind == Kind.DUPLICATE:
        return Fault(kind, operation, number, before=False, answer_lost=lost, amount=generator.choice(_LATE))
    if kind in {Kind.DELAY, Kind.SILENCE_DATABASE}:
        return Fault(kind, operation, number, before, amount=generator.choice(_SECONDS))
    return Fault(kind, operation, number, before, answer_lost=lost)
