"""Training and hosting on a cluster whose nodes, API processes and workers are killed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from polling import until

if not os.environ.get("LOOKOUTVISION_TEST_CLUSTER"):  # which `make cluster` sets, and it installs Ray
    pytest.importorskip("ray", reason="Ray is not installed: make cluster")

from ray_plant import BUCKET, Plant

pytest_plugins = ["ray_plant"]

TRAINING = "server.models.training_process"
REPLICA = "server.hosting.replica"


@pytest.fixture(scope="module")
def trained(plant: Plant) -> str:
    """A project whose model was trained while the node of its training was lost."""
    plant.project("parts")
    assert plant.train("parts") == "1"
    (place,) = until(lambda: plant.where(TRAINING), bool)
    plant.lose(place)
    plant.until("parts", "TRAINED", "TRAINING")
    plant.add_node()
    return "parts"


def test_a_training_goes_on_elsewhere_when_its_node_is_lost(plant: Plant, trained: str) -> None:
    listed = plant.client(1).list_models(ProjectName=trained)["Models"]
    assert [(model["ModelVersion"], model["Status"]) for model in listed] == [("1", "TRAINED")]
    written = plant.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{trained}/out/")["Contents"]
    assert len(written) == 2
    assert plant.where(TRAINING) == []


def test_a_training_outlives_its_worker(plant: Plant, trained: str) -> None:
    plant.project("more")
    plant.train("more")
    until(lambda: plant.where(TRAINING), bool)
    for service in plant.services:
        service.kill()
    until(lambda: plant.where(TRAINING), lambda places: not places)  # what nobody waits for has ended
    for service in plant.services:
        service.start()
    plant.until("more", "TRAINED", "TRAINING")
    assert len(plant.client().list_models(ProjectName="more")["Models"]) == 1


def test_a_model_is_hosted_by_the_whole_cluster(plant: Plant, trained: str) -> None:
    first, second = plant.client(0), plant.client(1)
    started = first.start_model(ProjectName=trained, ModelVersion="1", MinInferenceUnits=4)
    assert started["Status"] == "STARTING_HOSTING"
    plant.until(trained, "HOSTED", "STARTING_HOSTING")
    assert sorted(len(node.runs(REPLICA)) for node in plant.nodes) == [2, 2]

    verdicts = [[plant.detect(trained, part, number) for part in range(4)] for number in (0, 1)]
    assert verdicts[0] == verdicts[1]
    assert plant.detect(trained, 0, 1, scratched=True)["IsAnomalous"]
    with pytest.raises(second.exceptions.ValidationException):
        second.detect_anomalies(
            ProjectName=trained, ModelVersion="1", Body=b"no image", ContentType="image/jpeg"
        )

    # An API process that is killed takes no model down, and one that comes back finds it.
    plant.services[0].kill()
    assert plant.detect(trained, 0, 1) == verdicts[0][0]
    plant.services[0].start()
    assert until(lambda: _answer(plant, trained), bool) == verdicts[0][0]

    # Nor does a node: its units are started on another.
    plant.lose(plant.nodes[0])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: plant.detect(trained, part % 4, part % 2), range(24)))
    assert found == [verdicts[0][part % 4] for part in range(24)]
    plant.add_node()
    until(lambda: sorted(len(node.runs(REPLICA)) for node in plant.nodes), lambda units: units == [2, 2])

    second.stop_model(ProjectName=trained, ModelVersion="1")
    plant.until(trained, "TRAINED", "STOPPING_HOSTING")
    until(lambda: plant.where(REPLICA), lambda places: not places)


def _answer(plant: Plant, name: str) -> dict[str, object] | None:
    try:
        return plant.detect(name, 0, 0)
    except plant.client().exceptions.InternalServerException:  # not ready here yet
        return None
