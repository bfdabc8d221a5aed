# One processor with 8 cores, 32 GiB of memory, no card: nothing to pin, since all memory is as near.
{ pkgs, ... }:
{
  services.operation-dbus = {
    enable = true;
    # What it begins with; what is declared later is kept over rebuilds.
    stateFile = "/var/lib/op-dbus/state.json";
    defaultState = {
      version = "1.0";
      plugins.lxc.containers = { };
    };
    ml.numThreads = 8;
    plugins = with pkgs; [ operation-dbus-plugin-lxc ];
    extraEnvironment.OPDBUS_CACHE_MAX_SIZE_GB = "4";
  };

  fileSystems."/var/lib/op-dbus" = {
    device = "/dev/disk/by-label/op-dbus";
    fsType = "btrfs";
    options = [
      "compress=zstd:3"
      "user_subvol_rm_allowed"
    ];
  };
}
