"""Start the server on a bundle, ask it one question over HTTP, print the answer, stop it.

    python examples/ask_server.py BUNDLE "a text"

Needs nothing but the standard library on the client's side.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


def main(bundle: str, text: str) -> None:
    """Serve `bundle` on a free port and classify `text`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "serving", bundle, "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            wait_until_ready(server, f"{address}/ready")
            print(f"\nPOST {address}/predict\n  {text}")
            print(json.dumps(ask(f"{address}/predict", text), indent=2))
        finally:
            server.terminate()
    if server.returncode != 0:
        sys.exit(f"the server stopped with status {server.returncode}")


def ask(url: str, text: str) -> object:
    """The server's answer to one text, with the three best labels."""
    body = json.dumps({"text": text, "top_k": 3}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Poll /ready for at most 30 seconds."""
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("the server did not start; its message stands above")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit("the server was not ready within 30 seconds")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
