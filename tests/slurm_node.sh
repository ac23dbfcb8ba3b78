#!/usr/bin/env bash
# A real SLURM of one node, for the tests: munged, slurmctld and slurmd in one folder, without systemd.
#
#   tests/slurm_node.sh start DIR    brings it up and prints the SLURM_CONF to export; exit status 1 says why not
#   tests/slurm_node.sh stop DIR     ends its daemons
#
# Needs root and Debian's slurm-wlm and munge, which `start` installs where apt can.
set -euo pipefail
action=${1:?start or stop}
mkdir -p "${2:?a folder}"
dir=$(cd "$2" && pwd)

fail() {
  echo "no SLURM here: $*" >&2
  exit 1
}

stop() {
  for name in slurmd slurmctld munged; do
    if [ -f "$dir/$name.pid" ]; then
      kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
    fi
  done
}

if [ "$action" = stop ]; then
  stop
  exit 0
fi

[ "$(id -u)" = 0 ] || fail "its daemons need root"
if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
  command -v apt-get >/dev/null || fail "slurm-wlm and munge are not installed, and there is no apt"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge; } \
    >"$dir/apt.log" 2>&1 || fail "apt cannot install slurm-wlm and munge ($(tail -1 "$dir/apt.log"))"
fi

mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
chmod 711 "$dir/munge"
# munged refuses a key that others can read; it comes from this machine's own randomness.
head -c 1024 /dev/urandom >"$dir/munge.key"
chmod 600 "$dir/munge.key"
munged --force --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" >/dev/null 2>&1 || fail "munged: $(tail -1 "$dir/munged.log")"

host=$(hostname -s)
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
SlurmctldPort=${SLURM_TEST_PORT:-16817}
SlurmdPort=$((${SLURM_TEST_PORT:-16817} + 1))
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
# No cgroups and no accounting: a container has neither.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=1
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
slurmctld >"$dir/slurmctld.out" 2>&1 || fail "slurmctld: $(tail -1 "$dir/slurmctld.out")"
slurmd >"$dir/slurmd.out" 2>&1 || { stop; fail "slurmd: $(tail -1 "$dir/slurmd.out")"; }
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
    echo "$SLURM_CONF"
    exit 0
  fi
  sleep 0.5
done
stop
fail "the node does not become idle: $(tail -1 "$dir/slurmd.log"), $(tail -1 "$dir/slurmctld.log")"
