#!/bin/sh
# A router: FRR's zebra puts routes into the kernel, ospfd and bgpd learn them.
set -eu
mkdir -p /run/frr
chown frr:frr /run/frr
for daemon in zebra ospfd; do
	/usr/lib/frr/$daemon -d -f /conf/$daemon.conf
done
exec /usr/lib/frr/bgpd -f /conf/bgpd.conf
