"""Names from outside never become paths, and damaged files spoil nothing but themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from customvideo.errors import StorageError
from customvideo.workspace import Workspace
from customvideo.workspace.places import check_id, inside, new_id, read_json, slug, write_json

EVIL = [
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a\\b",
    "C:",
    "con",
    "NUL.txt",
    "x\0y",
    "a\nb",
    "trailing.",
    "ü",
]


@pytest.mark.parametrize("part", EVIL)
def test_no_part_of_a_path_leads_elsewhere(part: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no place in the workspace"):
        inside(tmp_path, "projects", part)
    with pytest.raises(StorageError, match="no id"):
        check_id(part)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    (tmp_path / "root").mkdir()
    try:
        (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    except OSError:
        pytest.skip("no links here")
    with pytest.raises(StorageError, match="link"):
        inside(tmp_path / "root", "link", "file")


def test_ids_come_from_names_and_never_twice() -> None:
    assert slug("Tom's Käse <img onerror=x>") == "tom-s-kase-img-onerror-x"
    assert slug("猫") == "item"
    first, second = new_id("../../x"), new_id("../../x")
    assert first != second and check_id(first) == first and first.startswith("x-")


def test_json_of_a_later_version_and_damaged_json_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"name": "Tom"})
    assert read_json(file) == {"name": "Tom"}
    for text, told in (('{"format": 99}', "later version"), ("{", "damaged"), ("[1]", "damaged")):
        file.write_text(text)
        with pytest.raises(StorageError, match=told):
            read_json(file)
    with pytest.raises(StorageError, match="There is no"):
        read_json(tmp_path / "none.json")


def test_a_workspace_takes_no_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(StorageError, match="no workspace"):
        Workspace(tmp_path)
    assert os.listdir(tmp_path) == ["holiday.txt"]
    assert Workspace(tmp_path / "new").root == Workspace(tmp_path / "new").root


def test_projects_are_kept_changed_deleted_and_restored(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    project = workspace.projects.create("<img onerror=alert(1)>")
    assert project.name == "<img onerror=alert(1)>" and "<" not in project.id
    workspace.projects.update(project.id, {"steps": 5})
    workspace.projects.update(project.id, {"seed": 1})
    assert workspace.projects.get(project.id).settings == {"steps": 5, "seed": 1}
    assert workspace.projects.rename(project.id, "Mine\n").name == "Mine"
    with pytest.raises(StorageError, match="1 to 80"):
        workspace.projects.rename(project.id, "\u200b")

    thrown = workspace.projects.delete(project.id)
    assert workspace.projects.list().entries == ()
    assert [one.name for one in workspace.trash.list().entries] == ["Mine"]
    workspace.trash.restore(thrown.id)
    assert workspace.projects.get(project.id).name == "Mine"
    with pytest.raises(StorageError):
        workspace.trash.restore(thrown.id)

    workspace.projects.delete(project.id)
    assert workspace.trash.empty() > 0 and workspace.trash.list().entries == ()


def test_nothing_is_restored_over_what_has_come_since(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    project = workspace.projects.create("one")
    shelf = workspace.shelf(project.id)
    shelf.add("tom", "cat")
    thrown = shelf.remove("tom")
    shelf.add("tom", "dog")
    with pytest.raises(StorageError, match="has taken its place"):
        workspace.trash.restore(thrown.id)
    assert shelf.get("tom").category == "dog"
    shelf.remove("tom")
    workspace.trash.restore(thrown.id)
    assert shelf.get("tom").category == "cat"


def test_a_broken_entry_is_reported_and_hides_no_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    whole, broken = workspace.projects.create("whole"), workspace.projects.create("broken")
    (workspace.projects.folder(broken.id) / "project.json").write_text(
        json.dumps({"format": 1, "name": "broken"})
    )
    (workspace.root / "projects" / "Not an id").mkdir()
    found = workspace.projects.list()
    assert [project.id for project in found.entries] == [whole.id]
    assert len(found.broken) == 2 and broken.id in "".join(found.broken)


def test_a_server_gets_files_of_the_workspace_alone(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    (tmp_path / "secret.txt").write_text("secret")
    assert workspace.file("workspace.json").is_file()
    for path in ("../secret.txt", "/etc/passwd", "projects", "projects/../workspace.json", ""):
        with pytest.raises(StorageError):
            workspace.file(path)
