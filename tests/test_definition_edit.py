"""`qlaunch edit` changes the profile when its text is good or wanted, and at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qlaunch.machine.names import profile_of
from qlaunch.store import paths
from tests.definitions import at_terminal, data, qlaunch, tree, write_profile

GOOD = 's/^memory.*/memory = { size = "1GiB" }/'


@pytest.fixture
def editor(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that is the editor; tests write what it does to `$1`."""
    path = own_place / "my editor"
    monkeypatch.setenv("EDITOR", f"'{path}'")
    monkeypatch.delenv("VISUAL", raising=False)
    return path


def does(editor: Path, script: str) -> None:
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o700)


def profiles() -> list[str]:
    return tree(Path(paths.config_dir()))


def test_edit_saves_a_good_change_and_leaves_no_copy(editor: Path) -> None:
    path = write_profile("xp")
    does(editor, 'echo \'title = "new"\' >> "$1"')
    assert qlaunch("edit", "xp").status == 0
    assert path.read_text() == 'schema = 1\ntitle = "new"\n'
    assert profiles() == ["profiles/xp.toml"]


def test_visual_comes_before_editor(editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_profile("xp")
    does(editor, "exit 1")
    monkeypatch.setenv("VISUAL", "sed -i '$a title = \"v\"'")
    assert qlaunch("edit", "xp").status == 0
    assert 'title = "v"' in path.read_text()


def test_edit_with_mistakes_changes_nothing_where_nobody_can_be_asked(editor: Path) -> None:
    path = write_profile("xp")
    does(editor, "echo 'memroy = 1\nnaem = 2' >> \"$1\"")
    done = qlaunch("edit", "xp")
    assert done.status == 2
    assert f"{path}:2: memroy" in done.err
    assert "naem" in done.err
    assert path.read_text() == "schema = 1\n"
    assert profiles() == ["profiles/xp.toml"]


@pytest.mark.parametrize(
    "answers, text",
    [
        ("k\n", "schema = 1\nmemroy = 1\n"),
        ("d\n", "schema = 1\n"),
        ("what\ne\nd\n", "schema = 1\n"),
        ("\x04", "schema = 1\n"),
    ],
)
def test_edit_asks_at_a_terminal_what_to_do_about_mistakes(
    editor: Path, answers: str, text: str
) -> None:
    path = write_profile("xp")
    does(editor, "echo 'memroy = 1' >> \"$1\"")
    done = at_terminal(answers, "edit", "xp")
    assert done.status == 0
    assert "memroy" in done.err
    assert path.read_text() == text
    assert profiles() == ["profiles/xp.toml"]


def test_edit_again_starts_from_the_text_with_the_mistake(editor: Path, own_place: Path) -> None:
    path = write_profile("xp")
    does(
        editor,
        f'if [ -e {own_place}/again ]; then sed -i \'s/memroy.*/title = "t"/\' "$1"; '
        f"else touch {own_place}/again; echo 'memroy = 1' >> \"$1\"; fi",
    )
    assert at_terminal("e\n", "edit", "xp").status == 0
    assert path.read_text() == 'schema = 1\ntitle = "t"\n'


def test_edit_finds_a_change_that_somebody_else_made_meanwhile(editor: Path) -> None:
    path = write_profile("xp")
    does(editor, f"echo 'title = \"mine\"' >> \"$1\"; echo '# theirs' >> '{path}'")
    done = qlaunch("edit", "xp")
    assert (done.status, "meanwhile" in done.err) == (5, True)
    assert path.read_text() == "schema = 1\n# theirs\n"
    assert 'title = "mine"' in path.with_name("xp.toml.mine").read_text()


def test_edit_of_a_shipped_profile_makes_a_copy_of_your_own(editor: Path) -> None:
    shipped = Path(paths.shipped_profiles(), "demo.toml")
    before = shipped.read_bytes()
    does(editor, 'sed -i \'s/^title.*/title = "mine"/\' "$1"')
    done = qlaunch("edit", "demo")
    assert (done.status, "is not yours" in done.err) == (0, True)
    assert shipped.read_bytes() == before
    assert 'title = "mine"' in Path(profile_of("demo")).read_text()


def test_edit_of_a_shipped_profile_without_a_change_copies_nothing(editor: Path) -> None:
    does(editor, "true")
    assert qlaunch("edit", "demo").status == 0
    assert profiles() == []


def test_edit_keeps_a_link_and_the_rights_of_its_target(editor: Path, own_place: Path) -> None:
    target = own_place / "dotfiles.toml"
    target.write_text("schema = 1\n")
    target.chmod(0o640)
    path = Path(profile_of("xp"))
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    does(editor, 'echo \'title = "new"\' >> "$1"')
    assert qlaunch("edit", "xp").status == 0
    assert path.is_symlink()
    assert "new" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_an_editor_that_fails_changes_nothing(editor: Path) -> None:
    path = write_profile("xp")
    does(editor, 'echo \'title = "new"\' >> "$1"; exit 3')
    done = qlaunch("edit", "xp")
    assert (done.status, "status 3" in done.err) == (1, True)
    assert path.read_text() == "schema = 1\n"
    assert profiles() == ["profiles/xp.toml"]


def test_an_editor_that_is_not_there_is_named(editor: Path) -> None:
    write_profile("xp")
    done = qlaunch("edit", "xp")
    assert (done.status, "my editor" in done.err, "EDITOR" in done.err) == (1, True, True)


def test_edit_saves_what_only_this_computer_lacks_and_tells_it(editor: Path) -> None:
    path = write_profile("xp")
    does(editor, 'echo \'[machine]\nemulator = "/nowhere/qemu"\' >> "$1"')
    done = qlaunch("edit", "xp")
    assert (done.status, "/nowhere/qemu" in done.err) == (0, True)
    assert "/nowhere/qemu" in path.read_text()


def test_edit_that_renames_the_machine_says_where_its_disks_stay(editor: Path) -> None:
    write_profile("xp")
    (data("xp") / "hda.qcow2").write_bytes(b"x")
    does(editor, 'echo \'name = "other"\' >> "$1"')
    done = qlaunch("edit", "xp")
    assert (done.status, "its disks stay with xp" in done.err) == (0, True)


def test_edit_finds_what_an_interrupted_one_left(editor: Path) -> None:
    left = write_profile("xp").with_name(".xp.edit-abc.toml")
    left.write_text("schema = 1\n# an hour of work\n")
    does(editor, "true")
    done = qlaunch("edit", "xp")
    assert str(left) in done.err
    assert os.path.exists(left)
    assert "an hour of work" in left.read_text()
