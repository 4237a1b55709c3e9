"""Called by scripts/bench-direct. Raw sockets, so that little of what is measured is Python."""

import base64
import json
import os
import resource
import select
import socket
import statistics
import struct
import time

HOST, PORT = os.environ["DIRECT_ADDRESS"].rsplit(":", 1)
PID = os.environ["DIRECT_PID"]
RUNTIME = {"agent_id": "agent-1", "conversation_id": "conv-1"}
START = {"type": "runtime_start", **RUNTIME}


def memory():
    lines = open(f"/proc/{PID}/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Client:
    def __init__(self):
        self.socket = socket.create_connection((HOST, int(PORT)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def send(self, frame):
        data = json.dumps(frame).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self.socket.sendall(b"\x81" + size + bytes(4) + data)

    def frame(self):
        while True:
            if len(self.buffer) >= 2:
                size, at = self.buffer[1] & 127, 2
                if size == 126 and len(self.buffer) >= 4:
                    size, at = struct.unpack(">H", self.buffer[2:4])[0], 4
                elif size == 127 and len(self.buffer) >= 10:
                    size, at = struct.unpack(">Q", self.buffer[2:10])[0], 10
                if size < 126 or at > 2:
                    if len(self.buffer) >= at + size:
                        data, self.buffer = self.buffer[at : at + size], self.buffer[at + size :]
                        return json.loads(data) if data else {}
            more = self.socket.recv(65536)
            assert more, "the socket ended"
            self.buffer += more

    def until(self, kind):
        while True:
            frame = self.frame()
            if frame.get("type") == kind:
                return frame

    def ask(self, frame, kind):
        self.send({**frame, "request_id": "r"})
        answer = self.until(kind)
        assert answer.get("success", answer.get("accepted")), answer
        return answer


soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))

first = Client()
first.ask(START, "runtime_start_response")
times = []
for _ in range(100):
    begun = time.perf_counter()
    client = Client()
    client.ask(START, "runtime_start_response")
    times.append((time.perf_counter() - begun) * 1000)
    client.socket.close()
print(f"connect to runtime_start_response: median {statistics.median(times):.2f} ms, 95% {sorted(times)[94]:.2f} ms (bound 5 ms)")

before = memory()
idle = [Client() for _ in range(1000)]
time.sleep(2)
now = memory()
print(f"1,000 idle clients: {now:.1f} MiB in all, {(now - before) * 1024 / 1000:.1f} KiB each (bound 60 MiB)")
for client in idle:
    client.socket.close()
time.sleep(2)
print(f"after they left: {memory():.1f} MiB (before: {before:.1f} MiB)")


def deltas(count):
    """Arrival of each delta at each of `count` clients beside the one that asks."""
    others = [Client() for _ in range(count)]
    for client in others:
        client.ask(START, "runtime_start_response")
    first.send({"type": "input", "request_id": "i", "runtime": RUNTIME, "payload": {"kind": "create_message",
        "messages": [{"role": "user", "content": "SPLIT 60\nPACE 0.02\nSAY " + "x" * 300}]}})
    poll = select.epoll()
    by_fd = {client.socket.fileno(): client for client in others}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    arrivals, finished = [], 0
    while finished < count:
        ready = poll.poll(10)
        for fd, _ in ready:
            data = by_fd[fd].socket.recv(262144)
            at = time.perf_counter()
            if b'"assistant_message"' in data:
                arrivals.append(at)
            finished += data.count(b'"type":"turn_finished"')
    for client in others:
        client.socket.close()
    first.until("turn_finished")
    arrivals.sort()
    # Bursts are 20 ms apart: what is closer belongs to one delta.
    spread, start = [], arrivals[0]
    for previous, at in zip(arrivals, arrivals[1:]):
        start = at if at - previous > 0.008 else start
        spread.append((at - start) * 1000)
    return statistics.median(spread)


print(f"fan-out to 100: a delta reaches a client in the median {deltas(100):.2f} ms after the first one (bound 1 ms)")
