"""Seeded schedules of faults under a real Airflow: each run ends well, and the invariants hold.

A seed that fails prints itself and its schedule; ``make chaos SCHEDULES=1 SEED=n`` runs it again.
"""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from chaotic_run import ChaoticRun
from command_line import run_command
from plant import Plant
from schedules import Kind, Schedule


@pytest.mark.timeout(24 * 3600)
def test_a_run_ends_well_and_everything_is_there_once(seed: int, runs: dict[int, Future[ChaoticRun]]) -> None:
    run = runs[seed].result()
    print(f"{run.schedule}\n  happened: {len(run.happened)}, cleared: {dict(+run.cleared)}")


@pytest.mark.timeout(24 * 3600)
def test_the_service_is_in_order_after_all_of_them(plant: Plant, runs: dict[int, Future[ChaoticRun]]) -> None:
    for future in runs.values():
        future.exception()  # waits
    url = plant.service.flags[plant.service.flags.index("--database-url") + 1]
    checked = run_command("check", "--data-dir", plant.service.data_dir, "--database-url", url)
    print({kind.name: count for kind, count in plant.done.items()}, plant.killed_tasks, "tasks killed")
    assert checked.status == 0, checked.out
    assert plant.done, "no fault has happened"


def test_a_seed_has_one_schedule_and_seeds_have_every_kind() -> None:
    schedules = [Schedule.of(seed) for seed in range(1, 1 + (len(Kind) + 1) // 2)]
    assert schedules == [Schedule.of(schedule.seed) for schedule in schedules]
    assert {fault.kind for schedule in schedules for fault in schedule.faults} == set(Kind)
    assert len({schedule.faults for schedule in schedules}) == len(schedules)
