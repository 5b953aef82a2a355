"""The least that a Starlette application can do: a fixed answer, with the service's uvicorn settings."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_lookoutvision.server.protocol.http import BoundedHttpProtocol


def main(port: int, answer: bytes) -> None:
    async def route(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    app = Starlette(routes=[Route("/{path:path}", route, methods=["GET", "POST"])])
    uvicorn.run(
        app,
        port=port,
        http=BoundedHttpProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
