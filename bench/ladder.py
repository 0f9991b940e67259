"""The ladders that ship, climbed: every algorithm that applies, three trainings of each.

    python bench/ladder.py                        all of them; hours
    python bench/ladder.py cartpole --workers 2   one, two trainings at a time on one core each

Each is `drivetrain ladder NAME`; runs go to runs/ladder/, what was found to bench/results/ladder/NAME.json. What is finished is
not made twice, and what was interrupted goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from drivetrain import config, ladder
from drivetrain.run import describe_environment

RESULTS = Path(__file__).resolve().parent / "results" / "ladder"


def main(arguments: list[str]) -> int:
    named = [word for word in arguments[:1] if not word.startswith("-")]
    settings = config.parse(ladder.Config(), arguments[len(named) :], "bench/ladder.py")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in named or ladder.shipped():
        said = {**ladder.climb(name, settings), "environment": describe_environment(0)}
        (RESULTS / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n")
        print(ladder.in_words(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
