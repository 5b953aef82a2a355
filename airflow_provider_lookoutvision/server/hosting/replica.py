"""The child process of one inference unit: it loads a model and detects anomalies in one image after another.

It reads the model's artifact and then images from its standard input, and writes an answer to each, in order,
to its standard output; ``frames`` defines their form. It works on two images at a time, so that one is
decoded while the network processes the other. It ends when its standard input ends.
"""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.datasets.manifest import BACKGROUND
from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.frames import Answer, Options
from airflow_provider_lookoutvision.server.jobs.child_process import not_installed_message
from airflow_provider_lookoutvision.server.storage import scratch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_provider_lookoutvision.engine import Detector

WHITE = "#FFFFFF"
_MAX_MAP_SIDE = 640


def main(cache: Path, threads: int, source: BinaryIO, output: BinaryIO) -> int:
    """Answer until the input ends.

    :param cache: folder for the network.
    :param threads: of the network.
    """
    artifact = frames.read_artifact(source)
    if artifact is None:
        return 0
    try:
        detector = _load(artifact, cache, threads)
    except Exception as error:
        frames.write_answer(output, Answer({"fault": _load_error(error)}))
        return 1
    frames.write_answer(output, Answer({"ready": True}))
    pending: queue.Queue[Future[Answer] | None] = queue.Queue()
    writer = threading.Thread(target=_write_answers, args=(pending, output))
    writer.start()
    with ThreadPoolExecutor(frames.DEPTH) as workers:
        while (image := frames.read_image(source)) is not None:
            pending.put(workers.submit(_detect, detector, *image))
    pending.put(None)
    writer.join()
    return 0


def _load(artifact: bytes, cache: Path, threads: int) -> Detector:
    from airflow_provider_lookoutvision import engine

    with scratch.folder(cache.parent / scratch.HOSTING) as folder:
        with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
            for name in archive.namelist():
                (folder / Path(name).name).write_bytes(archive.read(name))
        return engine.load(folder, cache=cache, threads=threads)


def _load_error(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return not_installed_message(error)
    return f"the model can't be loaded: {error}"


def _write_answers(pending: queue.Queue[Future[Answer] | None], output: BinaryIO) -> None:
    while (future := pending.get()) is not None:
        frames.write_answer(output, future.result())


def _detect(detector: Detector, image: bytes, options: Options) -> Answer:
    from airflow_provider_lookoutvision.engine import UnusableImage, images

    try:
        detection = detector.detect(image, options.threshold)
    except UnusableImage as error:
        return Answer({"invalid": str(error)})
    except Exception as error:
        return Answer({"error": f"{type(error).__name__}: {error}"})
    if detection.image_size != detector.image_size:
        size = images.describe_size(*detection.image_size, turned=images.is_turned(image))
        return Answer(
            {
                "invalid": f"the image has {size}, and the model was trained on images of {{}} x {{}}".format(
                    *detector.image_size
                )
            }
        )
    result: dict[str, Any] = {
        "Source": {"Type": "direct"},
        "IsAnomalous": detection.is_anomalous,
        "Confidence": detection.confidence,
    }
    anomaly_map = b""
    if options.anomaly_map:
        result["Probability"] = detection.probability
        anomaly_map = _draw(detection.anomaly_map, detection.image_size)
    if detection.class_mask is None or detection.areas is None:
        return Answer(result, anomaly_map=anomaly_map)
    colors = {BACKGROUND: WHITE} | {anomaly.name: anomaly.color for anomaly in detector.classes}
    result["Anomalies"] = [
        {"Name": name, "PixelAnomaly": {"TotalPercentageArea": area, "Color": colors[name]}}
        for name, area in detection.areas.items()
        if area > 0 or name == BACKGROUND
    ]
    return Answer(result, _paint(detection.class_mask, list(colors.values())), anomaly_map)


def _paint(mask: NDArray[Any], colors: Sequence[str]) -> bytes:
    """The mask as an RGB PNG, without a palette: clients blend it with the image as it is."""
    from PIL import Image

    image = Image.fromarray(mask)
    # Through a palette: that is twenty times faster than indexing colours in numpy.
    image.putpalette(bytes.fromhex("".join(color[1:] for color in colors)))
    content = io.BytesIO()
    image.convert("RGB").save(content, "PNG", compress_level=1)
    return content.getvalue()


def _draw(anomaly_map: NDArray[Any], image_size: tuple[int, int]) -> bytes:
    """The map as a grey PNG in the proportions of the image, of its size or less: it has no finer detail."""
    from PIL import Image

    shrunk = max(1.0, max(image_size) / _MAX_MAP_SIDE)
    size = (max(1, round(image_size[0] / shrunk)), max(1, round(image_size[1] / shrunk)))
    enlarged = Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR)
    content = io.BytesIO()
    # Pillow rounds down.
    enlarged.point(lambda score: score * 255 + 0.5).convert("L").save(content, "PNG", compress_level=1)
    return content.getvalue()


if __name__ == "__main__":
    logs.configure("info")
    # What a library prints goes to the log, not between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, answers))
