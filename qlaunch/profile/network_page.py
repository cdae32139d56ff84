"""The words at the top of the reference page of networks."""

NETWORK_INTRODUCTION = """\
# Networks

<!-- Written by `make golden` from qlaunch/profile; edit it there. -->

A network is one TOML file. Its name is the file's: `lab.toml` is the network `lab`.

| where | whose |
| --- | --- |
| `/etc/qlaunch/networks` | the system's: `qlaunch-netd`, which root runs, makes them |
| `$XDG_CONFIG_HOME/qlaunch/networks` (`~/.config/qlaunch/networks`) | yours, made without root |
| shipped with qlaunch | `default`; a file of that name in one of the folders replaces it |

This is a whole one, like the default network of libvirt:

```toml
schema = 1
mode = "nat"              # guests reach the outside behind this computer's address
address = "auto"          # this computer is .1 of the first /24 that nobody uses
ipv6 = "auto"             # and has a private prefix; guests get theirs by themselves
```

A machine gets on it with `network = "lab"` in its `[[nic]]`. The network is made when the first
machine needs it, mended when somebody breaks it, and stays until `qlaunch net down lab`. (Yours,
without root, goes with its last machine, unless you made it yourself with `qlaunch net up lab`.)

Values are written as in [profiles](profile.md#how-values-are-written).
`qlaunch net plan` shows what would be done before anything is.

## At the top of the file

These come before the first `[table]`.

"""
