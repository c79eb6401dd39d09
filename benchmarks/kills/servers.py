"""The servers of `benchmarks.faults` and `benchmarks.fleet`: a bucket, with and without errors, and what is in it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.kills import s3_proxy
from benchmarks.kills.processes import CONTEXT
from benchmarks.queue import PrivatePostgres
from engine.processes.ports import free_port
from storage.videos import video

BUCKET, SOURCE = "faults", "s3://faults/incoming"
UP_S = 60.0
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
ENVIRONMENT |= {"AWS_EC2_METADATA_DISABLED": "true", "OMP_NUM_THREADS": "1"}


@contextmanager
def moto() -> Iterator[str]:
    """An S3 server in a process of its own, with the bucket."""
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/moto-api/", trust_env=False).is_success)
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket=BUCKET)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(ready: Callable[[], bool], seconds: float = UP_S) -> None:
    """Waits until a server answers. Raises RuntimeError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise RuntimeError("a server does not answer")


class SpoiltBucket:
    """The proxy as a process. `counts`, `gone` and `delay_s`: see `s3_proxy.Proxy`."""

    def __init__(self, upstream: str, share: float, seed: int, hang_s: float = 5.0) -> None:
        self.counts, self.gone = CONTEXT.Array("q", len(s3_proxy.KINDS) + 1), CONTEXT.Value("i", 0)
        self.delay_s = CONTEXT.Value("d", 0.0)
        port = free_port()
        arguments = (port, upstream, share, seed, hang_s, self.counts, self.gone, self.delay_s)
        self._process = CONTEXT.Process(target=s3_proxy.serve, args=arguments, daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{port}"

    @property
    def errors(self) -> dict[str, int]:
        """How often each kind of trouble happened."""
        return {kind: self.counts[n] for n, kind in enumerate(s3_proxy.KINDS)}

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def make_videos(endpoint: str, count: int, prefix: str = "incoming", first: int = 0) -> None:
    """Puts short videos into the bucket, each number with other bytes."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    with tempfile.TemporaryDirectory() as folder:
        for n in range(first, first + count):
            path = Path(folder) / "video.mp4"
            frames = np.full((24, 64, 96, 3), 40, np.uint8)
            for t in range(24):
                frames[t, 10:40, (n + 2 * t) % 60 : (n + 2 * t) % 60 + 30] = (n % 200, 60 + n // 100, 200 - n % 100)
            video.write(path, frames)
            client.upload_file(str(path), BUCKET, f"{prefix}/{n:04d}.mp4")
            path.unlink()


def new_database(postgres: PrivatePostgres, name: str) -> str:
    """The URI of a new database."""
    import psycopg

    with psycopg.connect(host=str(postgres.home), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.uri.replace("/postgres?", f"/{name}?")
