"""The child process that makes thumbnails: images in on standard input, JPEGs out, one after another.

``hosting.frames`` defines their form. An image that can't be used is answered by the reason. It ends when
its standard input ends.
"""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.frames import Answer
from airflow_provider_lookoutvision.server.jobs.child_process import not_installed_message

_QUALITY = 80


def main(side: int, source: BinaryIO, output: BinaryIO) -> int:
    """Answer until the input ends.

    :param side: the most pixels of width and height.
    """
    while (image := frames.read_image(source)) is not None:
        try:
            answer = _thumbnail(image[0], side)
        except ModuleNotFoundError as error:
            answer = Answer({"missing": not_installed_message(error)})
        except Exception as error:
            answer = Answer({"invalid": str(error)})
        frames.write_answer(output, answer)
    return 0


def _thumbnail(content: bytes, side: int) -> Answer:
    from PIL import Image

    from airflow_provider_lookoutvision.engine import images

    width, height = images.image_size(content)
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = images.decode(content, *size).pixels
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return Answer({"width": width, "height": height}, stream.getvalue())


if __name__ == "__main__":
    # What a library prints goes to the log, not between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.exit(main(int(sys.argv[1]), sys.stdin.buffer, answers))
