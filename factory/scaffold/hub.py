"""Whether the model hub can be reached from here."""

from __future__ import annotations

import os
import socket
import urllib.parse

SECONDS = 3.0
OFFLINE_SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
YES = ("1", "on", "yes", "true")


def hub_state(seconds: float = SECONDS) -> str:
    """ "reachable", or why it is not; one connection is opened and closed, nothing is sent."""
    for name in OFFLINE_SETTINGS:
        if os.environ.get(name, "").strip().lower() in YES:
            return f"switched off by {name}"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    proxy = urllib.parse.urlsplit(endpoint).scheme + "_proxy"
    address = os.environ.get(proxy) or os.environ.get(proxy.upper()) or endpoint
    parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=seconds):
            return "reachable"
    except OSError:
        return f"not reachable ({address})"
