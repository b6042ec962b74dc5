"""An S3-compatible store, a Ray cluster of this machine, and workers that die."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnpm.service.predict.schemas import PredictAnswer
from nnpm.service.predict.tables import Failure
from nnpm.service.scale.output import Recording
from nnpm.service.scale.scorer import Scorer

ROOT = Path(__file__).parents[2]

LOG = "NNPM_TEST_SCORED"
"""Variable with the path of the file that every recording is written to when it is scored."""


class Watched(Scorer):
    """Notes what it scores; dies at recordings called deadly, and once at those called once."""

    def _outcome(self, recording: Recording, opened: Any) -> PredictAnswer | Failure:
        log = Path(os.environ[LOG])
        if opened is not None:
            with log.open("a") as file:
                file.write(f"{recording.name}\n")
            name = Path(recording.place).name
            seen = log.with_name(f"{log.name}-{name}")
            if "deadly" in name or ("once" in name and not seen.exists()):
                seen.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while "held" in name and log.with_name("hold").exists():
                time.sleep(0.05)
        return super()._outcome(recording, opened)


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Run moto's server until the block ends; give its address, which the environment names."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ |= given
    try:
        yield given["AWS_ENDPOINT_URL"]
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.stop()


@contextlib.contextmanager
def cluster(num_cpus: int = 2, **environment: str) -> Iterator[None]:
    """Run Ray on this machine until the block ends; its workers have the environment, too.

    They have the priority of the tests: by Ray's default whatever else runs comes first, and a
    busy machine starves them. Nor is anything given up because it is slow.
    """
    import ray

    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "RAY_health_check_failure_threshold": "100",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "400",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "400",
        **environment,
    }
    ray.init(
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
    )
    try:
        yield
    finally:
        ray.shutdown()
