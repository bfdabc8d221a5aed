# A machine with two NUMA nodes and BTRFS: the service is up and keeps to its node, a query is answered,
# nobody is refused who may ask and everybody else is, snapshots are taken, the plugin is listed.
{
  name = "operation-dbus";

  # The module brings an overlay.
  node.pkgsReadOnly = false;

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [ ../modules/operation-dbus.nix ];

      virtualisation = {
        cores = 4;
        memorySize = 4096;
        emptyDiskImages = [ 2048 ];
        qemu.options = [
          "-object memory-backend-ram,id=m0,size=2048M"
          "-object memory-backend-ram,id=m1,size=2048M"
          "-numa node,nodeid=0,cpus=0-1,memdev=m0"
          "-numa node,nodeid=1,cpus=2-3,memdev=m1"
        ];
        fileSystems."/var/lib/op-dbus" = {
          device = "/dev/vdb";
          fsType = "btrfs";
          autoFormat = true;
          options = [
            "compress=zstd:3"
            "user_subvol_rm_allowed"
          ];
        };
      };

      services.operation-dbus = {
        enable = true;
        numa = {
          enable = true;
          node = 1;
          cpuList = "2-3";
        };
        btrfs.snapshotRetention = 2;
        plugins = [
          pkgs.operation-dbus-plugin-lxc
          (pkgs.callPackage ../plugins/template.nix { })
        ];
        defaultState = {
          version = "1.0";
          plugins.notice.text = "declared";
        };
        extraEnvironment.OPDBUS_CACHE_MAX_SIZE_GB = "0.5";
      };

      users.users.reader = {
        isNormalUser = true;
        extraGroups = [ "op-dbus" ];
      };
      users.users.stranger.isNormalUser = true;
    };

  testScript = ''
    machine.wait_for_unit("operation-dbus.service")
    process = machine.succeed("systemctl show -P MainPID operation-dbus.service").strip()

    with subtest("it is pinned"):
        machine.succeed(f"grep -qx 'Cpus_allowed_list:\t2-3' /proc/{process}/status")
        machine.wait_until_succeeds(f"grep -qw bind:1 /proc/{process}/numa_maps")

    with subtest("it says what runs the model"):
        machine.wait_until_succeeds("journalctl -u operation-dbus | grep -q ML_PROVIDER=cpu")

    with subtest("who may ask is answered, and others are not"):
        call = "busctl call org.opdbus /org/opdbus org.opdbus.State1"
        machine.succeed(f"{call} Put ss greeting '\"hello\"'")
        machine.succeed(f"su reader -c '{call} Get s greeting' | grep -q hello")
        # What the bus offers is indexed first.
        machine.wait_until_succeeds("su reader -c 'op-dbus --bus system query \"set the time zone\"'")
        machine.fail(f"su stranger -c '{call} Get s greeting'")

    with subtest("plugins are there once each, and declared state is made true"):
        listed = machine.succeed("op-dbus plugin list")
        assert listed.count("hand-written") == 2, listed
        assert "failed" not in listed, listed
        machine.wait_for_unit("operation-dbus-state.service")
        machine.succeed("grep -qx declared /run/notice/text")

    with subtest("snapshots are taken, and so many stay"):
        machine.succeed("systemctl is-active op-dbus-snapshot.timer")
        for _ in range(3):
            machine.succeed("systemctl start op-dbus-snapshot.service")
            machine.sleep(1)
        machine.succeed("test $(op-dbus --bus system snapshot list | grep -c timer) -eq 2")
        machine.succeed("btrfs subvolume list /var/lib/op-dbus | grep -q '@state$'")

    with subtest("its sandbox holds"):
        machine.succeed("systemd-analyze security --threshold=10 operation-dbus.service")
  '';
}
