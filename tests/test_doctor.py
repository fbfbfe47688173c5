"""What the examination says of a whole installation, and of one that lacks something."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from customvideo import doctor
from customvideo.doctor import Finding, examine, tell
from tests.surroundings import run_cli


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_a_whole_installation_is_well() -> None:
    findings = by_name(examine())
    assert {"torch", "diffusers", "codec h264", "codec gif", "toybox", "cpu"} <= findings.keys()
    assert all(finding.mark != "!!" for finding in findings.values())
    assert "customvideo demo" in tell(list(findings.values()))


def test_what_is_missing_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor.version

    def lacking(name: str) -> str:
        if name in ("gradio", "torch"):
            raise PackageNotFoundError(name)
        return "5.0" if name == "pillow" else known(name)

    monkeypatch.setattr(doctor, "version", lacking)
    findings = by_name(examine())
    assert findings["torch"].mark == "!!" and "pip install" in findings["torch"].found
    assert findings["pillow"].mark == "!!" and "5.0 does not fit" in findings["pillow"].found
    assert findings["[web]"].mark == "no"
    assert "pip install 'customvideo[web]'" in findings["[web]"].found
    assert tell(list(findings.values())).endswith("2 to be mended before anything works.")
    assert run_cli("doctor").exit_code == 2


def test_a_codec_that_fails_is_a_line_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no encoder")

    monkeypatch.setattr("customvideo.video.Video.save", broken)
    assert by_name(examine())["codec h264"].mark == "!!"


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert by_name(examine())["this folder"].mark == "no"


def test_programs_read_it_as_json() -> None:
    told = json.loads(run_cli("doctor", "--json").output)
    assert {"mark", "what", "found"} == told[0].keys()
