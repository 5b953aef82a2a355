"""The agent's five calls: states, statuses, pixels in messages and in shared memory, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from agent_client import (
    FAILED,
    PACKAGED_HERE,
    RUNNING,
    STARTING,
    STOPPED,
    Agent,
    code_of,
    handle,
    memory,
    running_agent,
)
from edge_models import KINDS, encoded, held_out, unpack
from service_processes import signal_another_thread

from airflow_provider_lookoutvision import engine


@pytest.fixture(scope="module")
def agent(components: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(
        components, tmp_path_factory.mktemp("agent"), "--start", "classes", "--start", "plain"
    ) as made:
        for name in ("classes", "plain"):
            until_running(made, name)
        yield made


def until_running(agent: Agent, name: str) -> None:
    waiting = threading.Event()
    for _ in range(600):
        if agent.client.describe(name).status != STARTING:
            break
        waiting.wait(0.1)
    state = agent.client.describe(name)
    assert state.status == RUNNING, state.message


def refused(call: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **more)
    return code_of(raised.value), str(raised.value.details())


def test_models_are_named_by_their_components(agent: Agent) -> None:
    found = {state.component: state for state in agent.client.list()}
    assert set(found) == set(KINDS)
    assert found["classes"].arn == "arn:aws:lookoutvision:eu-central-1:123456789012:model/classes/1"
    assert found["classes"] == agent.client.describe("classes")
    assert found["classes"].message == "The model is running on CPUExecutionProvider."
    assert (found["normal"].status, found["normal"].message) == (STOPPED, "The model is stopped.")


def test_a_verdict_a_mask_and_what_was_found(
    agent: Agent, models: Callable[[str], Path], cache: Path
) -> None:
    detector = engine.load(models("classes"), cache=cache)
    colors = {"background": "#FFFFFF", "scratch": "#FF0000", "stain": "#00FF7F"}
    for image in held_out("classes"):
        wanted = detector.detect(encoded(image))
        found = agent.client.detect("classes", *image.size, image.tobytes())
        assert found.is_anomalous == wanted.is_anomalous
        assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert found.score == pytest.approx(wanted.probability, abs=1e-5)
        assert found.threshold == 0.5
        assert found.mask_size == image.size
        assert found.anomalies == {
            name: (pytest.approx(area), colors[name])
            for name, area in wanted.areas.items()
            if area > 0 or name == "background"
        }
        assert next(iter(found.anomalies)) == "background"
        mask = np.frombuffer(found.mask, np.uint8).reshape(*image.size[::-1], 3)
        palette = np.array([list(bytes.fromhex(color[1:])) for color in colors.values()], np.uint8)
        np.testing.assert_array_equal(mask, palette[wanted.class_mask])


def test_a_model_without_masks_has_a_verdict_alone(agent: Agent) -> None:
    normal, anomalous = held_out("plain")[0], held_out("plain")[1]
    found = [agent.client.detect("plain", *image.size, image.tobytes()) for image in (normal, anomalous)]
    assert [each.is_anomalous for each in found] == [False, True]
    assert all(each.mask is None and not each.anomalies for each in found)


def test_a_file_in_the_place_of_pixels_is_decoded_as_the_service_does_it(
    agent: Agent, models: Callable[[str], Path], cache: Path
) -> None:
    detector = engine.load(models("plain"), cache=cache)
    for image in held_out("plain")[:3]:
        for content in (encoded(image, "JPEG", quality=70), encoded(image.convert("L"))):
            found = agent.client.detect("plain", *image.size, content)
            assert found.score == pytest.approx(detector.detect(content).probability, abs=1e-5)
    code, told = refused(agent.client.detect, "plain", 96, 96, encoded(image, "JPEG")[:500])
    assert (code, "cut short" in told) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("field", [2, 3])
@pytest.mark.parametrize("offset", [0, 12, 8192])
def test_shared_memory_both_ways(agent: Agent, field: int, offset: int) -> None:
    image = held_out("classes")[1]
    size = len(image.tobytes())
    wanted = agent.client.detect("classes", *image.size, image.tobytes())
    with memory(offset + size, bytes(offset) + image.tobytes()) as source, memory(offset + size) as target:
        found = agent.client.detect(
            "classes",
            *image.size,
            handle=handle(source, size, offset),
            mask={field: handle(target, size, offset)},
        )
        assert found.mask is None
        assert found.mask_handle is not None
        assert bytes(target.buf[offset : offset + size]) == wanted.mask
        assert bytes(target.buf[:offset]) == bytes(offset)
    assert (found.is_anomalous, found.anomalies) == (wanted.is_anomalous, wanted.anomalies)


@pytest.mark.parametrize(
    ("size", "bitmap", "told"),
    [
        ((63, 96), {"pixels": b"x"}, "width is 63"),
        ((128, 4097), {"pixels": b"x"}, "height is 4097"),
        ((0, 0), {"pixels": b"x"}, "width is 0"),
        ((128, 96), {}, "neither byte_data nor a shared_memory_handle"),
        ((128, 96), {"pixels": b"x" * 36863}, "36863 bytes; 128 x 96 pixels of packed RGB have 36864"),
        (
            (96, 128),
            {"pixels": b"x" * 36864},
            "96 x 128 pixels, and the model was trained on images of 128 x 96",
        ),
        ((128, 96), {"handle": {1: "/none-of-this-name", 2: 36864}}, "No such file"),
        ((128, 96), {"handle": {1: "../../etc/passwd", 2: 36864}}, "is no name of shared memory"),
        ((128, 96), {"handle": {1: "", 2: 36864}}, "is no name of shared memory"),
        ((128, 96), {"handle": {1: "/x", 2: 10}}, "has 10 bytes, and 36864 are needed"),
    ],
)
def test_images_that_are_refused(agent: Agent, size: tuple[int, int], bitmap: Any, told: str) -> None:
    code, message = refused(agent.client.detect, "classes", *size, **bitmap)
    assert (code, told in message) == ("INVALID_ARGUMENT", True), message


def test_shared_memory_that_is_too_small_is_refused_before_anything_is_written(agent: Agent) -> None:
    image = held_out("classes")[1]
    size = len(image.tobytes())
    with memory(4096) as small:
        there = {2: {1: small.name, 2: size, 3: 4000}}
        code, told = refused(agent.client.detect, "classes", *image.size, image.tobytes(), mask=there)
        assert (code, "36864 from 4000 on are needed" in told) == ("INVALID_ARGUMENT", True), told
        huge = handle(small, size, (1 << 64) - 1)
        assert refused(agent.client.detect, "classes", *image.size, handle=huge)[0] == "INVALID_ARGUMENT"


def test_what_is_not_there_is_not_found(agent: Agent) -> None:
    client = agent.client
    for call in (client.start, client.stop, client.describe, lambda name: client.detect(name, 64, 64, b"")):
        code, told = refused(call, "none")
        assert (code, "no component 'none'" in told) == ("NOT_FOUND", True)


def test_the_states_of_a_model(agent: Agent) -> None:
    client, image = agent.client, held_out("normal")[0]

    def detect() -> Any:
        return client.detect("normal", *image.size, image.tobytes())

    assert refused(detect) == (
        "FAILED_PRECONDITION",
        "The model 'normal' is STOPPED: start it, and wait until it is RUNNING",
    )
    assert refused(client.stop, "normal")[0] == "FAILED_PRECONDITION"
    assert client.started("normal").status == RUNNING
    assert refused(client.start, "normal")[0] == "FAILED_PRECONDITION"
    assert detect().mask is None
    # Stopped when it answers, not some time later.
    assert client.stop("normal") == STOPPED
    assert client.describe("normal").status == STOPPED
    assert refused(detect)[0] == "FAILED_PRECONDITION"
    assert client.started("normal").status == RUNNING
    client.stop("normal")


def test_more_images_than_may_wait_are_refused_and_the_others_answered(
    components: Path, tmp_path: Path
) -> None:
    with running_agent(components, tmp_path, "--queue", "2", "--start", "wide", "--threads", "1") as agent:
        until_running(agent, "wide")
        image = held_out("wide")[1]
        wanted = agent.client.detect("wide", *image.size, image.tobytes())

        def detect(_: int) -> str:
            try:
                found = agent.client.detect("wide", *image.size, image.tobytes())
            except grpc.RpcError as error:
                return code_of(error)
            assert found == wanted
            return "OK"

        with ThreadPoolExecutor(12) as threads:
            outcomes = list(threads.map(detect, range(24)))
        assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED"}
        # A stop that comes between them waits for the one that is looked at, and refuses those that wait.
        with ThreadPoolExecutor(2) as threads:
            under_way = [threads.submit(detect, number) for number in range(2)]
            assert agent.client.stop("wide") == STOPPED
            assert {each.result() for each in under_way} <= {"OK", "FAILED_PRECONDITION"}


def test_an_image_of_4096_by_4096_pixels_fits_into_a_message(agent: Agent) -> None:
    # The model wants another size: that it says so shows that it has read the whole.
    code, told = refused(agent.client.detect, "classes", 4096, 4096, bytes(4096 * 4096 * 3))
    assert (code, "the image has 4096 x 4096 pixels" in told) == ("INVALID_ARGUMENT", True), told


def test_a_model_whose_file_was_changed_fails_and_is_started_again_once_it_is_whole(
    archives: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = unpack(archives("normal"), tmp_path / "components", "normal")
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-1] + b"x")
    with running_agent(tmp_path / "components", tmp_path) as agent:
        state = agent.client.started("normal")
        assert state.status == FAILED
        assert "is not the file that the manifest describes" in state.message
        (folder / "model.onnx").write_bytes(content)
        assert agent.client.started("normal").status == RUNNING


def test_components_come_go_and_get_newer(archives: Callable[[str], Path], tmp_path: Path) -> None:
    root = tmp_path / "components"
    root.mkdir()
    with running_agent(root, tmp_path) as agent:
        assert agent.client.list() == []
        (root / "other").mkdir()
        (root / "other" / "manifest.json").write_text('{"format": 2}')
        first = unpack(archives("normal"), root, "normal")
        [state] = agent.client.list()
        assert state.component == "normal"
        assert "holds a component of format 2, and this agent knows 1" in agent.said()
        newer = unpack(archives("normal"), root, "normal", "1.2.0")
        manifest = json.loads((newer / "manifest.json").read_text())
        manifest["component"]["version"] = "1.2.0"
        manifest["model"]["arn"] += "0"
        (newer / "manifest.json").write_text(json.dumps(manifest))
        assert agent.client.describe("normal").arn.endswith("/10")
        shutil.rmtree(first)
        shutil.rmtree(newer)
        assert agent.client.list() == []


def test_one_agent_at_a_socket_and_another_in_its_place(components: Path, tmp_path: Path) -> None:
    with running_agent(components, tmp_path) as first:
        command = [*PACKAGED_HERE, "--components", str(components), "--socket", str(first.socket)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "another agent has the socket" in done.stderr
        waiting = Agent([*command[:-2], "--wait"], first.socket, tmp_path / "second-log", os.environ)
        try:
            said = threading.Event()
            for _ in range(600):
                if "waiting until it ends" in waiting.said():
                    break
                said.wait(0.1)
            assert len(first.client.list()) == len(KINDS)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            waiting.until_ready()
            assert len(waiting.client.list()) == len(KINDS)
        finally:
            assert waiting.end() == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--components", "/none"], "--components /none is no folder"),
        (["--components", "/", "--socket", "/" + "x" * 200], "longer than the 107 bytes"),
        (["--components", "{root}", "--socket", "/none/agent.sock"], "can't be used"),
        (["--components", "{root}", "--socket", "{root}/s", "--start", "none"], "no component 'none'"),
        (["--components", "{root}", "--queue", "0"], "is less than 1"),
        ([], "required"),
    ],
)
def test_flags_that_are_wrong(flags: list[str], told: str, tmp_path: Path) -> None:
    given = [flag.replace("{root}", str(tmp_path)) for flag in flags]
    done = subprocess.run([*PACKAGED_HERE, *given], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr


def test_the_samples_socket_is_the_default(components: Path) -> None:
    done = subprocess.run([*PACKAGED_HERE, "--help"], capture_output=True, text=True, timeout=60)
    assert "/tmp/aws.iot.lookoutvision.EdgeAgent.sock" in re.sub(r"\s+", "", done.stdout)


def test_sigterm_ends_it_in_order(components: Path, tmp_path: Path) -> None:
    with running_agent(components, tmp_path, "--start", "all") as agent:
        for name in KINDS:
            until_running(agent, name)
        assert agent.end() == 0
    with socket.socket(socket.AF_UNIX) as gone:
        assert gone.connect_ex(str(agent.socket)) != 0


def test_a_signal_that_another_thread_gets_ends_it_too(components: Path, tmp_path: Path) -> None:
    with running_agent(components, tmp_path) as agent:
        signal_another_thread(agent.process.pid, signal.SIGTERM)
        assert agent.process.wait(60) == 0
