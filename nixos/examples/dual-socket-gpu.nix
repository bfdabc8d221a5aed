# Two processors, of which the first has 16 cores with two threads each, 128 GiB of memory, and a card.
# The service keeps to the processor that the card is attached to: here node 0, as
# `nvidia-smi topo --matrix` shows it.
{ pkgs, ... }:
{
  services.operation-dbus = {
    enable = true;
    numa = {
      enable = true;
      node = 0;
      cpuList = "0-15,32-47";
      # For all that is not pinned.
      balancing = true;
    };
    btrfs.snapshotRetention = 48;
    ml = {
      executionProvider = "cuda";
      gpuDeviceId = 0;
      # They prepare what the card computes.
      numThreads = 8;
    };
    plugins = with pkgs; [
      operation-dbus-plugin-lxc
      operation-dbus-plugin-netmaker
    ];
    extraEnvironment = {
      OPDBUS_CACHE_MAX_SIZE_GB = "16";
      OPDBUS_ML_GPU_MEMORY_MAX_GB = "4";
    };
  };

  # What 70 % of is not less than the cache.
  systemd.services.operation-dbus.serviceConfig = {
    MemoryMax = "32G";
    MemoryHigh = "28G";
  };

  fileSystems."/var/lib/op-dbus" = {
    device = "/dev/disk/by-label/op-dbus";
    fsType = "btrfs";
    options = [
      "compress=zstd:3"
      "user_subvol_rm_allowed"
      "noatime"
    ];
  };

  nixpkgs.config.allowUnfree = true;
  services.xserver.videoDrivers = [ "nvidia" ];
  hardware.graphics.enable = true;
  hardware.nvidia.open = true;
}
