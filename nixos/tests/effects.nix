# What each option does: a value that is not its default, and where that shows. The test module.nix holds
# this to the options that there are, so that none can be forgotten, or ignored.
#
# `shows` is a path into what system.nix makes of a configuration, where something else must stand than
# without the option; `as`, where it is given, is what.
lib: pkgs:
let
  setting = name: as: {
    inherit as;
    shows = [ "settings" ] ++ lib.splitString "." name;
  };
  service = key: as: {
    inherit as;
    shows = [
      "drop-ins"
      "operation-dbus.service"
      key
    ];
  };
  numa = {
    numa.enable = true;
  };
in
{
  enable = {
    value = false;
    shows = [ "drop-ins" ];
    as = { };
  };
  package = {
    value = pkgs.operation-dbus.override { operation-dbus-model = pkgs.runCommand "other" { } "mkdir $out"; };
    shows = [ "package" ];
  };
  user = {
    value = "svc";
    system.users.users.svc.isSystemUser = true;
    shows = [ "package" ];
  };
  group = {
    value = "admins";
    system.users.groups.admins = { };
  }
  // setting "daemon.group" "admins";
  stateFile = {
    value = "/var/lib/op-dbus/state.json";
  }
  // setting "state_file" "/var/lib/op-dbus/state.json";
  defaultState = {
    value = {
      version = "1.0";
      plugins.lxc.containers = { };
    };
    shows = [ "state" ];
    as.version = "1.0";
    as.plugins.lxc.containers = { };
  };
  "numa.enable" = {
    value = true;
  }
  // service "NUMAPolicy" "bind";
  "numa.node" = {
    value = 1;
    also = numa;
  }
  // service "NUMAMask" "1";
  "numa.cpuList" = {
    value = "4-7";
    also = numa;
  }
  // service "CPUAffinity" "4-7";
  "numa.balancing" = {
    value = false;
    shows = [ "kernelParams" ];
    as = [ "numa_balancing=disable" ];
  };
  "btrfs.enable" = {
    value = false;
  }
  // setting "btrfs.enable" false;
  "btrfs.basePath" = {
    value = "/srv/store";
  }
  // setting "btrfs.base_path" "/srv/store";
  "btrfs.compressionLevel" = {
    value = 9;
  }
  // setting "btrfs.compression_level" 9;
  "btrfs.snapshotRetention" = {
    value = 48;
  }
  // setting "btrfs.snapshot_retention" 48;
  "btrfs.subvolumes" = {
    value = [ "@state" ];
  }
  // setting "btrfs.subvolumes" [ "@state" ];
  "ml.enable" = {
    value = false;
  }
  // setting "ml.enable" false;
  "ml.executionProvider" = {
    value = "cuda";
    system.services.xserver.videoDrivers = [ "nvidia" ];
  }
  // setting "ml.execution_provider" "cuda";
  "ml.gpuDeviceId" = {
    value = 1;
  }
  // setting "ml.gpu_device_id" 1;
  "ml.numThreads" = {
    value = 8;
  }
  // setting "ml.num_threads" 8;
  "ml.modelPath" = {
    value = "/srv/model";
  }
  // setting "ml.model_path" "/srv/model";
  plugins = {
    value = [ pkgs.operation-dbus-plugin-lxc ];
    shows = [ "plugins" ];
  };
  logLevel = {
    value = "debug";
  }
  // service "Environment" [ "\"OPDBUS_LOG_LEVEL=debug\"" ];
  extraEnvironment = {
    value.OPDBUS_CACHE_MAX_SIZE_GB = "16";
  }
  // service "Environment" [
    "\"OPDBUS_CACHE_MAX_SIZE_GB=16\""
    "\"OPDBUS_LOG_LEVEL=info\""
  ];
  settings = {
    value.cache.max_size_gb = 16;
  }
  // setting "cache.max_size_gb" 16;
}
