"""An inference unit without an engine, for tests of what is around one: it does what its images say.

It speaks as ``server.replica`` does. The artifact and the images are JSON objects: ``answer`` and ``fault``
are what is answered; ``die`` ends the process; ``sleep`` waits so many seconds; ``gate`` waits until there is
such a file; ``once`` makes it so only for who is first to make this file; ``garbage`` answers nonsense.
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
    while (content := frames.read(sys.stdin.buffer)) is not None:
        told: dict[str, Any] = json.loads(content)
        if "once" in told:
            try:
                Path(told["once"]).touch(exist_ok=False)
            except FileExistsError:
                told = {}
        time.sleep(told.get("sleep", 0))
        while "gate" in told and not Path(told["gate"]).exists():
            time.sleep(0.01)
        if "die" in told:
            os._exit(7)
        if "garbage" in told:
            sys.stdout.buffer.write(b"\0\0\0\5\0\0\0\0oops!")
            sys.stdout.buffer.flush()
            continue
        answer = {"fault": told["fault"]} if "fault" in told else told.get("answer", {"by": os.getpid()})
        frames.write_answer(sys.stdout.buffer, Answer(answer))


if __name__ == "__main__":
    main()
