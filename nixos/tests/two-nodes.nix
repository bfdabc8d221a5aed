# The service on the second of two nodes, for a machine that has such.
{ pkgs, ... }:
{
  services.operation-dbus = {
    enable = true;
    numa = {
      enable = true;
      node = 1;
      cpuList = "2-3";
    };
    btrfs.snapshotRetention = 2;
    ml.numThreads = 2;
    plugins = [
      (pkgs.buildOperationDbusPlugin {
        name = "hostname";
        introspection = ./hostname/introspection.xml;
        mapping = ./hostname/semantic-mapping.toml;
      })
    ];
    extraEnvironment.OPDBUS_CACHE_MAX_SIZE_GB = "0.25";
  };
}
