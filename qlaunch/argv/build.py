"""A plan as QEMU's command line: one tuple an option, in an order that QEMU accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from qlaunch.argv import blocks, cables
from qlaunch.argv.keyval import escape, keyval, to_json
from qlaunch.plan.model import Chardev, Device, Layer, Plan

Option = tuple[str, ...]

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@frozen(kw_only=True)
class Handles:
    """What qlaunch has opened for QEMU: descriptor sets of images and descriptors of sockets.

    `images` maps a file node to the set that holds it (`sets` says which descriptors are in a
    set, `marks` which file they are of), `sockets` a chardev to its descriptor, `cables` a network
    card to what leads out of it. `rtc_base` is the moment at which the clock of a guest starts that
    has set it. Empty handles give a command line by path, which a person can run.
    """

    images: Mapping[str, int] = field(factory=dict)
    sets: Mapping[int, tuple[int, ...]] = field(factory=dict)
    marks: Mapping[int, str] = field(factory=dict)
    sockets: Mapping[str, int] = field(factory=dict)
    cables: Mapping[str, cables.Cable] = field(factory=dict)
    rtc_base: str | None = None

    def file_name(self, layer: Layer) -> str:
        number = self.images.get(layer.file_node)
        return layer.path if number is None else f"/dev/fdset/{number}"


def command_line(plan: Plan) -> tuple[Option, ...]:
    """The command line by path, for people: the emulator first, then a tuple an option."""
    return build(plan, Handles())


def build(plan: Plan, handles: Handles, *, incoming: bool = False) -> tuple[Option, ...]:
    """The command line that starts `plan` with what `handles` hold; with `incoming` it waits for
    the memory that the guest goes on with."""
    return (
        (plan.emulator,),
        *_basics(plan),
        *_board(plan, handles),
        *_boot(plan),
        *_sets(handles),
        *_objects(plan),
        *(_chardev(chardev, handles) for chardev in plan.chardevs),
        ("-mon", "chardev=qmp,mode=control"),
        ("-mon", "chardev=monitor,mode=control"),
        *_backends(plan, handles),
        *_display(plan),
        *(_device(device) for device in plan.all_devices()),
        *([("-incoming", "defer")] if incoming else []),
        *_grouped(plan.extra_args),
    )


def _grouped(words: tuple[str, ...]) -> Iterator[Option]:
    """Words as they are, those that go with an option beside it."""
    option: list[str] = []
    for word in words:
        if option and word.startswith("-"):
            yield tuple(option)
            option = []
        option.append(word)
    if option:
        yield tuple(option)


def scope_prefix(plan: Plan) -> Option:
    """What starts QEMU in a systemd scope of its own, which carries the profile's limits; nothing
    where no systemd runs. systemd-run execs in place: same pid, same descriptors. It first says
    the scope's name, by which QEMU's failure is told from its own; so it is not --quiet. What is
    started before a service ends after it: at shutdown our service stops the guest first."""
    if plan.scope is None:
        return ()
    limits = [word for name, value in plan.limits.items() for word in ("-p", f"{name}={value}")]
    return (
        "systemd-run", f"--{plan.scope}", "--scope", "--collect",
        f"--unit={scope_unit(plan)}", "--slice=qlaunch.slice",
        "-p", "Before=qlaunch.service", *limits, "--",
    )  # fmt: skip


def scope_unit(plan: Plan) -> str:
    """The name of the machine's systemd scope."""
    return f"qlaunch-{plan.name}.scope"


def _basics(plan: Plan) -> Iterator[Option]:
    yield ("-name", keyval(None, [("guest", plan.name), ("debug-threads", "on")]))
    yield ("-uuid", plan.uuid)
    yield ("-no-user-config",)
    yield ("-nodefaults",)
    yield ("-S",)
    yield ("-msg", "timestamp=on")
    if plan.sandbox:
        yield ("-sandbox", SANDBOX)


def _board(plan: Plan, handles: Handles) -> Iterator[Option]:
    board = plan.board
    machine = list(board.options)
    if plan.firmware:
        machine += [("pflash0", plan.firmware.code.node), ("pflash1", plan.firmware.vars.node)]
    yield ("-machine", keyval(board.machine, machine))
    yield ("-enable-kvm",) if board.accel == "kvm" else ("-accel", "tcg")
    yield ("-cpu", ",".join([escape(board.cpu), *board.cpu_flags]))
    shape = [("sockets", board.sockets), ("cores", board.cores), ("threads", board.threads)]
    yield ("-smp", keyval(str(board.cpus), [(name, str(value)) for name, value in shape]))
    yield ("-m", f"size={board.memory >> 10}k")
    drift = [("driftfix", "slew")] if board.rtc_drift == "slew" else []
    yield ("-rtc", keyval(None, [("base", handles.rtc_base or board.rtc_base), *drift]))
    for driver, name, value in plan.globals:
        yield ("-global", keyval(None, [("driver", driver), ("property", name), ("value", value)]))


def _boot(plan: Plan) -> Iterator[Option]:
    boot = plan.boot
    words = [("strict", "on")]
    if boot.menu:
        words.append(("menu", "on"))
        if boot.menu_timeout is not None:
            words.append(("splash-time", str(int(boot.menu_timeout * 1000))))
    yield ("-boot", keyval(None, words))
    for option, value in (
        ("-kernel", boot.kernel),
        ("-initrd", boot.initrd),
        ("-append", boot.append),
    ):
        if value is not None:
            yield (option, value)
    yield ("-action", keyval(None, actions(plan)))


def actions(plan: Plan) -> list[tuple[str, str]]:
    """What QEMU does by itself when the guest ends (`-action`, `set-action`).

    Where the policy needs qlaunch's hand, QEMU stays and waits for it; a plain power-off ends it
    even when no supervisor is there to look.
    """
    life = plan.lifecycle
    waits = life.on_poweroff != "destroy" or life.on_reboot == "preserve"
    return [
        ("reboot", "reset" if life.on_reboot == "restart" else "shutdown"),
        ("shutdown", "pause" if waits else "poweroff"),
        ("panic", "pause"),
        ("watchdog", life.watchdog_action),
    ]


def _sets(handles: Handles) -> Iterator[Option]:
    for number, descriptors in handles.sets.items():
        mark = handles.marks.get(number)
        for descriptor in descriptors:
            words = [("fd", str(descriptor)), ("set", str(number))]
            words += [("opaque", mark)] if mark else []
            yield ("-add-fd", keyval(None, words))


def _objects(plan: Plan) -> Iterator[Option]:
    for disk in plan.disks:
        yield ("-object", to_json(blocks.throttle_group(disk)))
    if plan.rng:
        source = {"qom-type": "rng-random", "id": "rng0-source", "filename": "/dev/urandom"}
        yield ("-object", to_json(source))


def _chardev(chardev: Chardev, handles: Handles) -> Option:
    words = [("id", chardev.id)]
    number = handles.sockets.get(chardev.id)
    if chardev.kind == "qemu-vdagent":
        return ("-chardev", keyval(chardev.kind, [*words, ("clipboard", "on"), ("mouse", "off")]))
    if chardev.kind in ("spicevmc", "spiceport"):
        words.append(("name", chardev.name))
        return ("-chardev", keyval(chardev.kind, words))
    words.append(("path", chardev.path) if number is None else ("fd", str(number)))
    # swtpm is there already and QEMU is its client; for the others QEMU is the server.
    if chardev.kind == "socket":
        words += [("server", "on"), ("wait", "off")]
    return ("-chardev", keyval("socket", words))


def _backends(plan: Plan, handles: Handles) -> Iterator[Option]:
    name = handles.file_name
    if plan.firmware:
        yield from (
            ("-blockdev", to_json(node)) for node in blocks.firmware_nodes(plan.firmware, name)
        )
    for disk in plan.disks:
        yield from (("-blockdev", to_json(node)) for node in blocks.disk_nodes(disk, name))
    for drive in plan.drives:
        yield from (("-blockdev", to_json(node)) for node in blocks.medium_nodes(drive, name))
    for nic in plan.nics:
        netdev = cables.netdev(nic, handles.cables.get(nic.id))
        if netdev is not None:
            yield ("-netdev", to_json(netdev))
    for share in plan.shares:
        words = [("id", share.id), ("path", share.path), ("security_model", "none")]
        words += [("readonly", "on")] if share.read_only else []
        yield ("-fsdev", keyval("local", words))
    if plan.tpm:
        yield ("-tpmdev", keyval("emulator", [("id", "tpm0"), ("chardev", "tpm-chr")]))
    if plan.audio:
        yield ("-audiodev", to_json({"id": "audio0", "driver": plan.audio}))


def _display(plan: Plan) -> Iterator[Option]:
    yield ("-display", "none")
    if plan.display.spice:
        yield ("-spice", keyval(None, plan.display.options))
    if plan.display.vnc:
        # QEMU asks those clients for a password that qlaunch hands over as strangers.
        yield ("-vnc", keyval("none", [("password", "on")]))
    elif plan.display.web:
        yield ("-vnc", "none")


def _device(device: Device) -> Option:
    return ("-device", to_json({"driver": device.driver, "id": device.id, **device.props}))
