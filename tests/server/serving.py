"""serving.py: a running `vlm server` for tests, and a client of the standard library. Used by the other files of this folder."""
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Server:
    """with Server(vlm, "--max-tokens", "10") as s: s.post(...)"""

    def __init__(self, vlm, *flags, model="models/demo"):
        self.command = [str(vlm), "server", model, "--port", "0", *flags]

    def __enter__(self):
        # Under ASan: freed memory is kept back, 256 MB of it, which looks like growth.
        kept_back = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"}
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **kept_back})
        line = self.process.stdout.readline()
        if "listens on" not in line:
            raise SystemExit(f"the server did not start: {line!r}")
        self.port = int(line.rsplit(":", 1)[1])
        self.lines = []
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.lines += self.process.communicate(timeout=60)[0].splitlines()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def request(self, method, path, body=None, headers=None, timeout=60):
        """Status, headers, body as bytes."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
            c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})} if data is not None else headers or {})
            r = c.getresponse()
            return r.status, dict(r.getheaders()), r.read()
        finally:
            c.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def get_json(self, path, **more):
        return json.loads(self.get(path, **more)[2])

    def post(self, path, body, **more):
        """Status and JSON."""
        status, _, data = self.request("POST", path, body, **more)
        return status, json.loads(data)

    def stream(self, path, body, headers=None):
        """The events of a stream, as (name, JSON); [DONE] is (None, None)."""
        status, _, data = self.request("POST", path, {**body, "stream": True}, headers=headers)
        assert status == 200, (status, data)
        events = []
        for block in data.decode().split("\n\n"):
            name, value = None, None
            for line in block.split("\n"):
                if line.startswith("event: "):
                    name = line[7:]
                if line.startswith("data: "):
                    value = line[6:]
            if value is not None:
                events.append((name, None if value == "[DONE]" else json.loads(value)))
        return events

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def metric(self, name):
        text = self.get("/metrics")[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


class Checks:
    def __init__(self):
        self.failed = 0
        self.count = 0

    def __call__(self, what, ok, detail=""):
        self.count += 1
        if not ok:
            self.failed += 1
            print(f"FAILED: {what} {detail}")

    def end(self):
        print(f"{self.count - self.failed} of {self.count} checks passed")
        raise SystemExit(self.failed != 0)
