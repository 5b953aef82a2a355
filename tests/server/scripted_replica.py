"""An inference unit without an engine, for tests of its pool: each image says what it does.

It reads and writes as ``hosting.replica`` does. The artifact and the images are JSON objects: ``answer`` and
``fault`` are what is answered; ``say`` writes to standard error; ``die`` ends the process; ``sleep`` waits so
many seconds; ``gate`` waits for such a file; ``once`` makes it so only for the first process to create this
file; ``garbage`` answers nonsense.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.frames import Answer


def main() -> None:
    content = frames.read_artifact(sys.stdin.buffer)
    while content is not None:
        follow(json.loads(content))
        image = frames.read_image(sys.stdin.buffer)
        content = image and image[0]


def follow(instructions: dict[str, Any]) -> None:
    if "once" in instructions:
        try:
            Path(instructions["once"]).touch(exist_ok=False)
        except FileExistsError:
            instructions = {}
    time.sleep(instructions.get("sleep", 0))
    while "gate" in instructions and not Path(instructions["gate"]).exists():
        time.sleep(0.01)
    if "say" in instructions:
        print(instructions["say"], file=sys.stderr, flush=True)
    if "die" in instructions:
        os._exit(7)
    if "garbage" in instructions:
        sys.stdout.buffer.write(bytes([0, 0, 0, 5, *bytes(8)]) + b"oops!")
        sys.stdout.buffer.flush()
        return
    answer = (
        {"fault": instructions["fault"]}
        if "fault" in instructions
        else instructions.get("answer", {"by": os.getpid()})
    )
    frames.write_answer(sys.stdout.buffer, Answer(answer))


if __name__ == "__main__":
    main()
