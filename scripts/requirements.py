"""requirements.txt and environment.yml, for those who want them: made from pyproject.toml, which alone is edited.

python scripts/requirements.py            writes both
python scripts/requirements.py --check    exit status 1 where they are stale
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("dev",)  # beside the core; what runs the demo and the tests
HEAD = "# Made from pyproject.toml by scripts/requirements.py: edit that, and run it again.\n"
ADVICE = """# Without an NVIDIA GPU take torch's CPU build first, or gigabytes of CUDA come along:
#   pip install torch --index-url https://download.pytorch.org/whl/cpu
# PushT goes in afterwards and alone, because it asks for a second pygame: pip install --no-deps gym-pusht
"""


def main(arguments: list[str], root: Path = ROOT) -> int:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    files = {root / "requirements.txt": requirements(project), root / "environment.yml": environment(project)}
    if arguments == ["--check"]:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"stale: {', '.join(stale)}; run python scripts/requirements.py", file=sys.stderr)
        return 1 if stale else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    for path, text in files.items():
        path.write_text(text)
    return 0


def requirements(project: dict[str, Any]) -> str:
    return HEAD + ADVICE + "".join(f"{line}\n" for line in everything(project))


def environment(project: dict[str, Any]) -> str:
    listed = "".join(f'      - "{line}"\n' for line in everything(project))
    python = f'  - "python{project["requires-python"]}"\n  - pip\n  - pip:\n'
    return f"{HEAD}{ADVICE}name: {project['name']}\nchannels:\n  - conda-forge\ndependencies:\n{python}{listed}"


def everything(project: dict[str, Any]) -> list[str]:
    """Core, then extras with the extras they name, each line once."""
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += flattened(project, extra)
    return list(dict.fromkeys(lines))


def flattened(project: dict[str, Any], extra: str) -> list[str]:
    found: list[str] = []
    for line in project["optional-dependencies"][extra]:
        inner = re.fullmatch(rf"{project['name']}\[(.+)\]", line)
        names = [name.strip() for name in inner[1].split(",")] if inner else []
        found += [line] if not inner else [part for name in names for part in flattened(project, name)]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
