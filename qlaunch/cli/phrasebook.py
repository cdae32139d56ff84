"""The phrasebook from virsh to qlaunch: `python -m qlaunch.cli.phrasebook` writes the page."""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import frozen

_PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "from-libvirt.md")

# virsh's command | ours, without `qlaunch` | a remark; a line with # begins a group.
_TABLE = """\
# Machines, and how they run
list | ps | running ones; `list` shows the profiles
list --all | ps -a |
start DOM | up xp |
start DOM --paused | up xp --paused |
start DOM --force-boot | up xp --fresh | boots although memory was saved
create FILE | up ./xp.toml | a profile by its path; nothing is "transient"
shutdown DOM | down xp |
destroy DOM | kill xp |
destroy DOM --graceful | down xp --force | first gently, then not
reboot DOM | restart xp |
reset DOM | reset xp |
suspend DOM | pause xp |
resume DOM | resume xp |
save DOM FILE | save xp | into the machine's own folder; `up` goes on from there
restore FILE | up xp |
managedsave DOM | save xp |
managedsave-remove DOM | up xp --fresh | the next start boots
domstate DOM | ps xp |
domstate DOM --reason | status xp |
await DOM --condition domain-inactive | wait xp --for stopped |
domrename DOM NEW | rename xp xp2 | its disks and snapshots come along
virt-clone -o DOM -n NEW | clone xp xp2 | `--linked` takes no space
autostart DOM | autostart xp on | once `qlaunch service install` has been done
autostart DOM --disable | autostart xp off |
list --autostart | autostart |
# Definitions
define FILE | import xp.xml | once; from then on the profile is edited
undefine DOM | rm xp --keep-disks |
undefine DOM --remove-all-storage | rm xp | `--all-disks`: also those elsewhere
edit DOM | edit xp | checked afterwards
dumpxml DOM | show xp | the profile with all that its guest brings along
dumpxml DOM | export xp --libvirt | as a domain of libvirt
domxml-from-native | | `qemu.args` takes what the profile has no key for
domxml-to-native qemu-argv | argv xp |
virt-install | new web --guest linux --iso debian.iso --disk 20GiB |
virt-xml-validate FILE | check xp | says also what would fail at the start
desc DOM TEXT | edit xp | `title = "..."`
metadata DOM | edit xp | comments in the profile
dominfo DOM | status xp |
dominfo DOM | status xp --json |
domid DOM | ps xp --json |
domuuid DOM | status xp --json |
domname ID | ps |
domstats DOM | status xp --json |
cpu-stats DOM | top xp |
virt-top | top |
domcontrol DOM | status xp |
domdirtyrate-calc | qmp xp calc-dirty-rate calc-time=1 |
schedinfo DOM | edit xp | `[limits]`
# Processors and memory
setmem DOM 524288 | set xp memory.current=512MiB | live; `--persist`: in the profile, too
setmaxmem DOM | edit xp | `memory.size`
dommemstat DOM | qmp xp query-balloon |
setvcpus DOM 4 | edit xp | `cpu.count`; counts from the next start
vcpucount DOM | status xp |
vcpuinfo DOM | qmp xp query-cpus-fast |
vcpupin DOM | edit xp | `limits.cpus`, for all of them together
emulatorpin DOM | edit xp | `limits.cpus`
maxvcpus | doctor |
dump DOM FILE --memory-only | dump xp core |
inject-nmi DOM | nmi xp |
shutdown DOM --mode acpi | inject xp power-button | once, and nobody waits
dompmwakeup DOM | inject xp wakeup |
# Screen, keyboard, console
console DOM | console xp | Ctrl-] leaves
console DOM --force | console xp | several may look on; one types
domdisplay DOM | view xp --vv | a file for remote-viewer, with ticket and CA
domdisplay DOM | status xp |
vncdisplay DOM | status xp |
virt-viewer DOM | view xp |
screenshot DOM FILE | screenshot xp xp.png |
send-key DOM KEY_LEFTCTRL KEY_LEFTALT KEY_DELETE | send-key xp ctrl-alt-delete |
update-device DOM graphics.xml | display password xp | a new password, live
# Disks
domblklist DOM | status xp |
domblkinfo DOM hda | disk info xp |
domblkstat DOM hda | qmp xp query-blockstats |
domblkerror DOM | status xp |
attach-disk DOM FILE vdb | disk attach xp data.qcow2 |
attach-disk DOM FILE vdb --persistent | disk attach xp data.qcow2 --persist |
attach-device DOM disk.xml | import disk.xml | prints the [[disk]] that goes into a profile
detach-disk DOM vdb | disk detach xp disk1 |
blockresize DOM vda 30G | disk resize xp disk0 +10GiB |
blockcopy DOM vda FILE --pivot | disk move xp disk0 /srv/disks/ |
blockcommit DOM vda --active --pivot | snapshot delete xp clean | or `snapshot merge`
blockpull DOM vda | snapshot delete xp clean | what is deleted is merged into what follows
blockjob DOM vda | jobs xp |
blockjob DOM vda --abort | jobs xp --cancel disk0-move |
blockjob DOM vda 100 | jobs xp --limit 100MiB |
blkdeviotune DOM vda | set xp disk.disk0.iops=300 | live; 0 takes the limit out
domblkthreshold DOM vda | | there is no such event; `disk info` shows sizes
change-media DOM hdc FILE --update | media xp tools.iso |
change-media DOM hdc --eject | media xp --eject |
# Network cards
domiflist DOM | nic list xp |
domifaddr DOM | ip xp |
domifaddr DOM --source agent | ip xp |
domifstat DOM vnet0 | status xp --json |
domif-setlink DOM vnet0 down | nic set xp net0 link=down |
domif-getlink DOM vnet0 | nic list xp |
attach-interface DOM network lab | nic attach xp --network lab |
detach-interface DOM network | nic detach xp net1 |
update-device DOM interface.xml | nic set xp net0 network=lab |
domiftune DOM vnet0 | | there are no limits on network cards
# Snapshots
snapshot-create DOM | snapshot create xp |
snapshot-create-as DOM clean TEXT | snapshot create xp clean -m "installed" |
snapshot-create-as DOM clean --disk-only | snapshot create xp clean --disks-only |
snapshot-create-as DOM clean --quiesce | snapshot create xp clean --quiesce |
snapshot-create DOM snapshot.xml | import snapshot.xml | prints the command that does it
snapshot-list DOM | snapshot list xp |
snapshot-list DOM --tree | snapshot tree xp |
snapshot-info DOM clean | snapshot show xp clean |
snapshot-dumpxml DOM clean | snapshot show xp clean --json |
snapshot-current DOM | snapshot current xp |
snapshot-parent DOM clean | snapshot show xp clean |
snapshot-edit DOM clean | snapshot edit xp clean -m "new text" |
snapshot-edit DOM clean --rename | snapshot rename xp clean tidy |
snapshot-revert DOM clean | revert xp clean | what was done since becomes a branch
snapshot-delete DOM clean | snapshot delete xp clean |
snapshot-delete DOM clean --children | snapshot delete xp clean --children |
snapshot-delete DOM clean --metadata | snapshot sync xp | takes over what others did to the images
checkpoint-create-as DOM c1 | snapshot create xp c1 --disks-only | and `clone --snapshot` copies it
checkpoint-list DOM | snapshot list xp |
checkpoint-delete DOM c1 | snapshot delete xp clean |
backup-begin DOM | clone xp backup --snapshot clean | copies the disks of a moment while it runs
backup-dumpxml DOM | jobs xp |
# The guest
domtime DOM --sync | revert xp clean | an agent sets the clock after a revert and a save
domfsfreeze DOM | snapshot create xp clean --quiesce | frozen just as long as it takes
domfstrim DOM | disk compact xp | the image shrinks
guestinfo DOM | status xp |
qemu-agent-command DOM | status xp | the agent is the machine's own
qemu-monitor-command DOM --hmp | hmp xp info block |
qemu-monitor-command DOM | qmp xp query-block |
event --loop | events -f |
event --domain DOM | events xp -f --json | for programs
event --timestamp | events --since 1h | what was missed, too
# Networks
net-list --all | net list |
net-define FILE | import net.xml | writes networks/NAME.toml
net-create FILE | net create lab --up |
net-start NET | net up lab |
net-destroy NET | net down lab |
net-undefine NET | net rm lab |
net-edit NET | net edit lab |
net-info NET | net show lab |
net-dumpxml NET | net show lab |
net-autostart NET | net edit lab | `autostart = true`
net-dhcp-leases NET | net leases lab |
net-update NET add ip-dhcp-host | net edit lab | [[reservation]], or `ipv4` of a machine's [[nic]]
net-port-list NET | net show lab |
net-name UUID | net list |
iface-bridge eth0 br0 | net uplink br0 eth0 | a bridge over an interface, with a way back
nwfilter-list | edit xp | `filter` of a [[nic]]: clean, mac, none
# Storage
vol-create-as POOL NAME 20G | image create data.qcow2 20GiB |
vol-create-as POOL NAME --backing-vol | image create top.qcow2 --backing base.qcow2 |
vol-info VOL | image info data.qcow2 |
vol-resize VOL 30G | image resize data.qcow2 30GiB |
vol-clone VOL NEW | image convert data.qcow2 copy.qcow2 |
vol-delete VOL | | a file is a file: `rm data.qcow2`
vol-dumpxml VOL | image chain data.qcow2 | with all that it stands on
vol-list POOL | disk info xp | disks are files; there are no pools
pool-list | | disks are files, where the profile says
secret-define FILE | edit xp | `password = { file = "..." }`
# Devices of this computer
nodedev-list --cap usb_device | usb list |
attach-device DOM usb.xml | usb attach xp 0951:1666 |
detach-device DOM usb.xml | usb detach xp 0951:1666 |
nodedev-detach pci_0000_06_02_0 | | PCI devices cannot be given away
attach-device DOM redirdev.xml | usb slots xp 4 |
# This computer
capabilities | doctor |
domcapabilities | doctor |
nodeinfo | doctor |
version | --version |
cpu-models x86_64 | check xp | a wrong `cpu.model` is told with the one that is nearest
hostname | doctor |
uri | supervisor status |
"""

_INTRO = """\
# Coming from libvirt

<!-- Written by `make golden` from qlaunch/cli/phrasebook.py; edit it there. -->

```
$ virsh dumpxml xp | qlaunch import -    # a profile, and a report of what was not carried over
$ qlaunch import --from-libvirt          # everything that libvirt has defined on this computer
$ qlaunch check xp && qlaunch up xp      # not while libvirt runs it: both would write its disk
$ qlaunch export xp --libvirt > xp.xml   # and back
```

What is different:

- A **profile** is a file of yours that you edit; there is no second copy of it in a daemon. `check`
  finds mistakes before a start. What is not said, qlaunch decides and keeps.
- No daemon and no root: a supervisor of your own starts with the first machine. Only networks of
  the computer (bridges, NAT) have a small service of root's, `sudo qlaunch net setup`.
- Disks are files. There are no pools and no volumes.
- Snapshots make one tree, whatever their kind; each can be gone back to and deleted while the guest
  runs.
- Secrets are never in a profile: `password = { file = "..." }`.
- Every verb has `--json` and an exit status that says who must act.

The report of an import has four parts: what was read as it was meant (typographic quotes, a file
that stops in the middle, `qemu:` without its namespace), what is *not needed* here, what is
*different here*, and what is *not supported*; each with the line. `--strict` makes an error of the
last. An installed guest finds the same hardware at the same places: `tests/README.md` says how that
is tested.

## The phrasebook

`xp` stands for a machine, `disk0` and `net0` for the ids of its parts (`qlaunch show xp`).
"""


@frozen
class Phrase:
    """A command of virsh's, ours (without `qlaunch`; empty where there is none) and a remark."""

    group: str
    virsh: str
    ours: str
    remark: str


def phrases() -> Iterator[Phrase]:
    """The whole table."""
    group = ""
    for line in _TABLE.splitlines():
        if line.startswith("# "):
            group = line[2:]
            continue
        virsh, ours, remark = (word.strip() for word in line.split("|"))
        yield Phrase(group, virsh, ours, remark)


def page() -> str:
    """The page of the documentation."""
    lines, group = [_INTRO], ""
    for phrase in phrases():
        if phrase.group != group:
            group = phrase.group
            lines += ["", f"### {group}", "", "| virsh | qlaunch | |", "| --- | --- | --- |"]
        ours = f"`qlaunch {phrase.ours}`" if phrase.ours else "-"
        name = phrase.virsh if phrase.virsh.startswith("virt-") else f"virsh {phrase.virsh}"
        lines.append(f"| `{name}` | {ours} | {phrase.remark} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def main() -> None:
    with open(_PAGE, "w", encoding="utf-8") as file:
        file.write(page())


if __name__ == "__main__":
    main()
