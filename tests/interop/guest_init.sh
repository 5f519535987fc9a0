#!/bin/busybox sh
# The guest's first process: file systems, modules, addresses, and then commands over HTTP (see guest.py) until the end.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
for module in /lib/modules/*.ko; do insmod "$module"; done
hostname guest
ip link set lo up
# the first interface carries commands, the second what is tested; both addresses are on the kernel's command line
for word in $(cat /proc/cmdline); do
  case $word in
    guest.control=*) ip address add "${word#*=}" dev eth0; ip link set eth0 up ;;
    guest.address=*) ip address add "${word#*=}" dev eth1; ip link set eth1 up ;;
    guest.port=*) port=${word#*=} ;;
  esac
done
syslogd -O /var/log/messages -S
httpd -p "$port" -h /srv
echo guest is ready
while :; do sleep 3600 & wait; done
