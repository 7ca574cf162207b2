#!/bin/bash
# What ci/kernel61 runs in the guest: life cycle and limits on kernel 6.1 with
# cgroup v2. Files of the same folder: platelayer, native.test, machine-state,
# platelayer.yaml (examples/hello).
set -euo pipefail
export PATH=/work:$PATH

say() { echo "--- $* (at $(cut -d' ' -f1 /proc/uptime) s)"; }

say doctor
platelayer doctor

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
native.test -test.run 'OOM|Pids|Memory|Limit|Cgroup' -test.v

machine-state >/tmp/after
diff /tmp/before /tmp/after
say "all done"
