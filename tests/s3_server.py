"""A real S3-compatible server (moto) in a process of its own, and what tests do to its objects."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.serving.server_process import find_free_port

from forecart.object_store import ObjectPath

PATIENCE_S = 60
CODE = "import sys; from moto.server import main; main(sys.argv[1:])"


class S3Server:
    """The server, a bucket on it, and the environment in which a process finds it."""

    def __init__(self, process, port):
        self.process, self.port, self.bucket = process, port, "forecart"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def place(self, name):
        return ObjectPath(f"s3://{self.bucket}/{name}")

    def put(self, name, path):
        self.place(name).upload(path)
        return self.place(name)


@contextmanager
def running_s3():
    """Starts the server, makes the bucket, and points this process at it."""
    port = find_free_port()
    command = [sys.executable, "-c", CODE, "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(process, port)
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        _wait(process, port)
        _forget_clients()
        ObjectPath(f"s3://{server.bucket}/any")._system.mkdir(server.bucket)
        yield server
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _forget_clients()


def _wait(process, port):
    end = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None and time.monotonic() < end
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)


def _forget_clients():
    """A client keeps the endpoint that it was made with, for the life of a process."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@contextmanager
def pointed_at_nothing():
    """Makes clients of this process find no server."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{find_free_port()}"
    _forget_clients()
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
        _forget_clients()
