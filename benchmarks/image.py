"""Run an unpacked server image as a cluster would, ask it from outside, and measure; needs root.

    buildah from --name try tinybert-serving && root=$(buildah mount try)
    python benchmarks/image.py "$root" BUNDLE

The root file system and the bundle at /bundle are mounted read-only; the process is number 1 of its
own process name space, has user 10001, no capability, no new privileges, and a /dev with null and
urandom only. Environment and command are those of the Dockerfile. Prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ENVIRONMENT = {
    "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": "/app",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SERVING_HOST": "0.0.0.0",
    "ORT_DISABLE_TELEMETRY": "1",
}
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
INSIDE = """
set -e
root=$1 bundle=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$bundle" "$root/bundle"
mount -o remount,ro,bind "$root/bundle"
mount -t tmpfs -o size=64k,mode=755 none "$root/dev"
for node in null urandom; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount --rbind /sys "$root/sys"
mount -o remount,ro,bind "$root/sys"
mount -t proc none "$root/proc"
mount -o remount,ro,bind "$root"
exec /usr/sbin/chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups \\
    --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def start(root: str, bundle: str, command: list[str], **settings: str) -> subprocess.Popen[str]:
    """A process inside."""
    return subprocess.Popen(
        [*APART, "sh", "-c", INSIDE, "inside", root, bundle, *command],
        env=ENVIRONMENT | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ask(url: str, body: dict[str, object] | None = None) -> str:
    """The answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


def inner(process: subprocess.Popen[str]) -> int:
    """The server's process id, as seen from outside: the only child of unshare."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def status(pid: int) -> dict[str, str]:
    """What the kernel says of the process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def import_seconds(root: str, bundle: str) -> dict[str, float]:
    """Of all that serving imports, in a process of its own; wall and CPU."""
    code = (
        "import time; w = time.perf_counter(); c = time.process_time(); "
        "import uvicorn, serving.__main__, serving.app, onnxruntime, tokenizers; "
        "print(time.perf_counter() - w, time.process_time() - c)"
    )
    said = [start(root, bundle, ["python", "-c", code]).communicate()[0] for _ in range(5)]
    runs = [text.splitlines()[-1].split() for text in said]  # onnxruntime may warn before
    wall, cpu = (min(float(run[i]) for run in runs) for i in (0, 1))
    return {"import_wall_s": round(wall, 3), "import_cpu_s": round(cpu, 3)}


def serve(root: str, bundle: str) -> dict[str, object]:
    """Start, wait, ask, look at, stop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.perf_counter()
    command = ["python", "-m", "serving", "/bundle"]
    settings = {"SERVING_PORT": str(port), "SERVING_THREADS": "1", "SERVING_LOG_REQUESTS": "false"}
    process = start(root, bundle, command, **settings)
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            ready = ask(f"{url}/ready")
            break
        except OSError:
            if process.poll() is not None or time.perf_counter() - begin > 60:
                raise SystemExit(process.communicate()[0]) from None
            time.sleep(0.01)
    seconds, pid = time.perf_counter() - begin, inner(process)
    at_ready = cpu_seconds(pid)
    answer = ask(f"{url}/predict", {"text": "where is my card?", "top_k": 1})
    for number in range(300):
        ask(f"{url}/predict", {"texts": ["where is my card, it is late " * (1 + number % 12)] * 4})
    seen = status(pid)
    files = {str(item.readlink()) for item in Path(f"/proc/{pid}/fd").iterdir()}
    os.kill(pid, signal.SIGTERM)
    said = process.communicate(timeout=30)[0]
    return {
        "ready_wall_s": round(seconds, 2),
        "ready_cpu_s": round(at_ready, 2),
        "ready": json.loads(ready),
        "answer": json.loads(answer),
        "resident_mb": round(int(seen["VmRSS"].split()[0]) * 1024 / 1e6, 1),
        "peak_resident_mb": round(int(seen["VmHWM"].split()[0]) * 1024 / 1e6, 1),
        "uid": seen["Uid"].split()[0],
        "capabilities": {key: seen[key] for key in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs")},
        "process_number_inside": seen["NSpid"].split()[-1],
        "open_files": sorted(name for name in files if name.startswith("/")),
        "exit_status": process.returncode,
        "said": said.splitlines()[:2],
    }


def times(root: str) -> dict[str, int]:
    """Of the last change of every file."""
    return {str(path): path.lstat().st_mtime_ns for path in Path(root).rglob("*")}


def main(root: str, bundle: str) -> None:
    """Measure and print."""
    before = times(root)
    result = import_seconds(root, bundle) | serve(root, bundle)
    after = times(root)
    paths = before.keys() | after.keys()
    result["files_changed"] = sorted(path for path in paths if before.get(path) != after.get(path))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
