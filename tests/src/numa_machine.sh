# Runs the tests of NUMA placement on a machine of two nodes; see numa.rs.
cd /payload
mkdir -p out
exec >out/log 2>&1
uname -r
numactl --hardware
cat /sys/kernel/mm/transparent_hugepage/enabled
modprobe btrfs
mkdir -p /mnt/store
mount -t btrfs /dev/disk/by-label/opbtrfs /mnt/store || mount -t btrfs /dev/vdc /mnt/store
export OPDBUS_TEST_WITHOUT_MODEL=1
export TMPDIR=/mnt/store LD_LIBRARY_PATH=/payload/lib
if ./numa --test-threads 1 --nocapture --skip a_machine_of_two_nodes; then
    echo yes >out/passed
else
    echo no >out/passed
fi
