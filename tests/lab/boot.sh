#!/bin/sh
# boot.sh outer|inner WORK UID TOP VENV: systemd as PID 1 of namespaces of its own, see __init__.py.
#
# WORK/notify is the socket that is told when systemd is up, WORK/lab an empty folder to mount on.
# outer runs in a mount namespace of its own and stays until the lab has ended; inner becomes the
# lab's PID 1. Nothing is written to the disks of this computer: what the lab changes is in a tmpfs.
set -eu
stage=$1 work=$2 uid=$3 top=$4 venv=$5
lab=$work/lab
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

outer() {
    mount -t tmpfs -o size=512m,mode=755 lab "$lab"
    mkdir "$lab/root" "$lab/upper" "$lab/overlay" "$lab/cgroup"
    # A control group of our own, which looks like the root of all to the lab.
    mount -t cgroup2 cgroup2 "$lab/cgroup"
    group=cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/qlaunch-lab-$$
    leaf=$lab/$group
    mkdir "$leaf" "$leaf/session"
    ln -s "$group/session" "$lab/session"
    trap 'kill -KILL $child' TERM
    sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$leaf" \
        unshare --mount --pid --fork --kill-child --ipc --uts --cgroup --net --propagation private \
        sh "$0" inner "$work" "$uid" "$top" "$venv" &
    child=$!
    wait $child || wait $child || true
    find "$leaf" -depth -type d -exec rmdir {} +
}

devices() {
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        : >dev/$device
        mount --bind /dev/$device dev/$device
    done
    if [ -c /dev/net/tun ]; then
        mkdir dev/net
        : >dev/net/tun
        mount --bind /dev/net/tun dev/net/tun
    fi
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
}

file_systems() {
    mount -t overlay -o "lowerdir=/,upperdir=$lab/upper,workdir=$lab/overlay" overlay "$lab/root"
    cd "$lab/root"
    mkdir -p proc sys run tmp dev srv/qlaunch srv/root srv/venv
    mount --rbind "$top" srv/qlaunch
    mount --rbind "$venv" srv/venv
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount --bind proc/sys/net proc/sys/net  # that of the lab alone
    mount -o remount,bind,ro proc/sys  # most of it is the whole computer's
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    devices
    mkdir run/host run/lock
    mount --bind "$work" run/host
}

# The target that is booted, and none of what this computer has enabled for itself.
units() {
    for folder in usr/lib/systemd/system-generators usr/lib/systemd/system-environment-generators \
        usr/lib/systemd/system/*.target.wants etc/systemd; do
        [ ! -d "$folder" ] || mount -t tmpfs -o mode=755 tmpfs "$folder"
    done
    mkdir -p etc/systemd/system etc/systemd/user
    ln -s /dev/null etc/systemd/system/modprobe@.service  # would load modules into this kernel
    cat >etc/systemd/system/lab.target <<EOF
[Unit]
Requires=dbus.socket systemd-logind.service user@$uid.service
After=dbus.socket systemd-logind.service user@$uid.service
EOF
}

person() {
    echo "qlaunch-lab:x:$uid:$uid::/home/qlaunch-lab:/bin/sh" >>etc/passwd
    echo "qlaunch-lab:x:$uid:" >>etc/group
    echo "qlaunch-lab:*:19000:0:99999:7:::" >>etc/shadow
    mkdir -p home/qlaunch-lab var/lib/systemd/linger
    chown "$uid:$uid" home/qlaunch-lab
    : >var/lib/systemd/linger/qlaunch-lab
}

inner() {
    file_systems
    units
    person
    ip link set lo up
    hostname qlaunch-lab
    mkdir oldroot
    pivot_root . oldroot
    cd /
    umount -l /oldroot
    for init in /usr/lib/systemd/systemd /lib/systemd/systemd; do
        [ ! -x $init ] || exec env -i PATH="$PATH" container=qlaunch-lab TERM=dumb \
            NOTIFY_SOCKET=/run/host/notify $init --system --unit=lab.target </dev/null
    done
}

$stage
