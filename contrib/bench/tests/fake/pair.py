"""A stand-in for the benchmark programs: listens or connects as they do, and prints what they would.

FAKE_MODE chooses what goes wrong: ok, fail (the client), silent (no result), hang, once (the first
client of all fails: it makes the file FAKE_MARK), early (the server ends at once),
refuse (perftest's own word for a message that is too large), shrink (another size than asked for).
"""

import os
import socket
import sys
import time


def run(port, server, output):
    """Accepts one connection as a server; connects, prints and ends as a client."""
    mode = os.environ.get("FAKE_MODE", "ok")
    if server:
        if mode == "early":
            print("no such device")
            return 7
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(1)
            listener.settimeout(20)
            connection, _ = listener.accept()
            connection.recv(1)
        return 0
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        if mode == "hang":
            time.sleep(60)
        connection.send(b"x")
    if mode == "once" and not os.path.exists(os.environ["FAKE_MARK"]):
        with open(os.environ["FAKE_MARK"], "w", encoding="ascii"):
            pass
        mode = "fail"
    if mode == "fail":
        print("something is wrong")
        return 5
    if mode == "refuse":
        print(" Max message size in SRD cannot be greater than 4096 ")
        return 1
    if mode != "silent":
        print(output)
    return 0


def option(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default
