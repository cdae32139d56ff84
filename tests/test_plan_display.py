"""What a machine's screen is made of, where QEMU has SPICE and where it has none."""

from __future__ import annotations

from qlaunch.argv import command_line
from qlaunch.plan import Plan, agents
from tests import plans

NO_SPICE = ("chardev-spicevmc", "qxl-vga", "usb-redir", "chardev-spiceport", "audio-spice")
XP = 'guest = "windows-xp"\n[[disk]]\nid = "hda"\nsize = "1GiB"\n'


def plan(text: str, *, without: tuple[str, ...] = ()) -> Plan:
    resolution = plans.plan_of(text, without=without)
    assert resolution.errors == (), plans.findings(resolution)
    return resolution.plan


def words(found: Plan) -> list[str]:
    return [word for option in command_line(found) for word in option]


def channels(found: Plan) -> dict[str, str]:
    return {chardev.id: chardev.kind for chardev in found.chardevs if chardev.kind != "socket"}


def test_a_desktop_has_an_agent_and_shared_folders_unless_they_are_switched_off() -> None:
    assert channels(plan(XP)) | {"vdagent0-chr": "spicevmc", "webdav0-chr": "spiceport"} == (
        channels(plan(XP))
    )
    off = plan(
        XP + "[display]\nfolder_sharing = false\nclipboard = false\nfile_transfer = false\n"
        "agent_mouse = false\n[view]\nresize = false\n"
    )
    assert "webdav0-chr" not in channels(off)
    assert not off.view.resize
    spice = words(off)[words(off).index("-spice") + 1].split(",")
    assert {"disable-copy-paste=on", "disable-agent-file-xfer=on", "agent-mouse=off"} <= set(spice)


def test_without_spice_a_fallback_is_vnc_with_a_clipboard_and_a_plain_card() -> None:
    found = plan(
        XP + '[display]\nspice = true\nfallback = true\n[video]\nmodel = "qxl"\n', without=NO_SPICE
    )
    assert [endpoint.protocol for endpoint in found.display.endpoints] == ["vnc"]
    assert channels(found) == {"vdagent0-chr": "qemu-vdagent"}
    text = " ".join(words(found))
    assert "-chardev qemu-vdagent,id=vdagent0-chr,clipboard=on,mouse=off" in text
    assert '"driver":"VGA"' in text
    assert '-audiodev {"id":"audio0","driver":"none"}' in text
    assert "-spice" not in words(found)


def test_vnc_has_no_clipboard_where_it_is_switched_off_or_where_qemu_cannot() -> None:
    vnc = XP + "[display]\nspice = false\n"
    assert channels(plan(vnc)) == {"vdagent0-chr": "qemu-vdagent"}
    assert channels(plan(vnc + "clipboard = false\n")) == {}
    assert channels(plan(vnc, without=("chardev-qemu-vdagent",))) == {}


def test_tls_alone_asks_for_tickets_and_a_password_replaces_them() -> None:
    tls = "[display]\nspice = true\ntls_port = 5931\n"
    assert plan(tls).display.access == "ticket"
    assert plan(tls).display.endpoints[-1].uri == "spice://127.0.0.1?tls-port=5931"
    assert plan(tls + 'password = { env = "P" }\n').display.access == "password"
    assert plan("[display]\nspice = true\nport = 5930\n").display.access == "open"


def test_each_audio_card_has_its_audiodev_said() -> None:
    for model, driver in (("ac97", "AC97"), ("hda", "hda-duplex"), ("usb", "usb-audio")):
        for spice in ("true", "false"):
            text = f'[display]\nspice = {spice}\n[sound]\nmodel = "{model}"\n'
            found = plan(text + '[usb]\ncontroller = "xhci"\n')
            backend = "spice" if spice == "true" else "none"
            assert f'{{"id":"audio0","driver":"{backend}"}}' in words(found)
            card = next(each for each in found.all_devices() if each.driver == driver)
            assert card.props["audiodev"] == "audio0"


def test_status_says_which_agent_is_missing_and_what_brings_it() -> None:
    xp = plan(XP)
    told = {each["agent"]: each for each in agents.told(xp, frozenset({"vdagent0-chr"}))}
    assert told["spice"] == {"agent": "spice", "connected": True}
    assert told["guest"]["missing"].startswith("a channel: [[channel]]")
    told = {each["agent"]: each for each in agents.told(xp, frozenset())}
    assert "spice-guest-tools 0.74" in told["spice"]["missing"]
    linux = plan('guest = "linux"\n')
    told = {each["agent"]: each for each in agents.told(linux, frozenset())}
    assert told["guest"]["missing"] == "in the guest, the package qemu-guest-agent"
    assert agents.installer("windows-10", "guest").endswith("virtio-win.iso")
