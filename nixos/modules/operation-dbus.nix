# services.operation-dbus: the service, its settings, its plugins and its snapshots.
#
# Units, policies of the bus and of polkit are those of daemon/system, which the package brings with the
# paths of this system; NixOS adds what stands under systemd.services here as drop-ins. So there is one text
# of them for every distribution, with its sandbox, and whoever extends a unit (MemoryMax) does as here.
#
# Settings go into /etc/operation-dbus/config.toml, for the service as for op-dbus in a terminal. What only
# the service is to do (how much it logs) are variables of its unit.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cfg = config.services.operation-dbus;

  toml = pkgs.formats.toml { };

  # What an option is unless it is said.
  unless = options.services.operation-dbus;
  # Whom plugins run as that do not say it.
  pluginName = "op-dbus-plugin";
  defaultName = unless.user.default;
  defaultPath = unless.btrfs.basePath.default;
  subvolumes = unless.btrfs.subvolumes.default;

  isOnCard = cfg.ml.enable && cfg.ml.executionProvider != "cpu";

  # What the package is asked to be otherwise.
  adapted =
    lib.optionalAttrs (cfg.user != defaultName) { inherit (cfg) user; }
    // lib.optionalAttrs (cfg.group != defaultName) { inherit (cfg) group; }
    // lib.optionalAttrs (isOnCard && !(cfg.package.cudaSupport or false)) { cudaSupport = true; };
  package = if adapted == { } then cfg.package else cfg.package.override adapted;
  op-dbus = "${package}/bin/op-dbus";

  partsOf = path: lib.filter (part: part != "") (lib.splitString "/" (toString path));
  # More slashes than it takes, as at the end, name nothing else.
  plain = path: "/" + lib.concatStringsSep "/" (partsOf path);
  basePath = plain cfg.btrfs.basePath;
  stateFile = plain cfg.stateFile;

  # Settings by the option that says them, which says them alone.
  ofOptions = {
    state_file = {
      option = "stateFile";
      value = stateFile;
    };
    "btrfs.enable" = {
      option = "btrfs.enable";
      value = cfg.btrfs.enable;
    };
    "btrfs.base_path" = {
      option = "btrfs.basePath";
      value = basePath;
    };
    "btrfs.compression_level" = {
      option = "btrfs.compressionLevel";
      value = cfg.btrfs.compressionLevel;
    };
    "btrfs.snapshot_retention" = {
      option = "btrfs.snapshotRetention";
      value = cfg.btrfs.snapshotRetention;
    };
    "btrfs.subvolumes" = {
      option = "btrfs.subvolumes";
      value = cfg.btrfs.subvolumes;
    };
    "ml.enable" = {
      option = "ml.enable";
      value = cfg.ml.enable;
    };
    "ml.execution_provider" = {
      option = "ml.executionProvider";
      value = cfg.ml.executionProvider;
    };
    "ml.gpu_device_id" = {
      option = "ml.gpuDeviceId";
      value = cfg.ml.gpuDeviceId;
    };
    "ml.num_threads" = {
      option = "ml.numThreads";
      value = cfg.ml.numThreads;
    };
    "ml.model_path" = {
      option = "ml.modelPath";
      # A path of the configuration becomes one of the store of Nix; a string names what is there.
      value = if cfg.ml.modelPath == null then null else "${cfg.ml.modelPath}";
    };
    "daemon.group" = {
      option = "group";
      value = cfg.group;
    };
  }
  // lib.optionalAttrs cfg.numa.enable {
    "numa.enable" = {
      option = "numa.enable";
      value = true;
    };
    "numa.node" = {
      option = "numa.node";
      value = toString cfg.numa.node;
    };
    "numa.cpu_list" = {
      option = "numa.cpuList";
      value = cfg.numa.cpuList;
    };
  };
  # Those that are not in the file, and that it must not contradict.
  elsewhere = {
    log_level.option = "logLevel";
    plugins.option = "plugins";
  };
  taken = ofOptions // elsewhere;

  pathOf = lib.splitString ".";
  variableOf = setting: "OPDBUS_" + lib.toUpper (lib.replaceStrings [ "." ] [ "_" ] setting);

  settings = lib.foldl' (
    all: name: lib.recursiveUpdate all (lib.setAttrByPath (pathOf name) ofOptions.${name}.value)
  ) cfg.settings (lib.attrNames (lib.filterAttrs (_: it: it.value != null) ofOptions));

  # The file, if op-dbus takes it, together with the variables of the service.
  configFile =
    pkgs.runCommand "config.toml"
      {
        # For nix eval: what is in it.
        passthru = { inherit settings; };
        file = toml.generate "operation-dbus-config.toml" settings;
        variables = pkgs.writeText "operation-dbus-environment" (
          lib.concatMapStrings (line: line + "\n") (
            lib.mapAttrsToList (name: value: "${name}=${value}") cfg.extraEnvironment
          )
        );
      }
      ''
        cp $file config.toml
        ${op-dbus} config check config.toml
        # Values of variables may have spaces; names have none.
        mapfile -t lines <$variables
        env "''${lines[@]}" ${op-dbus} --config config.toml config show >/dev/null
        cp config.toml $out
      '';

  stateJson = pkgs.writeText "operation-dbus-state.json" (builtins.toJSON cfg.defaultState);

  isBelow = places: path: lib.any (place: lib.hasPrefix "${place}/" "${path}/") places;
  isStateInEtc = isBelow [ "/etc" ] stateFile;
  # What the sandbox of the service hides.
  unseenPlaces = [
    "/dev"
    "/home"
    "/root"
    "/run/user"
    "/tmp"
    "/var/tmp"
  ];
  # Where nothing is ours to make, or nothing stays.
  foreignPlaces = unseenPlaces ++ [
    "/bin"
    "/boot"
    "/lib"
    "/lib64"
    "/nix"
    "/proc"
    "/run"
    "/sbin"
    "/sys"
    "/usr"
    "/var/run"
  ];
  # Directories that many share, and that tmpfiles would give to the service. One of its own may be below.
  sharedPlaces = [
    "/"
    "/media"
    "/mnt"
    "/opt"
    "/srv"
    "/var"
    "/var/cache"
    "/var/db"
    "/var/empty"
    "/var/lib"
    "/var/lib/nixos"
    "/var/lib/private"
    "/var/lib/systemd"
    "/var/log"
    "/var/spool"
  ];
  # Nothing that has a meaning in a line of a unit or of tmpfiles, and no way to a place refused above.
  needsNoQuotes =
    path:
    builtins.match "[A-Za-z0-9._/@:+=,-]+" path != null
    && !lib.elem "." (partsOf path)
    && !lib.elem ".." (partsOf path);
  quoteless = "a path may have letters, digits and ._/@:+=,- and no part . or .., because units and rules of tmpfiles name it; choose another";

  # Every plugin as a directory of its name, and its plugin.toml beside that under the same name.
  pluginDirectory =
    pkgs.runCommand "operation-dbus-plugins" { plugins = map (plugin: "${plugin}") cfg.plugins; }
      ''
        mkdir $out
        for plugin in $plugins; do
          # Copied, because whoever builds may not see whose files the store's are, and op-dbus believes
          # only root's and its own.
          rm -rf plugin
          cp -rL $plugin plugin
          chmod -R u+w,go-w plugin
          ${op-dbus} plugin validate plugin | tee said
          name=$(sed -n 's/^plugin: plugin \(.*\) is right$/\1/p' said)
          if [ -e $out/$name ]; then
            echo "services.operation-dbus.plugins: two plugins are called $name; leave one out" >&2
            exit 1
          fi
          ln -s $plugin $out/$name
          ln -s $name/plugin.toml $out/$name.toml
        done
      '';

  hasNvidia =
    (config.hardware.nvidia.enabled or false)
    || lib.elem "nvidia" (config.services.xserver.videoDrivers or [ ]);

  # Whoever only asks the service has no memory to place, and no right to.
  asksOnly = lib.optionalAttrs (cfg.numa.enable || cfg.settings ? numa) {
    OPDBUS_NUMA_ENABLE = "false";
  };

  numaPolicy = cfg.settings.numa.policy or "bind";

  isCpuList =
    text:
    let
      ranges = lib.splitString "," text;
      isRange =
        range:
        let
          ends = map lib.toIntBase10 (lib.splitString "-" range);
        in
        builtins.match "[0-9]{1,5}(-[0-9]{1,5})?" range != null && lib.head ends <= lib.last ends;
    in
    lib.all isRange ranges;

  says = path: value: "services.operation-dbus.${path} is ${builtins.toJSON value}";

  assertions = [
    {
      assertion = cfg.btrfs.compressionLevel >= 1 && cfg.btrfs.compressionLevel <= 15;
      message = "${says "btrfs.compressionLevel" cfg.btrfs.compressionLevel}: BTRFS takes levels of zstd from 1 to 15; set one of those.";
    }
    {
      assertion = cfg.btrfs.snapshotRetention >= 1;
      message = "${says "btrfs.snapshotRetention" cfg.btrfs.snapshotRetention}: at least 1 snapshot stays; to take none, set systemd.timers.op-dbus-snapshot.enable = false.";
    }
    {
      assertion = lib.all (name: lib.elem name subvolumes) cfg.btrfs.subvolumes;
      message = "${says "btrfs.subvolumes" cfg.btrfs.subvolumes}: a store has ${lib.concatStringsSep ", " subvolumes}; name only those.";
    }
    {
      assertion = lib.allUnique cfg.btrfs.subvolumes;
      message = "${says "btrfs.subvolumes" cfg.btrfs.subvolumes}: one stands there twice; name each once.";
    }
    {
      assertion = cfg.btrfs.enable -> cfg.btrfs.subvolumes != [ ];
      message = "${says "btrfs.subvolumes" cfg.btrfs.subvolumes}: for directories instead of subvolumes set btrfs.enable = false.";
    }
    {
      assertion = !isBelow (foreignPlaces ++ [ "/etc" ]) basePath && !lib.elem basePath sharedPlaces;
      message = "${says "btrfs.basePath" basePath}: the service cannot keep a store there; name a directory of its own, such as /var/lib/op-dbus or /srv/op-dbus.";
    }
    {
      assertion = needsNoQuotes basePath;
      message = "${says "btrfs.basePath" basePath}: ${quoteless}.";
    }
    {
      assertion = cfg.ml.numThreads >= 1;
      message = "${says "ml.numThreads" cfg.ml.numThreads}: a model needs at least 1 thread; to use none, set ml.enable = false.";
    }
    {
      assertion = cfg.ml.gpuDeviceId >= 0;
      message = "${says "ml.gpuDeviceId" cfg.ml.gpuDeviceId}: cards count from 0, as nvidia-smi shows them.";
    }
    {
      assertion = cfg.ml.executionProvider != "cpu" -> cfg.ml.enable;
      message = "${says "ml.executionProvider" cfg.ml.executionProvider} and ml.enable is false: no model runs; set ml.enable = true or leave the provider out.";
    }
    {
      assertion = cfg.ml.modelPath != null -> cfg.ml.enable;
      message = "${says "ml.modelPath" (toString cfg.ml.modelPath)} and ml.enable is false: no model is read; set ml.enable = true or leave the path out.";
    }
    {
      assertion = builtins.isPath cfg.ml.modelPath || !isBelow unseenPlaces (plain cfg.ml.modelPath);
      message = "${says "ml.modelPath" (toString cfg.ml.modelPath)}: the service does not see what is there; write the path without quotes, which copies it into the store of Nix, or move the directory to such a place as /srv/model.";
    }
    {
      assertion = isOnCard -> hasNvidia;
      message = "${says "ml.executionProvider" cfg.ml.executionProvider}: this system has no NVIDIA driver; set services.xserver.videoDrivers = [ \"nvidia\" ], hardware.graphics.enable = true and hardware.nvidia.open, or executionProvider = \"cpu\".";
    }
    {
      assertion =
        cfg.ml.enable && cfg.ml.executionProvider == "tensorrt" -> cfg.package.tensorrtSupport or false;
      message = "${says "ml.executionProvider" "tensorrt"}: ONNX Runtime of nixpkgs is built without TensorRT; set package = pkgs.operation-dbus.override { onnxruntime = …; tensorrtSupport = true; } with one that has it, or executionProvider = \"cuda\".";
    }
    {
      assertion = adapted == { } || cfg.package ? override;
      message = "services.operation-dbus.package cannot be changed to ${builtins.toJSON adapted}; make it by pkgs.callPackage ${toString ../package.nix}, or leave these options as they are.";
    }
    {
      assertion = cfg.numa.node >= 0;
      message = "${says "numa.node" cfg.numa.node}: nodes count from 0, as numactl --hardware shows them.";
    }
    {
      assertion = isCpuList cfg.numa.cpuList;
      message = "${says "numa.cpuList" cfg.numa.cpuList}: it must be numbers and ranges with commas between them, such as \"0-3,8\".";
    }
    {
      assertion =
        cfg.numa.enable
        -> lib.elem numaPolicy [
          "bind"
          "preferred"
        ];
      message = "${says "settings.numa.policy" numaPolicy} and numa.enable is true, which is for one node: use bind or preferred, or set numa.enable = false and all of settings.numa yourself.";
    }
    {
      assertion = cfg.user != "root" && cfg.group != "root";
      message = "services.operation-dbus.user or group is root: the service needs no rights; leave them as they are, or name a system user.";
    }
    {
      assertion = cfg.user != pluginName && cfg.group != pluginName;
      message = "services.operation-dbus.user or group is ${pluginName}, whom plugins run as: they are other people's programs and must not reach the store; leave them as they are, or name others.";
    }
    {
      assertion = cfg.user != "" && config.users.users ? ${cfg.user};
      message = "${says "user" cfg.user}: there is no such user; set users.users.${builtins.toJSON cfg.user}, or leave the option as it is.";
    }
    {
      assertion = cfg.group != "" && config.users.groups ? ${cfg.group};
      message = "${says "group" cfg.group}: there is no such group; set users.groups.${builtins.toJSON cfg.group}, or leave the option as it is.";
    }
    {
      assertion =
        !isBelow foreignPlaces stateFile
        && !lib.elem stateFile (sharedPlaces ++ [ basePath ])
        && !builtins.isPath cfg.stateFile;
      message = "${says "stateFile" stateFile}: it is a place that the state is written to, such as /var/lib/op-dbus/state.json, and not the state; set defaultState to that.";
    }
    {
      assertion =
        isStateInEtc
        ->
          dirOf stateFile == "/etc/operation-dbus"
          && !lib.elem (baseNameOf stateFile) [
            "config.toml"
            "plugins"
          ];
      message = "${says "stateFile" stateFile}: in /etc it must be a file in /etc/operation-dbus, such as state.json, and not config.toml or plugins, which have something else.";
    }
    {
      assertion = needsNoQuotes stateFile;
      message = "${says "stateFile" stateFile}: ${quoteless}.";
    }
    {
      assertion = cfg.defaultState.version or null == "1.0";
      message = "${says "defaultState.version" (cfg.defaultState.version or null)}: it must be \"1.0\".";
    }
    {
      assertion =
        lib.isAttrs (cfg.defaultState.plugins or null)
        && lib.all lib.isAttrs (lib.attrValues cfg.defaultState.plugins);
      message = "services.operation-dbus.defaultState.plugins must be the state of each plugin by its name: plugins.lxc = { … }; or plugins = { };.";
    }
    {
      assertion =
        lib.subtractLists [
          "version"
          "plugins"
        ] (lib.attrNames cfg.defaultState) == [ ];
      message = "services.operation-dbus.defaultState has ${
        lib.concatStringsSep ", " (lib.attrNames cfg.defaultState)
      }: it may have version and plugins; put states of plugins under plugins.";
    }
  ]
  ++ map (name: {
    assertion = !lib.hasAttrByPath (pathOf name) cfg.settings;
    message = "services.operation-dbus.settings has ${name}, which ${taken.${name}.option} says: set services.operation-dbus.${taken.${name}.option} instead.";
  }) (lib.attrNames taken)
  # Another file would take the place of all settings.
  ++ lib.mapAttrsToList (
    name:
    { option, ... }:
    {
      assertion = !cfg.extraEnvironment ? ${variableOf name};
      message = "services.operation-dbus.extraEnvironment has ${variableOf name}, which ${option} says: set services.operation-dbus.${option} instead.";
    }
  ) (taken // { config.option = "settings"; })
  ++ lib.mapAttrsToList (name: value: {
    assertion =
      builtins.match "[A-Za-z_][A-Za-z0-9_]*" name != null && builtins.match ".*[\n].*" value == null;
    message = "services.operation-dbus.extraEnvironment has ${builtins.toJSON name} = ${builtins.toJSON value}: a name has letters, digits and _, and a value is one line.";
  }) cfg.extraEnvironment;
in
{
  imports = [ ./options.nix ];

  config = lib.mkMerge [
    {
      # Whoever lists plugins takes them from pkgs. Before other overlays, so that those can change what is
      # here. Where packages are given ready-made, as by nixpkgs.nixosModules.readOnlyPkgs, no module may say
      # anything of them: they have the overlay already, or there is no package to be the default.
      nixpkgs = lib.optionalAttrs (!(options.nixpkgs.overlays.internal or false)) {
        overlays = lib.mkBefore [ (import ../overlay.nix) ];
      };
    }

    (lib.mkIf cfg.enable {
      inherit assertions;

      # Here, not in the default: who adds a setting of the daemon keeps it.
      services.operation-dbus.settings.daemon.interfaces = lib.mkDefault [
        "/run/current-system/sw/share/dbus-1/interfaces"
      ];

      environment.systemPackages = [ package ];
      environment.etc = {
        "operation-dbus/config.toml".source = configFile;
        "operation-dbus/plugins".source = pluginDirectory;
      }
      // lib.optionalAttrs isStateInEtc {
        ${lib.removePrefix "/etc/" stateFile}.source = stateJson;
      };

      services.dbus.packages = [ package ];
      security.polkit.enable = true;

      users.users = {
        # Plugins are other people's programs, and have nothing to do with the store.
        ${pluginName} = {
          isSystemUser = true;
          group = pluginName;
          description = "Plugins of Operation D-Bus";
        };
      }
      // lib.optionalAttrs (cfg.user == defaultName) {
        ${defaultName} = {
          isSystemUser = true;
          group = cfg.group;
          description = "Operation D-Bus";
          home = basePath;
        };
      };
      users.groups = {
        ${pluginName} = { };
      }
      // lib.optionalAttrs (cfg.group == defaultName) { ${defaultName} = { }; };

      systemd.tmpfiles.rules = [
        "d ${basePath} 0750 ${cfg.user} ${cfg.group} -"
      ]
      # LXC's templates keep here what they download. NixOS does not make it, and the plugin, which may write
      # to it, may not make it.
      ++ lib.optional (config.virtualisation.lxc.enable or false) "d /var/cache/lxc 0700 root root -"
      ++ lib.optional (!isStateInEtc) "C ${stateFile} 0640 ${cfg.user} ${cfg.group} - ${stateJson}";

      systemd.packages = [ package ];

      systemd.services.operation-dbus = {
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [
          configFile
          pluginDirectory
        ];
        unitConfig.RequiresMountsFor = [ basePath ];
        environment = {
          OPDBUS_LOG_LEVEL = cfg.logLevel;
        }
        # Where NixOS has the libraries of the driver.
        // lib.optionalAttrs isOnCard { LD_LIBRARY_PATH = "/run/opengl-driver/lib"; }
        # A % of a value would begin a name that systemd replaces.
        // lib.mapAttrs (_: lib.replaceStrings [ "%" ] [ "%%" ]) cfg.extraEnvironment;
        serviceConfig =
          lib.optionalAttrs (basePath != defaultPath) {
            ReadWritePaths = [ basePath ];
          }
          // lib.optionalAttrs cfg.numa.enable {
            NUMAPolicy = numaPolicy;
            NUMAMask = toString cfg.numa.node;
            CPUAffinity = cfg.numa.cpuList;
          }
          // lib.optionalAttrs isOnCard {
            PrivateDevices = false;
            DevicePolicy = "closed";
            DeviceAllow = [ "char-nvidia* rw" ];
            # Code for the card is made when it is known.
            MemoryDenyWriteExecute = false;
          };
      };

      # One that runs would go on as the version that it was started as.
      systemd.services."op-dbus-plugin@".restartTriggers = [ pluginDirectory ];

      systemd.services.op-dbus-snapshot = {
        environment = asksOnly;
        serviceConfig = lib.optionalAttrs (basePath != defaultPath) {
          InaccessiblePaths = [ "-${basePath}" ];
        };
      };
      systemd.timers.op-dbus-snapshot.wantedBy = [ "timers.target" ];

      # The service does not change a system by itself: somebody asks it to, as here root does.
      systemd.services.operation-dbus-state = {
        description = "Declared state of Operation D-Bus";
        wants = [ "operation-dbus.service" ];
        after = [
          "operation-dbus.service"
          "sockets.target"
        ];
        # Nothing declared in a file that only a rebuild changes is nothing to do.
        wantedBy = lib.optional (
          !isStateInEtc || cfg.defaultState.plugins or { } != { }
        ) "multi-user.target";
        restartTriggers = [ stateJson ];
        environment = asksOnly;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${op-dbus} --bus system state apply";
          # A plugin may take its time, and they come one after the other.
          TimeoutStartSec = "1h";
          # The file may be the service's own, and nobody else's to read.
          CapabilityBoundingSet = "CAP_DAC_READ_SEARCH";
          AmbientCapabilities = "";
          NoNewPrivileges = true;
          ProtectSystem = "strict";
          ProtectHome = true;
          PrivateTmp = true;
          PrivateDevices = true;
          PrivateNetwork = true;
          PrivateMounts = true;
          RestrictAddressFamilies = "AF_UNIX";
          IPAddressDeny = "any";
          ProtectClock = true;
          ProtectControlGroups = true;
          ProtectHostname = true;
          ProtectKernelLogs = true;
          ProtectKernelModules = true;
          ProtectKernelTunables = true;
          ProtectProc = "invisible";
          ProcSubset = "pid";
          RestrictNamespaces = true;
          RestrictRealtime = true;
          RestrictSUIDSGID = true;
          LockPersonality = true;
          MemoryDenyWriteExecute = true;
          SystemCallArchitectures = "native";
          SystemCallFilter = [
            "@system-service"
            "~@privileged @resources"
          ];
          SystemCallErrorNumber = "EPERM";
          UMask = "0077";
        };
      };

      boot.kernelParams = lib.optional (
        cfg.numa.balancing != null
      ) "numa_balancing=${if cfg.numa.balancing then "enable" else "disable"}";
    })
  ];
}
