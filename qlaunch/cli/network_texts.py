"""What `qlaunch net setup` writes, comments included: people read it."""

from __future__ import annotations

SOCKET = """\
# Written by `qlaunch net setup`.
[Unit]
Description=networks of qlaunch
Documentation=man:qlaunch(1)

[Socket]
ListenSequentialPacket=/run/qlaunch-netd/socket
# Everybody may ask; /etc/qlaunch/netd.toml says who gets what.
SocketMode=0666

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
# Written by `qlaunch net setup`. Changes of yours belong beside it: systemctl edit qlaunch-netd
[Unit]
Description=networks of qlaunch: bridges, TAPs, DHCP, firewall
Documentation=man:qlaunch(1)
# What these do to the firewall at their start is seen and mended.
After=network-pre.target nftables.service firewalld.service docker.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m qlaunch.network.netd
ExecReload=/bin/kill -HUP $MAINPID
{environment}# dnsmasq and the networks outlive it, a restart or a kill included.
KillMode=process
Restart=on-failure
RestartSec=100ms
RuntimeDirectory=qlaunch-netd
RuntimeDirectoryPreserve=yes
StateDirectory=qlaunch-netd
UMask=0022
# Networks; binding ports below 1024; dnsmasq becomes nobody; naming who has a port.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_CHOWN
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
DeviceAllow=/dev/vhost-net rw
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=no
SystemCallArchitectures=native

[Install]
Also=qlaunch-netd.socket
WantedBy=multi-user.target
"""

RULES = """\
# Who may use the networks that root's service makes. The first rule that names the user, or a group
# of the user's, counts; nobody else gets anything.
schema = 1

# [[allow]]
# id = "students"
# groups = ["students"]
# networks = ["default"]           # "*" is all of them
# ports = ["8000-8999"]            # of this computer that they may forward; 1024-65535 unless said
# filters = ["clean", "mac"]       # of their cards
# max_nics = 8
"""


def service(python: str, path: str) -> str:
    """The unit of the service; `path` is PYTHONPATH where qlaunch runs from a checkout."""
    environment = f"Environment={_quoted(f'PYTHONPATH={path}')}\n" if path else ""
    return _SERVICE.format(python=_quoted(python), environment=environment)


def _quoted(text: str) -> str:
    """`text` as one word of a unit file: systemd.syntax(7), its `%` and `$`."""
    for letter, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(letter, escaped)
    return f'"{text}"' if any(letter.isspace() for letter in text) else text
