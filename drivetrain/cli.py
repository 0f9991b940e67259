"""The command `drivetrain`: parses, and calls.

Exit status: 0 done, 2 the user's mistake (one line: got, expected, do this), 3 the work ended with a verdict of no,
130 interrupted, 1 ours (a traceback).
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drivetrain import __version__, catalog, config
from drivetrain.config import RunOptions, split_flags
from drivetrain.errors import BadConfig, MissingExtra, UnknownName, UserError

USAGE = """drivetrain {version}: train vision-language models to act

  drivetrain doctor                     what this machine has, and what will run here;
                                        --backbone X: how much memory a model needs, before it is loaded
  drivetrain list [WHAT]                everything there is, by name: {tables}
  drivetrain collect [FLAGS]            somebody acts, and it is written as a data set; or, --as captions
                                        or --as instructions, scenes with true words about them; --as replay
                                        what a run remembers; --as subset, d4rl or minari a set anew
  drivetrain train ALGORITHM [FLAGS]    learn; writes a run folder, and --resume goes on with it exactly
  drivetrain eval RUN [FLAGS]           fresh episodes, with an interval; --against compares on the same seeds
  drivetrain audit [FLAGS]              is a model fit to judge? before anything learns from its reward; status 3 says no
  drivetrain dream RUN [FLAGS]          what a world model foresees, beside what came; --video films both
  drivetrain ladder NAME [FLAGS]        every algorithm that applies, on one world and data set: a table and a picture
  drivetrain report RUN                 write report.md and its curves anew
  drivetrain drive RUN [FLAGS]          at the wheel of a CARLA vehicle in real time, with a deadline report
  drivetrain sim [FLAGS]                a CARLA server for laptops: towns, traffic, cameras; the official client connects
  drivetrain demo                       in minutes, a vision-language model learns to drive CarRacing

Each takes --help. RUN is a run folder, one of its checkpoints, or a policy that ships (`drivetrain list policies`)."""

WORDS = ("captions", "instructions")
COLLECTED = ("episodes", *WORDS, "replay", "subset", "d4rl", "minari")
ACTING = (
    "collect",
    "eval",
    "dream",
    "audit",
    "drive",
)  # verbs in which networks compute; those that learn say how themselves
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # what a write can meet half-way


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return dispatch(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            raise
        where = f" at {error.filename}" if error.filename is not None else ""
        print(f"DiskTrouble: {error.strerror}{where}; what was finished is kept. Mend that and go on", file=sys.stderr)
        return 2


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(version=__version__, tables=", ".join(catalog.TABLES)))
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
        raise BadConfig(f"BadConfig: there is no command {verb!r}; {hint} (`drivetrain --help`)")
    if verb in ACTING:
        from drivetrain import processor

        processor.multiply_quickly()
    return VERBS[verb](rest)


def named(arguments: list[str], what: str, program: str) -> tuple[str, list[str]]:
    """The first word, which must be there, and the flags after it."""
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            return "", arguments
        raise BadConfig(f"BadConfig: {program} needs {what} first, got {arguments[0] if arguments else 'nothing'!r}")
    return arguments[0], arguments[1:]


def list_(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    words = [a for a in arguments if not a.startswith("-")]
    flags = [a for a in arguments if a.startswith("-") and a != "--json"]
    if {"-h", "--help"} & set(flags):
        print(f"usage: drivetrain list [{'|'.join(catalog.TABLES)}] [--json]")
        return 0
    if flags:
        raise BadConfig(f"BadConfig: there is no flag {flags[0]}; drivetrain list takes --json")
    for word in words:
        if word not in catalog.TABLES:
            near = difflib.get_close_matches(word, catalog.TABLES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(catalog.TABLES)}"
            raise BadConfig(f"BadConfig: cannot list {word!r}; {hint}")
    tables = {name: catalog.TABLES[name] for name in (words or catalog.TABLES)}
    if as_json:
        print(json.dumps({t: {n: catalog.about(row) for n, row in rows.items()} for t, rows in tables.items()}))
        return 0
    for table, rows in tables.items():
        print(table)
        for name, row in rows.items():
            missing = "" if catalog.present(row) else f"  (needs pip install 'drivetrain[{row.extra}]')"
            print(f"  {name:<24} {catalog.about(row)}{missing}")
    return 0


def doctor(arguments: list[str]) -> int:
    from drivetrain import doctor as verb
    from drivetrain.models import memory

    plan = config.parse(memory.Plan(), arguments, "drivetrain doctor")
    if not (plan.backbone or plan.vision_model or plan.llm_model):
        if plan != memory.Plan(json=plan.json):
            raise BadConfig("BadConfig: memory is told of a model; give --backbone, or --vision-model and --llm-model")
        found = verb.examine()
        print(json.dumps(found) if plan.json else verb.in_words(found))
        return 0
    needed, (device, room) = memory.needs(plan), verb.room()
    if plan.json:
        print(json.dumps({**needed, "device": device, "room": room, "fits": memory.fits(needed, room)}))
    else:
        print(memory.in_words(needed, device, room))
    return 0


def collect(arguments: list[str]) -> int:
    form, arguments = taken(arguments, "--as", "episodes")
    if {"-h", "--help"} & set(arguments):
        print(
            f"--as {', '.join(COLLECTED[:-1])} or {COLLECTED[-1]} says what to collect; these are the flags of --as {form}\n"
        )
    if form not in COLLECTED:
        raise BadConfig(f"BadConfig: a collection is --as {', '.join(COLLECTED[:-1])} or {COLLECTED[-1]}; got {form!r}")
    if form in WORDS:
        return describe(form, arguments)
    if form != "episodes":
        return transcribe(form, arguments)
    from drivetrain import collect as verb
    from drivetrain.evaluate import watched

    settings = config.parse(verb.Config(), arguments, "drivetrain collect")
    count, frames, total = 0, 0, 0.0
    for episode in watched(verb.collect(settings), settings.episodes, quiet=False):
        count, frames, total = count + 1, frames + episode.length, total + episode.total
    mean = f", mean return {total / count:.1f}" if count else " (all were there already)"
    print(f"{count} episodes, {frames} frames{mean}: {settings.output_dir}")
    return 0


def taken(arguments: list[str], flag: str, default: str) -> tuple[str, list[str]]:
    """The value of one flag, and the other arguments: what it decides is which flags those may be."""
    value, others, rest = default, [], iter(arguments)
    for argument in rest:
        if argument != flag and not argument.startswith(f"{flag}="):
            others.append(argument)
        elif not (value := argument[len(flag) + 1 :] or next(rest, "")):
            raise BadConfig(f"BadConfig: {flag} has no value; write {flag} {default}")
    return value, others


def describe(form: str, arguments: list[str]) -> int:
    from drivetrain import describe as verb

    settings = config.parse(verb.Config(), arguments, f"drivetrain collect --as {form}")
    try:
        counts = verb.describe(form, settings)
    except KeyboardInterrupt:
        print("interrupted; nothing is left of it, and the same command begins anew", file=sys.stderr)
        return 130
    print(f"{counts['train']} scenes to train on, {counts['held_out']} held out: {settings.output_dir}")
    return 0


def transcribe(form: str, arguments: list[str]) -> int:
    from drivetrain import transcribe as verb

    kind, write = verb.FORMS[form]
    print(write(config.parse(kind(), arguments, f"drivetrain collect --as {form}")))
    return 0


def train(arguments: list[str]) -> int:
    name, rest = named(arguments, "an algorithm", "drivetrain train")
    if not name:
        print(f"usage: drivetrain train WHAT [FLAGS]; WHAT is one of {', '.join(catalog.ALGORITHMS | catalog.STAGES)}")
        return 0
    if name not in catalog.ALGORITHMS | catalog.STAGES:
        raise UnknownName("algorithm", name, catalog.ALGORITHMS | catalog.STAGES)
    algorithm = catalog.find("stages" if name in catalog.STAGES else "algorithms", name)
    program = f"drivetrain train {name}"
    if {"-h", "--help"} & set(rest):
        print(algorithm.__doc__.strip() + "\n")
        return _show_flags(algorithm.Config(), RunOptions(), program)
    mine, theirs = split_flags(rest, RunOptions())
    options = config.parse(RunOptions(output_dir=f"runs/{name}"), mine, program)
    default = algorithm.Config()
    if options.resume:
        default = stored_config(Path(options.output_dir), name, algorithm.Config)
    return run_training(algorithm, name, config.parse(default, theirs, program), options)


def _show_flags(*parts: Any) -> int:
    for default in parts[:-1]:
        try:
            config.parse(default, ["--help"], parts[-1])
        except SystemExit:
            print()
    return 0


def stored_config(folder: Path, name: str, kind: type[Any]) -> Any:
    from drivetrain.run import read_config

    had = read_config(folder)
    if had["algorithm"] != name:
        raise BadConfig(f"BadConfig: {folder} is a run of {had['algorithm']}, not of {name}; use its own command")
    return config.from_json(kind, had["config"])


def run_training(algorithm: Any, name: str, settings: Any, options: RunOptions) -> int:
    from drivetrain import processor
    from drivetrain.report import write_report
    from drivetrain.run import Run, processes, read_config, read_metrics

    if options.threads < 0:
        raise BadConfig(f"BadConfig: threads must be 0 or more, got {options.threads}")
    if processes()[1] > 1 and name not in catalog.STAGES:
        raise BadConfig(f"BadConfig: {name} trains in one process, got {processes()[1]}; start it without torchrun")
    processor.use(options.threads or os.cpu_count() or 1)
    had = read_config(Path(options.output_dir)) if options.resume else {}
    run = Run(
        options.output_dir,
        checkpoint_every=options.checkpoint_every or had.get("checkpoint_every") or algorithm.CHECKPOINT_EVERY,
        log_every=options.log_every or had.get("log_every") or max(settings.steps // 1000, 1),
        resume=options.resume,
        quiet=options.quiet or options.json,
        tensorboard=options.tensorboard,
        keep=options.keep,
    )
    run.begin(name, config.to_json(settings))
    try:
        algorithm.train(settings, run)
    except KeyboardInterrupt:
        command = f"drivetrain train {name} --output-dir {run.folder} --resume"
        print(f"\ninterrupted; nothing before the last checkpoint is lost. Go on with: {command}", file=sys.stderr)
        return 130
    except UserError:
        if run.first:
            forget_unbegun(run)
        raise
    if not run.first:
        return 0
    write_report(run.folder)
    rows = read_metrics(run.folder)
    if options.json:
        print(json.dumps({"run": str(run.folder), "last": rows[-1] if rows else {}}))
    else:
        left = "samples.md, model/" if name in catalog.STAGES else "checkpoints/last"
        on = "" if name in catalog.STAGES else f"; next: drivetrain eval {run.folder}"
        print(f"done: {run.folder} (report.md, {left}){on}")
    return 0


def forget_unbegun(run: Any) -> None:
    """Take back a run folder that was refused before its first step, so that the mended command can have it."""
    if not (run.folder / "metrics.jsonl").exists():
        for name in ("config.json", "environment.json"):
            (run.folder / name).unlink(missing_ok=True)
        for path in run.made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def eval_(arguments: list[str]) -> int:
    from drivetrain import evaluate as verb

    path, rest = named(arguments, "a run", "drivetrain eval")
    settings = config.parse(verb.Config(), rest, "drivetrain eval RUN")
    said = verb.compare(path, settings)
    print(json.dumps(said) if settings.json else verb.in_words(said))
    return 0


def dream(arguments: list[str]) -> int:
    from drivetrain import dream as verb

    path, rest = named(arguments, "a run", "drivetrain dream")
    settings = config.parse(verb.Config(), rest, "drivetrain dream RUN")
    said = verb.dream(path, settings)
    print(json.dumps(said) if settings.json else verb.in_words(said))
    return 0


def ladder(arguments: list[str]) -> int:
    from drivetrain import ladder as verb

    name, rest = named(arguments, "a ladder (a name or a .toml file)", "drivetrain ladder")
    if not name:
        print(verb.__doc__.strip() + f"\n\nThose that ship: {', '.join(verb.shipped())}.\n")
    settings = config.parse(verb.Config(), rest, "drivetrain ladder NAME")
    said = verb.climb(name, settings)
    print(json.dumps(said) if settings.json else verb.in_words(said))
    return 0


def audit(arguments: list[str]) -> int:
    from drivetrain import audit as verb
    from drivetrain.rewards.audit import in_a_line

    settings = config.parse(verb.Config(), arguments, "drivetrain audit")
    said = verb.audit(settings)
    print(json.dumps(said) if settings.json else f"{in_a_line(said)}\nthe page: {said['folder']}/audit.md")
    return 0 if said["verdict"]["fit"] else 3


def drive(arguments: list[str]) -> int:
    from drivetrain import drive as verb

    path, rest = named(arguments, "a run", "drivetrain drive")
    settings = config.parse(verb.Config(), rest, "drivetrain drive RUN")
    said = verb.drive(path, settings, tell=lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(said) if settings.json else verb.in_words(said))
    return 130 if said["interrupted"] else 0


def report(arguments: list[str]) -> int:
    from drivetrain.report import write_report

    path, rest = named(arguments, "a run", "drivetrain report")
    if not path:
        print("usage: drivetrain report RUN")
        return 0
    if rest:
        raise BadConfig(f"BadConfig: drivetrain report takes a run folder and nothing else, got {rest[0]}")
    print(write_report(Path(path)))
    return 0


def demo(arguments: list[str]) -> int:
    from drivetrain import demo as verb

    settings = config.parse(verb.Config(), arguments, "drivetrain demo")
    try:
        return verb.demo(settings)
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def sim(arguments: list[str]) -> int:
    for package in ("msgpack", "numba"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "sim", "the embedded server")
    from drivetrain.sim import serve
    from drivetrain.sim.errors import SimError

    options = config.parse(serve.Options(), arguments, "drivetrain sim")
    try:
        serve.serve(options)
    except SimError as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "doctor": doctor,
    "list": list_,
    "collect": collect,
    "train": train,
    "eval": eval_,
    "dream": dream,
    "ladder": ladder,
    "audit": audit,
    "drive": drive,
    "report": report,
    "sim": sim,
    "demo": demo,
}

if __name__ == "__main__":
    sys.exit(main())
