"""qlaunch runs QEMU/KVM machines from commented TOML profiles, without libvirt."""

__version__ = "0.1.0"
