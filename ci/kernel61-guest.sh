#!/bin/bash
# What ci/kernel61 runs in the guest: life cycle and limits on kernel 6.1 with
# cgroup v2. Files of the same folder: platelayer, native.test, kernel.test,
# platelayer.test, probe, machine-state, platelayer.yaml (examples/hello),
# vlans.txtar, and of cmd/platelayer/testdata/firewalls beside.txtar and all.*.
set -euo pipefail
export PATH=/work:$PATH

say() { echo "--- $* (at $(cut -d' ' -f1 /proc/uptime) s)"; }

say doctor
platelayer doctor

# As systemd has it on every machine that it runs.
echo '+cpu +cpuset +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
machine-state >/tmp/before

say up
platelayer up platelayer.yaml
platelayer ps hello
ip netns list

say "a page of the other cluster, by name"
platelayer exec --name hello alice fetch http://dave.right.example/ | tee /tmp/page
grep -q dave /tmp/page

say down
platelayer down hello

say "nothing is left"
machine-state >/tmp/after
diff /tmp/before /tmp/after

say "limits of cgroup v2"
mkdir -p /tmp/limits/root/bin
cp /bin/busybox /tmp/limits/root/bin/
for program in sh sleep tail; do ln -s busybox "/tmp/limits/root/bin/$program"; done
cat >/tmp/limits/platelayer.yaml <<'EOF'
clusters:
  lan:
    stations:
      small: {rootfs: ./root, writable: memory, command: [/bin/sleep, infinity], mem_limit: 32m, pids_limit: 10}
EOF
platelayer up /tmp/limits/platelayer.yaml
group=/sys/fs/cgroup/platelayer/limits/limits.lan.small
tail -n +1 "$group"/{memory,pids}.max
code=0
platelayer exec --name limits small tail /dev/zero || code=$?
echo "tail /dev/zero ended with $code; $(grep '^oom_kill ' "$group/memory.events")"
((code == 137))
grep -qE '^oom_kill [1-9]' "$group/memory.events"
if platelayer exec --name limits small sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done' 2>&1; then
	echo "more processes than the limit"
	exit 1
fi
grep -qE '^max [1-9]' "$group/pids.events"
platelayer down limits

say "repair, change and a lost keeper"
mkdir /tmp/life
ln -s ../limits/root /tmp/life/root
cat >/tmp/life/platelayer.yaml <<'EOF'
backbone: {egress: none}
clusters:
  lan:
    subnet: 203.0.113.0/24
    stations:
      db:
        rootfs: ./root
        command: [/bin/sleep, infinity]
        restart: always
        startup: [/bin/busybox, touch, /well]
        healthcheck: {test: "/bin/busybox test -e /well", interval: 1s}
        mem_limit: 32m
      app: {rootfs: ./root, command: [/bin/sleep, infinity], depends_on: {db: {condition: service_healthy}}}
EOF
platelayer up /tmp/life/platelayer.yaml
sed -i 's/mem_limit: 32m/mem_limit: 48m/; s/subnet: .*/&\n    mtu: 1400/' /tmp/life/platelayer.yaml
platelayer plan /tmp/life/platelayer.yaml
platelayer up /tmp/life/platelayer.yaml
grep -qx 50331648 /sys/fs/cgroup/platelayer/life/life.lan.db/memory.max
ip netns exec life.lan.app ip link show eth0 | grep 'mtu 1400' >/tmp/found
platelayer pause --name life app
grep -qx 'frozen 1' /sys/fs/cgroup/platelayer/life/life.lan.app/cgroup.events
platelayer unpause --name life app
kill -9 "$(cat /sys/fs/cgroup/platelayer/life/keeper/cgroup.procs)"
platelayer kill --name life db # adopted first, or taken for a death without a keeper
for _ in $(seq 100); do
	if platelayer ps life | grep 'db .*running (healthy, 1 restart)' >/tmp/found; then break; fi
	sleep 0.1
done
platelayer ps life
platelayer ps life | grep 'db .*running (healthy, 1 restart)' >/tmp/found
platelayer events --name life
platelayer down life

# The machine's own programs are too few here for what host roots hide, and
# Docker's were told on the other kernel, where races are run many times too.
say "the engine's own tests"
PLATELAYER_PROBE=/work/probe native.test -test.skip 'TestHostRootHides|TestParent|TestAgainstDocker|TestNoGrowth|TestFilledFIFO|Exchanged' -test.v

say "limits of stations, changed while they run"
PLATELAYER_PROGRAM=/work/platelayer platelayer.test -test.run 'TestLimitsChangeInPlace|TestBlkioWeight|TestCPUShare' -test.short -test.v

say "changes of the network"
kernel.test -test.run 'ConvergeSends|ConvergeKeeps|OthersLoseNothing|AmendKeeps|AmendForeign' -test.short -test.v

# Machines that run CI may lack them.
say "VLANs"
mkdir -p testdata/script
mv vlans.txtar testdata/script/
PLATELAYER_PROGRAM=/work/platelayer platelayer.test -test.run 'TestScripts/vlans' -test.v | tee /tmp/vlans
grep -q -e '--- PASS: TestScripts/vlans' /tmp/vlans
kernel.test -test.run 'TestChangeIsLikeFromNothing/VLANs(_and_a_bridge.*)?$' -test.v | tee /tmp/vlans
(($(grep -c -e '--- PASS: TestChangeIsLikeFromNothing/VLANs' /tmp/vlans) == 2))

machine-state >/tmp/after
diff /tmp/before /tmp/after

# br_netfilter is a module here, and every firewall's tables.
say "beside Docker, ufw and firewalld"
read -ra modules </modules/later
load "${modules[@]}"
mkdir -p testdata/firewalls
mv all.* beside.txtar testdata/firewalls/
PLATELAYER_PROGRAM=/work/platelayer platelayer.test -test.run 'TestFirewalls/all$' -test.v >/tmp/firewalls || {
	cat /tmp/firewalls
	exit 1
}
grep -e '--- PASS: TestFirewalls/all/beside' /tmp/firewalls
say "all done"
