"""The script that measures true models on a GPU: its logic, with models that a processor can bear."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "bench" / "vlm_gpu.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("vlm_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script, capsys, tmp_path):
    assert script.main(["--output", str(tmp_path / "out.json")]) == 2
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert "there is none here" in line
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_what_it_writes(script, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "SPOKEN", 4)
    monkeypatch.setattr(script, "ANSWER", "turn left.")
    at = tmp_path / "results" / "out.json"
    names = ["git-base", "siglip-base+qwen2-1.5b", "llava-1.5-7b"]
    assert script.main(["--shrunk-on-cpu", "--rounds", "2", "--output", str(at), "--models", *names]) == 0
    report = json.loads(at.read_text())
    assert set(report["models"]) == set(names)
    for name, found in report["models"].items():
        for what in ("forward", "lora_step", "generate"):
            assert found[what]["images_per_s"] == pytest.approx(2 / found[what]["seconds"]["median"])
            assert found[what]["tokens_per_s"] > 0
            assert found[what]["peak_gb"] is None
        assert set(found["foretold_gb"]) == {"generate", "lora_step"}
        per_row = found["forward"]["tokens_per_s"] / found["forward"]["images_per_s"]
        assert per_row == pytest.approx(found["tokens_per_picture"] + found["text_tokens"])
        assert f"{name}: {found['parameters']:,} parameters" in capsys.readouterr().out or name != names[0]
