"""A network of its own for what listens on all addresses: CARLA's TrafficManager does, in the client's process."""

import subprocess

INSIDE = 'ip link set lo up && exec "$@"'


def alone():
    """The words before a command that give it a network of its own; none where that cannot be made."""
    for words in (["unshare", "-n"], ["unshare", "-rn"]):
        try:
            subprocess.run([*words, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            continue
        return words
    return []
