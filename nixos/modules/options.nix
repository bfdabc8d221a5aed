# The options of services.operation-dbus. What each does is in operation-dbus.nix.
{ lib, pkgs, ... }:
let
  inherit (lib) types mkOption mkEnableOption;
in
{
  options.services.operation-dbus = {
    enable = mkEnableOption "Operation D-Bus, which answers questions about this system on its bus";

    package = mkOption {
      type = types.package;
      default = pkgs.operation-dbus;
      defaultText = lib.literalExpression "pkgs.operation-dbus";
      description = "The programs, ONNX Runtime and the model. It is changed as `user`, `group` and `ml.executionProvider` need it.";
    };

    user = mkOption {
      type = types.str;
      default = "op-dbus";
      description = "Whom the service runs as. Another than this must exist.";
    };

    group = mkOption {
      type = types.str;
      default = "op-dbus";
      description = "Whose members may ask the service. Another than this must exist.";
    };

    stateFile = mkOption {
      type = types.path;
      default = "/etc/operation-dbus/state.json";
      example = "/var/lib/op-dbus/state.json";
      description = "Declared state, applied when the system starts. In `/etc/operation-dbus` it is `defaultState`, always, and applied when that changes, too; elsewhere `defaultState` is only what it begins with, and it survives rebuilds: what is edited there by hand is applied at the next start, or by `systemctl restart operation-dbus-state`.";
    };

    defaultState = mkOption {
      # Not types.attrs, which keeps only one module's plugins where several declare some.
      type = types.attrsOf (pkgs.formats.json { }).type;
      default = {
        version = "1.0";
        plugins = { };
      };
      description = "What is written to `stateFile`. Several modules may each declare a part.";
    };

    numa = {
      enable = mkEnableOption "pinning memory to one node and threads to CPUs: of the unit, and of the store";

      node = mkOption {
        type = types.int;
        default = 0;
        description = "The node whose memory is used, with `numa.enable`.";
      };

      cpuList = mkOption {
        type = types.str;
        default = "0-3";
        example = "0-15,32-47";
        description = "The CPUs that threads run on, with `numa.enable`; those of the node, as `numactl --hardware` lists them.";
      };

      balancing = mkOption {
        type = types.nullOr types.bool;
        default = null;
        description = "Whether the kernel moves memory between nodes by itself, for all programs of the machine (`numa_balancing=`); as the kernel has it if null. What is pinned stays where it is.";
      };
    };

    btrfs = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether directories of the store are made as subvolumes where there is BTRFS.";
      };

      basePath = mkOption {
        type = types.path;
        default = "/var/lib/op-dbus";
        description = "Directory of the store, which is given to the service: one that is for nothing else.";
      };

      compressionLevel = mkOption {
        type = types.int;
        default = 3;
        description = "Level of zstd, from 1 to 15, that `op-dbus doctor` holds the mount option `compress=zstd:N` to, which alone decides it; set that in `fileSystems`.";
      };

      snapshotRetention = mkOption {
        type = types.int;
        default = 24;
        description = "Snapshots that stay; one is taken each hour.";
      };

      subvolumes = mkOption {
        type = types.listOf types.str;
        default = [
          "@cache"
          "@timing"
          "@vectors"
          "@state"
        ];
        description = "Which directories of the store are made as subvolumes.";
      };
    };

    ml = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether texts become vectors by a model; without one, records and queries with texts are refused.";
      };

      executionProvider = mkOption {
        type = types.enum [
          "cpu"
          "cuda"
          "tensorrt"
        ];
        default = "cpu";
        description = "What runs the model. The others need a card of NVIDIA and its driver; there is no other in the place of what is asked for.";
      };

      gpuDeviceId = mkOption {
        type = types.int;
        default = 0;
        description = "Which card, by the number that `nvidia-smi` shows.";
      };

      numThreads = mkOption {
        type = types.int;
        default = 4;
        description = "Threads that run the model.";
      };

      modelPath = mkOption {
        type = types.nullOr types.path;
        default = null;
        description = "Directory with `model.onnx` and `tokenizer.json`; that of the package if null. A path without quotes is copied into the store of Nix; a string names a place that the service must see, not `/home` or `/tmp`.";
      };
    };

    plugins = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "with pkgs; [ operation-dbus-plugin-lxc ]";
      description = "Packages with a `plugin.toml`. Each is validated, and stands under its name in `/etc/operation-dbus/plugins`.";
    };

    logLevel = mkOption {
      type = types.enum [
        "error"
        "warn"
        "info"
        "debug"
        "trace"
      ];
      default = "info";
      description = "What the service logs.";
    };

    extraEnvironment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        OPDBUS_CACHE_MAX_SIZE_GB = "16";
      };
      description = "Further variables of the service. Those that begin with `OPDBUS_` must be known, and none may be that of another option.";
    };

    settings = mkOption {
      type = (pkgs.formats.toml { }).type;
      default = { };
      example = {
        cache.max_size_gb = 16;
        daemon.readers.secrets = [
          "anna"
          "@operators"
        ];
      };
      description = "Further settings of `/etc/operation-dbus/config.toml`, as `op-dbus config show` lists them; the whole file is checked when the system is built.";
    };
  };
}
