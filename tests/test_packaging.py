"""What a fresh machine is given: files made from pyproject.toml, extras that exist, targets that build what they need."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from drivetrain import __version__, catalog, doctor

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def load_requirements():
    spec = importlib.util.spec_from_file_location("requirements", ROOT / "scripts" / "requirements.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


requirements = load_requirements()


def test_requirements_and_environment_are_up_to_date():
    assert requirements.main(["--check"]) == 0


def test_a_stale_file_is_named(tmp_path, capsys):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert requirements.main([], tmp_path) == 0
    assert requirements.main(["--check"], tmp_path) == 0
    text = (tmp_path / "pyproject.toml").read_text().replace('"tqdm>=4.66"', '"tqdm>=4.67"')
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "environment.yml").unlink()
    assert requirements.main(["--check"], tmp_path) == 1
    assert "stale: requirements.txt, environment.yml" in capsys.readouterr().err


def test_extras_that_name_extras_are_spelt_out_and_nothing_comes_twice():
    lines = requirements.everything(PROJECT)
    assert set(PROJECT["dependencies"]) | set(EXTRAS["mujoco"]) <= set(lines)
    assert not [line for line in lines if line.startswith("drivetrain")]
    assert len(lines) == len(set(lines))


def test_the_doctor_knows_every_extra():
    assert set(doctor.EXTRAS) == set(EXTRAS)


def test_what_the_catalog_needs_can_be_had_by_the_extra_it_names():
    for table, rows in catalog.TABLES.items():
        for name, row in rows.items():
            assert bool(row.package) == bool(row.extra), f"{table} {name} names {row.package!r} and {row.extra!r}"
            assert not row.extra or row.extra in EXTRAS, f"{table} {name} needs the extra {row.extra}, which is none"


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "drivetrain").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def dry_run(target, folder):
    """What make would do in `folder`, one command a line; the make that runs these tests has no say in it."""
    outer = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("MFLAGS", "JOBS")
    }
    said = subprocess.run(["make", "-n", target], cwd=folder, env=outer, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.fixture
def clone(tmp_path):
    """The committed files that make looks at, and no environment."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("scripts", "bench"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
class TestMake:
    @pytest.mark.parametrize(
        ("target", "runs"),
        [
            ("demo", ".venv/bin/drivetrain demo"),
            ("test", ".venv/bin/pytest -n 2"),
            ("check", '.venv/bin/pytest -n 2 -m "not slow"'),
            ("learn", ".venv/bin/python $script"),
            ("bench", ".venv/bin/python $script"),
        ],
    )
    def test_builds_the_environment_first_and_then_runs(self, target, runs, clone):
        said = dry_run(target, clone)
        built, ran = said.find("scripts/install.sh"), said.rfind(runs)
        assert 0 <= said.find("-m venv .venv") < built < ran, said

    def test_venv_builds_the_environment_and_nothing_else(self, clone):
        last = [line for line in dry_run("venv", clone).splitlines() if line.strip()][-1]
        assert last == "touch .venv/.ready"

    def test_a_ready_environment_is_left_alone_until_pyproject_changes(self, clone):
        stamp = clone / ".venv" / ".ready"
        stamp.parent.mkdir()
        stamp.touch()
        later = stamp.stat().st_mtime + 10
        os.utime(stamp, (later, later))
        assert "install.sh" not in dry_run("test", clone)
        os.utime(clone / "pyproject.toml", (later + 10, later + 10))
        assert "install.sh" in dry_run("test", clone)

    def test_bench_runs_all_but_the_learning_results(self, clone):
        (clone / "bench" / "learn.py").touch()
        (clone / "bench" / "speed.py").touch()
        said = dry_run("bench", clone)
        assert "bench/speed.py" in said
        assert not any(f"bench/{name}.py" in said for name in ("learn", "carracing_policy", "judges", "parts"))
        learning = dry_run("learn", clone)
        assert all(f"bench/{name}.py" in learning for name in ("learn", "carracing_policy", "judges"))

    @pytest.mark.parametrize(("status", "goes_on"), [(0, True), (3, True), (1, False), (130, False)])
    def test_a_mark_that_is_missed_stops_no_other_learning_result(self, status, goes_on, clone):
        python = clone / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho "$1" >>ran\ntest "$1" != bench/judges.py || exit {status}\n')
        python.chmod(0o755)
        (clone / "bench" / "peers" / "d3rlpy.sh").write_text("true\n")
        (clone / ".venv" / ".ready").touch()
        done = subprocess.run(["make", "learn"], cwd=clone, capture_output=True, text=True, timeout=300)
        assert (done.returncode == 0) == (status == 0), done.stderr
        assert f"Error {status}" in done.stderr or not status
        ran = (clone / "ran").read_text().split()
        assert ran[0] == "bench/learn.py"
        assert ran[-1] == ("bench/ladder.py" if goes_on else "bench/judges.py")


def test_continuous_integration_runs_all_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()


PYTHON = """#!/bin/sh
case "$*" in
*importlib.metadata*) cat "$0.torch" ;;
*) shift 3; echo "$@" >>"$0.log"
   case "$*" in *--constraint*) cp "$REPLACED" "$0.torch" 2>/dev/null ;; *"$REFUSED"*) exit 1 ;; esac ;;
esac
true
"""


@pytest.mark.skipif(os.path.exists("/dev/nvidia0") or sys.platform != "linux", reason="asks for a Linux without a GPU")
class TestInstall:
    """scripts/install.sh with a Python that only writes down what pip is asked for."""

    @pytest.fixture
    def install(self, tmp_path):
        def run(gpu=False, refused="nothing is", replaced="", **settings):
            python, tools = tmp_path / "python", tmp_path / "tools"
            python.write_text(PYTHON)
            python.with_name("python.torch").write_text("2.13.0\n")
            (tmp_path / "other").write_text(replaced)
            tools.mkdir()
            (tools / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if gpu else 1}\n")
            for script in (python, tools / "nvidia-smi"):
                script.chmod(0o755)
            others = {"REFUSED": refused, "REPLACED": str(tmp_path / "other") if replaced else "", **settings}
            env = {"PATH": f"{tools}:{os.environ['PATH']}", **others}
            command = ["sh", str(ROOT / "scripts" / "install.sh"), str(python), "dev"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
            return done, python.with_name("python.log").read_text().splitlines()

        return run

    def test_takes_the_cpu_build_from_pips_own_sources_where_there_is_no_gpu(self, install):
        done, asked = install()
        assert done.returncode == 0, done.stderr
        assert asked[0] == "install --quiet torch==2.13.0+cpu"
        assert not [line for line in asked if "--index-url" in line]

    def test_takes_it_from_pytorchs_index_where_those_lack_it(self, install):
        done, asked = install(refused="install --quiet torch")
        assert done.returncode == 0, done.stderr
        assert asked[1] == "install torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu"

    def test_takes_the_plain_release_where_there_is_a_gpu(self, install):
        assert install(gpu=True)[1][0] == "install torch==2.13.0"

    def test_takes_what_it_is_told_from_where_it_is_told(self, install):
        _, asked = install(TORCH="torch==2.12.1", TORCH_INDEX="https://example.org/whl")
        assert asked[0] == "install torch==2.12.1 --index-url https://example.org/whl"

    def test_the_rest_comes_around_it_and_clashing_packages_come_alone(self, install):
        done, asked = install()
        assert "--constraint" in asked[1]
        assert asked[1].endswith("--editable .[dev]")
        assert all(line.startswith("install --quiet --no-deps ") for line in asked[2:])
        assert done.stdout.splitlines()[-1] == "ready: torch 2.13.0"

    def test_a_machine_without_envpool_is_told_and_goes_on(self, install):
        done, _ = install(refused="envpool")
        assert done.returncode == 0, done.stderr
        assert "envpool has no build for this machine" in done.stdout

    def test_a_torch_that_was_replaced_is_an_error(self, install):
        done, _ = install(replaced="2.14.0\n")
        assert done.returncode == 1
        assert "torch 2.13.0 was replaced by 2.14.0" in done.stderr


def test_the_tables_of_the_readme_are_those_of_the_results():
    done = subprocess.run([sys.executable, "scripts/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
