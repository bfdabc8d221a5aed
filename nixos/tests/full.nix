# Everything that can be said, at once.
{ pkgs, ... }:
{
  services.operation-dbus = {
    enable = true;
    package = pkgs.operation-dbus;
    user = "op-dbus";
    group = "op-dbus";
    stateFile = "/var/lib/op-dbus/state.json";
    defaultState = {
      version = "1.0";
      plugins.lxc.containers = { };
    };
    numa = {
      enable = true;
      node = 0;
      cpuList = "0";
      balancing = false;
    };
    btrfs = {
      enable = true;
      basePath = "/var/lib/op-dbus";
      compressionLevel = 5;
      snapshotRetention = 2;
      subvolumes = [
        "@cache"
        "@vectors"
        "@state"
      ];
    };
    ml = {
      enable = true;
      executionProvider = "cpu";
      gpuDeviceId = 0;
      numThreads = 2;
      modelPath = null;
    };
    plugins = with pkgs; [
      operation-dbus-plugin-lxc
      operation-dbus-plugin-netmaker
      (callPackage ../plugins/template.nix { })
      (buildOperationDbusPlugin {
        name = "hostname";
        introspection = ./hostname/introspection.xml;
        mapping = ./hostname/semantic-mapping.toml;
      })
    ];
    logLevel = "debug";
    extraEnvironment = {
      OPDBUS_CACHE_MAX_SIZE_GB = "0.5";
      GREETING = "two words, 100 %h";
    };
    settings.daemon.calls_per_second = 500;
  };

  systemd.services.operation-dbus.serviceConfig.MemoryMax = "1G";
  systemd.services.operation-dbus.serviceConfig.MemoryHigh = "900M";
}
