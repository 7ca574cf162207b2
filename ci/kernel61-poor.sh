#!/bin/bash
# What ci/kernel61 -b -k ipv6.disable=1 runs in the guest: what becomes of `up` as
# long as the kernel lacks modules, and that IPv6 is not needed. File of the same
# folder: platelayer.
set -euo pipefail
export PATH=/work:$PATH

say() { echo "--- $* (at $(cut -d' ' -f1 /proc/uptime) s)"; }

# file EGRESS CLUSTER STATION writes a topology, with more keys.
file() {
	cat >platelayer.yaml <<-EOF
		backbone: {egress: $1}
		clusters:
		  a: {${2:+$2, }subnet: 203.0.113.0/25, stations: {one: {${3-}}}}
		  b: {subnet: 203.0.113.128/25, stations: {two: }}
	EOF
}

# there tells what `up` could leave.
there() {
	ip -o link
	find /run/netns /run/platelayer /sys/fs/cgroup -mindepth 1 -type d ! -path '/run/platelayer/.locks*' 2>/dev/null || true
	cat /proc/self/mountinfo
}

# lacks TEXT: `up` ends with 6 and TEXT, a hint, and leaves nothing.
lacks() {
	local code=0
	there >/tmp/before
	platelayer up -n poor 2>/tmp/error || code=$?
	cat /tmp/error
	((code == 6))
	grep -q "$1" /tmp/error
	grep -q '^hint: ' /tmp/error
	there >/tmp/after
	diff /tmp/before /tmp/after
}

# works [URL]: `up` works, and stations reach each other, and with URL the machine
# them.
works() {
	platelayer up -n poor 2>&1 | tee /tmp/said
	platelayer exec -n poor one fetch -timeout 20s http://two/ >/tmp/page
	grep -q 'hello from two' /tmp/page
	if (($#)); then
		fetch -timeout 20s "$1" | tee /tmp/page
		grep -q 'hello from one' /tmp/page
	fi
	platelayer down poor
}

# tells MARK FEATURE...: what doctor says of them.
tells() {
	local mark=$1 feature
	shift
	platelayer doctor >/tmp/doctor || true
	for feature; do grep "^$mark *$feature:" /tmp/doctor; done
}

ln -s platelayer /work/fetch
# As systemd has it on every machine that it runs.
echo '+cpu +cpuset +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
say "no module"
file none
tells MISSING bridge
lacks 'support bridges'
load bridge
tells MISSING veth
lacks 'support veth'

say "no nftables, no IPv6"
load veth
tells MISSING 'overlay file system'
lacks 'lacks the file system overlay'
load overlay
tells ok bridge veth
tells absent IPv6 nftables 'connection tracking' 'transparent proxying'
platelayer doctor >/dev/null # nothing is missing that must be there
works
grep -q 'the machine has no routes to the stations: .*connection tracking by nftables' /tmp/said
file none 'isolated: true'
lacks 'support nftables'
file none '' 'ports: ["80"]'
lacks 'support transparent proxying'
file allow
lacks 'support transparent proxying'
file none '' 'addresses: [203.0.113.9, "2001:db8::9"]'
sed -i 's|subnet: 203.0.113.0/25|subnets: [203.0.113.0/25, "2001:db8::/64"]|' platelayer.yaml
lacks 'support IPv6'

say "nftables, without modules of their own"
load nf_tables
tells ok nftables
tells absent 'connection tracking' 'transparent proxying'
file none 'isolated: true'
platelayer up -n poor
if platelayer exec -n poor one fetch -timeout 3s http://two/; then exit 1; fi
platelayer down poor
file none '' 'ports: ["80"]'
lacks 'support transparent proxying'

say "connection tracking"
load nft_ct
tells ok 'connection tracking'
file none '' 'address: 203.0.113.9'
works http://203.0.113.9/

say "a part of transparent proxying"
load nft_tproxy
load nft_socket
file allow
lacks 'support transparent proxying'

say "all but IPv6"
load nft_reject_inet
tells ok 'transparent proxying' 'packet sockets'
tells absent IPv6 'ping sockets'
file allow '' 'address: 203.0.113.9, ports: ["8081:80"]'
platelayer up -n poor
fetch -timeout 20s http://127.0.0.1:8081/ | grep 'hello from one'

# Docker loads it when it starts: new bridges' packets would meet its rules.
say "br_netfilter comes while a topology is up"
nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'
load br_netfilter
cat /proc/sys/net/bridge/bridge-nf-call-iptables
platelayer exec -n poor one fetch -timeout 20s http://two/
fetch -timeout 20s http://203.0.113.9/
platelayer down poor
file allow '' 'address: 203.0.113.9, ports: ["8081:80"]'
works http://203.0.113.9/
say "all done"
