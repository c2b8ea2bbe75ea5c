"""The same service on Ray Serve: replicas, autoscaling and routing are Ray's, not ours.

``pip install "ray[serve]"``, then ``serve run assets/serve.yaml``, whose comments explain each
setting. A replica is a process with a model of its own and decodes one run at a time. When one
dies, its runs break off, later ones go to the others, and Ray starts a new one.
"""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from d2f.errors import InvalidInput
from d2f.serve.service import Options, load_app

NAME = "d2f"


def application(args: dict[str, Any]) -> Application:
    """What the ``import_path`` of a Serve config names; ``args`` are the fields of ``Options``.

    Raises:
        ValueError: a field is unknown, missing or out of its range.
    """
    try:
        options = Options(**args)
    except TypeError as error:
        raise InvalidInput(f"args of the application: {error}") from error

    def build() -> FastAPI:
        """Called on each replica, where the model is to live."""
        return load_app(options)

    return serve.deployment(serve.ingress(build)(), name=NAME).bind()
