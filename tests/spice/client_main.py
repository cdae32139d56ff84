"""A SPICE client without a window: SpiceClientGLib, driven by JSON lines on its standard input.

Run by the system's Python, which has the bindings; nothing of qlaunch is imported. A process of its
own, because a failed assertion in the C library ends the process that it is in.

One line in, `{"do": ..., ...}`; lines out are answers, `{"did": ...}`, or events,
`{"event": ...}`.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import sys
from typing import Any

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import Gio, GLib, GObject  # noqa: E402
from gi.repository import SpiceClientGLib as Spice  # noqa: E402

# Session.connect() and Channel.connect() hide GObject's own: signals are connected by hand.
on = GObject.Object.connect


class Client:
    def __init__(self) -> None:
        self.session = Spice.Session()
        self.channels: dict[tuple[str, int], Any] = {}
        self.frame: tuple[int, int, int, int] | None = None
        self.offered: dict[int, bytes] = {}
        self.devices: list[Any] = []
        on(self.session, "channel-new", self.new_channel)

    def new_channel(self, _session: Any, channel: Any) -> None:
        kind = Spice.Channel.type_to_string(channel.get_property("channel-type"))
        key = (kind, channel.get_property("channel-id"))
        self.channels[key] = channel
        on(channel, "channel-event", self.channel_event, kind)
        if kind == "main":
            on(channel, "main-agent-update", self.agent)
            on(channel, "main-clipboard-selection-grab", self.grabbed)
            on(channel, "main-clipboard-selection-request", self.requested)
            on(channel, "main-clipboard-selection", self.pasted)
        elif kind == "display":
            on(channel, "display-primary-create", self.primary)
            on(channel, "display-invalidate", self.painted)
        elif kind == "playback":
            self.sound = [0, 0]
            on(channel, "playback-start", self.playback)
            on(channel, "playback-data", self.samples)
        if kind != "main":
            Spice.Channel.connect(channel)

    def channel_event(self, channel: Any, event: Any, kind: str) -> None:
        error = channel.get_error()
        say(event="channel", channel=kind, what=event.value_nick,
            error=error.message if error else None)  # fmt: skip

    def agent(self, channel: Any) -> None:
        say(event="agent", connected=channel.get_property("agent-connected"))

    def primary(self, _channel: Any, _format: int, width: int, height: int, stride: int,
                _shm: int, data: int) -> None:  # fmt: skip
        self.frame = (width, height, stride, data)
        say(event="size", width=width, height=height)

    def painted(self, _channel: Any, _x: int, _y: int, width: int, height: int) -> None:
        if self.frame is not None and (width, height) != (0, 0):
            say(event="painted", hash=hashlib.sha256(self.pixels()).hexdigest())

    def pixels(self) -> bytes:
        assert self.frame
        _width, height, stride, data = self.frame
        return ctypes.string_at(data, stride * height)

    # ---- sound ----------------------------------------------------------------------------------

    def playback(self, _channel: Any, form: int, channels: int, rate: int) -> None:
        say(event="playback", format=form, channels=channels, rate=rate)

    def samples(self, _channel: Any, data: Any, size: int) -> None:
        raw = ctypes.string_at(data, size) if isinstance(data, int) else bytes(data[:size])
        say(event="samples", data=base64.b64encode(raw).decode())

    # ---- clipboard ------------------------------------------------------------------------------

    def grabbed(self, channel: Any, selection: int, _types: Any, _count: int) -> bool:
        say(event="grabbed", selection=selection)
        return True

    def requested(self, channel: Any, selection: int, kind: int) -> bool:
        data = self.offered.get(selection)
        if data is None:
            return False
        channel.clipboard_selection_notify(selection, kind, data)
        return True

    def pasted(self, _channel: Any, selection: int, _kind: int, data: Any, size: int) -> None:
        raw = ctypes.string_at(data, size) if isinstance(data, int) else bytes(data)
        say(event="pasted", selection=selection, text=raw.decode(errors="replace"))

    # ---- USB ------------------------------------------------------------------------------------

    def plugged_in(self, _manager: Any, device: Any) -> None:
        self.devices.append(device.copy())
        say(event="usb", number=len(self.devices) - 1)

    def refused(self, _manager: Any, _device: Any, error: Any) -> None:
        say(event="refused", error=error.message)

    def do_share_cd(self, path: str) -> None:
        Spice.UsbDeviceManager.get(self.session).create_shared_cd_device(path)

    def do_redirect(self, number: int) -> None:
        def ended(manager: Any, result: Any) -> None:
            try:
                manager.connect_device_finish(result)
            except GLib.Error as error:
                say(event="redirected", error=error.message)
            else:
                say(event="redirected", error=None)

        manager = Spice.UsbDeviceManager.get(self.session)
        manager.connect_device_async(self.devices[number], None, ended)

    def do_take_back(self, number: int) -> None:
        Spice.UsbDeviceManager.get(self.session).disconnect_device(self.devices[number])

    # ---- what can be asked ----------------------------------------------------------------------

    def do_connect(self, properties: dict[str, Any]) -> None:
        for name in sorted(properties, key=lambda name: name != "uri"):  # `uri` resets the others
            self.session.set_property(name, properties[name])
        if properties.get("enable-usbredir"):
            manager = Spice.UsbDeviceManager.get(self.session)
            on(manager, "device-added", self.plugged_in)
            on(manager, "device-error", self.refused)
        Spice.Session.connect(self.session)

    def do_disconnect(self) -> None:
        Spice.Session.disconnect(self.session)

    def do_key(self, codes: list[int]) -> None:
        inputs = self.channels["inputs", 0]
        for code in codes:
            inputs.key_press(code)
            inputs.key_release(code)

    def do_picture(self, path: str) -> dict[str, Any]:
        assert self.frame
        width, height, stride, _data = self.frame
        with open(path, "wb") as file:
            file.write(self.pixels())
        return {"width": width, "height": height, "stride": stride}

    def do_offer(self, text: str) -> None:
        self.offered[0] = text.encode()
        self.channels["main", 0].clipboard_selection_grab(0, [1])

    def do_paste(self) -> None:
        self.channels["main", 0].clipboard_selection_request(0, 1)

    def do_resize(self, width: int, height: int) -> None:
        main = self.channels["main", 0]
        main.update_display_enabled(0, True, False)
        main.update_display(0, 0, 0, width, height, False)
        main.send_monitor_config()

    def do_copy(self, paths: list[str]) -> None:
        def ended(channel: Any, result: Any) -> None:
            try:
                channel.file_copy_finish(result)
            except GLib.Error as error:
                say(event="copied", error=error.message)
            else:
                say(event="copied", error=None)

        files = [Gio.File.new_for_path(path) for path in paths]
        self.channels["main", 0].file_copy_async(files, 0, None, None, ended)


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    client, loop = Client(), GLib.MainLoop()
    buffer = b""

    def read(fd: int, _condition: Any) -> bool:
        nonlocal buffer
        data = os.read(fd, 1 << 16)
        if not data:
            loop.quit()
            return False
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            verb = request.pop("do")
            try:
                result = getattr(client, f"do_{verb}")(**request) or {}
            except Exception as error:  # noqa: BLE001 -- told to the test
                result = {"failed": repr(error)}
            say(did=verb, **result)
        return True

    GLib.unix_fd_add_full(
        GLib.PRIORITY_DEFAULT, 0, GLib.IOCondition.IN | GLib.IOCondition.HUP, read
    )
    say(event="ready")
    loop.run()
    client.do_disconnect()


if __name__ == "__main__":
    main()
