"""The tables about the screen: `[display]` and `[view]`."""

from __future__ import annotations

from attrs import frozen

from qlaunch.profile import fields as key
from qlaunch.profile.tables import Secret


@frozen(kw_only=True)
class Display:
    """How the guest's screen can be reached: always by a unix socket that only you can open."""

    spice: bool | None = key.boolean("Offer SPICE.", otherwise="true where this QEMU has SPICE")
    vnc: bool | None = key.boolean("Offer VNC.", otherwise="true only where this QEMU has no SPICE")
    listen: str | None = key.text(
        "Address for the TCP ports below.",
        otherwise="`127.0.0.1`",
        pattern=r"[0-9A-Fa-f.:]+",
        pattern_words="an IP address",
        example="0.0.0.0",
    )
    port: int | None = key.integer(
        "TCP port for SPICE, besides the unix socket.",
        1,
        65535,
        otherwise="no TCP port",
        example="5930",
    )
    vnc_port: int | None = key.integer(
        "TCP port for VNC, besides the unix socket.",
        1,
        65535,
        otherwise="no TCP port",
        example="5900",
    )
    tls_port: int | None = key.integer(
        "TCP port for SPICE with TLS. The certificate is made by qlaunch, and `qlaunch view --vv`"
        " tells a viewer whom to trust.",
        1,
        65535,
        otherwise="no TLS",
        example="5931",
    )
    tls_names: tuple[str, ...] = key.words(
        "Names and addresses of this computer, as clients call it, for the certificate.",
        otherwise="its host name and the address of `listen` (its addresses, where that is all)",
        example='["tower.lan", "192.168.1.5"]',
    )
    password: Secret | None = key.secret("Asked of clients that come over TCP.", otherwise="none")
    ticket: bool | None = key.boolean(
        "Clients over TCP need a ticket, a password that `qlaunch view --vv` and `qlaunch display"
        " password` make and that expires.",
        otherwise="true with `tls_port` and without `password`",
    )
    clipboard: bool | None = key.boolean(
        "Copy and paste between guest and client (SPICE).", otherwise="true"
    )
    file_transfer: bool | None = key.boolean(
        "Drop files on the guest's window (SPICE).", otherwise="true"
    )
    folder_sharing: bool | None = key.boolean(
        "Let the client share a folder with the guest (SPICE, WebDAV).",
        otherwise="true where there is a channel for the SPICE agent",
    )
    agent_mouse: bool | None = key.boolean(
        "The SPICE agent moves the mouse; false keeps the mouse in server mode.", otherwise="true"
    )
    fallback: bool | None = key.boolean(
        "Where this QEMU has no SPICE, make do with a plain VGA card, VNC and its clipboard instead"
        " of failing.",
        otherwise="false",
    )
    compression: str | None = key.choice(
        "Image compression (SPICE).",
        "off",
        "auto_glz",
        "auto_lz",
        "quic",
        "glz",
        "lz",
        otherwise="SPICE's own choice",
    )


@frozen(kw_only=True)
class View:
    """How `qlaunch view` shows the screen."""

    viewer: str | None = key.choice(
        "Which program.",
        "auto",
        "remote-viewer",
        "spicy",
        otherwise="`auto`: the first that is installed",
    )
    fullscreen: bool | None = key.boolean("Full screen at start.", otherwise="false")
    kiosk: bool | None = key.boolean(
        "Full screen without a way out, and the viewer ends with the machine.", otherwise="false"
    )
    resize: bool | None = key.boolean(
        "The guest's resolution follows the window (its agent does that).", otherwise="true"
    )
    share: str | None = key.path(
        "The folder that the viewer shares with the guest.", otherwise="none", example="~/shared"
    )
    usb: str | None = key.choice(
        "USB devices of the computer where the viewer runs. `auto`: what you plug in while it is in"
        " front goes to the guest, and where `usb.filter` says which, what is there already does so"
        " too; `ask`: you choose in its menu; `off`: none.",
        "auto",
        "ask",
        "off",
        otherwise="`auto`",
    )
