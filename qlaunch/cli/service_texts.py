"""What is in the unit files, comments included: people read them."""

SERVICE = """\
# Written by `qlaunch service install`. Changes of yours belong beside it: {edit} qlaunch
[Unit]
Description=qlaunch, which looks after virtual machines
Documentation=man:qlaunch(1)
StartLimitIntervalSec=30
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m qlaunch.supervisor --service {manager}
{environment}# Machines are in scopes of their own and outlive it, a restart or a kill included.
KillMode=process
Restart=on-failure
RestartSec=100ms
WatchdogSec=30
TimeoutStartSec=90
# When the computer goes down it asks the guests to power off first; each profile bounds that time
# ([lifecycle] stop_timeout). `qlaunch service status` says whether systemd waits so long.
TimeoutStopSec=infinity
OOMPolicy=continue
OOMScoreAdjust=0
UMask=0077

[Install]
WantedBy={target}
"""

MACHINE = """\
# Written by `qlaunch service install`. One for each machine: {edit} qlaunch@NAME
[Unit]
Description=the virtual machine %i
Documentation=man:qlaunch(1)
Wants=qlaunch.service
After=qlaunch.service

[Service]
Type=oneshot
RemainAfterExit=yes
{environment}Environment=QLAUNCH_UNIT=%i
ExecStart={python} -P -m qlaunch up %i
ExecStop=-{python} -P -m qlaunch down --force %i
TimeoutStopSec=infinity
KillMode=process

[Install]
WantedBy={target}
"""

SLICE = """\
# Written by `qlaunch service install`. Limits for all machines together: {edit} qlaunch.slice
[Unit]
Description=the virtual machines of qlaunch
Documentation=man:qlaunch(1)
"""
