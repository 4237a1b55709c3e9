"""Called by scripts/abuse-direct."""

import os
import random
import socket
import time

HOST, PORT = os.environ["DIRECT_ADDRESS"].rsplit(":", 1)
PID = os.environ["DIRECT_PID"]
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
RIGHT = "Authorization: Bearer right\r\n"


def memory():
    lines = open(f"/proc/{PID}/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def descriptors():
    return len(os.listdir(f"/proc/{PID}/fd"))


def dial():
    return socket.create_connection((HOST, int(PORT)))


def status(path="/ws", host=f"{HOST}:{PORT}", more=""):
    with dial() as s:
        s.sendall(HANDSHAKE.format(path=path, host=host, more=more).encode())
        return int(s.recv(4096).split()[1])


def welcome():
    s = dial()
    s.sendall(HANDSHAKE.format(path="/ws", host=f"{HOST}:{PORT}", more=RIGHT).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += s.recv(4096)
    assert head.startswith(b"HTTP/1.1 101"), head
    return s


def drop():
    dial().close()


def half_request():
    s = dial()
    s.sendall(b"GET /ws HTTP/1.1\r\nHost:")
    s.close()


def open_and_drop():
    welcome().close()


def half_frame():
    s = welcome()
    s.sendall(b"\x81\xfe\x10\x00" + bytes(4) + b"{")
    s.close()


def nonsense():
    s = welcome()
    s.sendall(os.urandom(200))
    s.close()


def reset():
    s = welcome()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    s.close()


for more, expected in [
    ("", 401),
    ("Authorization: Bearer wrong\r\n", 401),
    ("Authorization: Basic right\r\n", 401),
    (RIGHT, 101),
    (RIGHT + "Origin: http://evil.example\r\n", 101),
]:
    assert status(more=more) == expected, (more, expected)
page = "Sec-WebSocket-Protocol: letta-ui, token.cmlnaHQ\r\nOrigin: http://{}\r\n"
for host, origin, expected in [
    (f"{HOST}:{PORT}", f"{HOST}:{PORT}", 101),
    (f"{HOST}:{PORT}", "evil.example", 403),
    ("evil.example", "evil.example", 403),
    (f"localhost.evil.example:{PORT}", f"localhost.evil.example:{PORT}", 403),
]:
    assert status("/ui/ws", host, page.format(origin)) == expected, (host, origin)
print("ok  tokens, hosts and origins")

kinds = [drop, half_request, open_and_drop, half_frame, nonsense, reset]
for _ in range(1000):
    random.choice(kinds)()
time.sleep(3)
memory_before, descriptors_before = memory(), descriptors()
begun = time.time()
for _ in range(10_000):
    random.choice(kinds)()
took = time.time() - begun
for _ in range(100):
    if descriptors() <= descriptors_before:
        break
    time.sleep(0.2)
print(f"10,000 connections in {took:.1f} s")
print(f"descriptors {descriptors_before} -> {descriptors()}, memory {memory_before:.1f} -> {memory():.1f} MiB")
assert descriptors() <= descriptors_before
assert memory() < memory_before + 4
assert status(more=RIGHT) == 101
print("ok  memory and descriptors are back, and the door is open")
