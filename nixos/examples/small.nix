# Two cores, 4 GiB of memory, ext4: few threads, a small cache, few snapshots, and a limit that the service
# keeps below by itself.
{
  services.operation-dbus = {
    enable = true;
    btrfs = {
      # The directories are plain ones, and op-dbus doctor is not to ask for a mount option.
      enable = false;
      snapshotRetention = 6;
    };
    ml.numThreads = 2;
    logLevel = "warn";
    settings.cache = {
      max_size_gb = 0.25;
      disk_max_gb = 1;
    };
  };

  systemd.services.operation-dbus.serviceConfig.MemoryMax = "1G";
}
