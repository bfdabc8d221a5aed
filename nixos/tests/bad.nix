# Configurations that must be refused, and a part of what is then said. An attribute is the options of
# services.operation-dbus; `system` beside them is the rest of a configuration.
lib:
let
  case = says: options: {
    inherit says options;
    system = { };
  };
  # A case for each path.
  each =
    name: options: says: paths:
    lib.listToAttrs (
      map (path: {
        name = "${name}-${path}";
        value = case says (options path);
      }) paths
    );
  inherit (lib) genAttrs;
  level = case "BTRFS takes levels of zstd from 1 to 15";
  list = case "it must be numbers and ranges with commas";
in
{
  level-0 = level { btrfs.compressionLevel = 0; };
  level-16 = level { btrfs.compressionLevel = 16; };
  level-of-the-guide = level { btrfs.compressionLevel = 19; };
  no-snapshots = case "systemd.timers.op-dbus-snapshot.enable = false" { btrfs.snapshotRetention = 0; };
  unknown-subvolume = case "a store has @cache, @timing, @vectors, @state" {
    btrfs.subvolumes = [ "@home" ];
  };
  subvolume-twice = case "one stands there twice" {
    btrfs.subvolumes = [
      "@cache"
      "@cache"
    ];
  };
  no-subvolumes = case "set btrfs.enable = false" { btrfs.subvolumes = [ ]; };
  no-threads = case "a model needs at least 1 thread" { ml.numThreads = 0; };
  card-below-0 = case "cards count from 0" { ml.gpuDeviceId = -1; };
  provider-without-model = case "set ml.enable = true or leave the provider out" {
    ml.enable = false;
    ml.executionProvider = "cuda";
  };
  path-without-model = case "set ml.enable = true or leave the path out" {
    ml.enable = false;
    ml.modelPath = "/srv/model";
  };
  card-without-driver = case "services.xserver.videoDrivers = [ \"nvidia\" ]" {
    ml.executionProvider = "cuda";
  };
  no-tensorrt =
    case "ONNX Runtime of nixpkgs is built without TensorRT" { ml.executionProvider = "tensorrt"; }
    // {
      system.services.xserver.videoDrivers = [ "nvidia" ];
    };
  package-that-is-fixed = case "make it by pkgs.callPackage" {
    package = derivation {
      name = "other";
      system = "x86_64-linux";
      builder = "/bin/sh";
    };
    user = "svc";
  };
  node-below-0 = case "nodes count from 0" { numa.node = -1; };
  cpus-empty = list { numa.cpuList = ""; };
  cpus-backwards = list { numa.cpuList = "3-0"; };
  cpus-open = list { numa.cpuList = "0-"; };
  cpus-words = list { numa.cpuList = "all"; };
  cpus-gap = list { numa.cpuList = "0,,1"; };
  cpus-spaces = list { numa.cpuList = "0 1"; };
  interleave-on-one-node = case "use bind or preferred" {
    numa.enable = true;
    settings.numa.policy = "interleave";
  };
  as-root = case "the service needs no rights" { user = "root"; };
  group-root = case "the service needs no rights" { group = "root"; };
  user-missing = case "set users.users.\"svc\"" { user = "svc"; };
  user-empty = case "there is no such user" { user = ""; };
  group-missing = case "set users.groups.\"admins\"" { group = "admins"; };
  state-in-the-nix-store = case "set defaultState" { stateFile = "/nix/store/x.json"; };
  state-as-a-path = case "set defaultState" { stateFile = ./bad.nix; };
  state-in-home = case "set defaultState" { stateFile = "/home/anna/state.json"; };
  model-in-home = case "write the path without quotes" { ml.modelPath = "/home/anna/model"; };
  model-in-tmp = case "write the path without quotes" { ml.modelPath = "/tmp//model"; };
  as-plugins = case "whom plugins run as" { user = "op-dbus-plugin"; };
  group-of-plugins = case "whom plugins run as" { group = "op-dbus-plugin"; };
  state-without-version = case "defaultState.version is null" { defaultState.plugins = { }; };
  state-of-version-2 = case "it must be \"1.0\"" {
    defaultState = {
      version = "2";
      plugins = { };
    };
  };
  state-without-plugins = case "must be the state of each plugin by its name" {
    defaultState.version = "1.0";
  };
  state-of-a-plugin-as-text = case "must be the state of each plugin by its name" {
    defaultState = {
      version = "1.0";
      plugins.lxc = "running";
    };
  };
  state-misspelt = case "put states of plugins under plugins" {
    defaultState = {
      version = "1.0";
      plugins = { };
      lxc = { };
    };
  };
  variable-with-a-line-end = case "a value is one line" { extraEnvironment.GREETING = "a\nb"; };
  variable-with-a-bad-name = case "a name has letters" { extraEnvironment."A-B" = "c"; };
}
# A store takes its directory for itself, whatever else is in it.
// each "store" (path: { btrfs.basePath = path; }) "name a directory of its own" [
  "/"
  "//"
  "/boot/store"
  "/dev/shm/store"
  "/etc/operation-dbus"
  "/home"
  "/home/anna/store"
  "/mnt/"
  "/nix"
  "/nix/store/x"
  "/opt"
  "/proc"
  "/root/store"
  "/run/store"
  "/srv"
  "/sys/fs/x"
  "/tmp"
  "/usr/local/store"
  "/var"
  "/var/cache"
  "/var/lib"
  "/var/lib/"
  "/var//lib"
  "/var/log"
  "/var/tmp/store"
]
// each "store" (path: { btrfs.basePath = path; }) "a path may have letters" [
  "/srv/a store"
  "/srv/100%"
  "/srv/\"store\""
  "/srv/../etc"
  "/srv/./store"
  "/srv/ünter"
]
// each "state" (path: { stateFile = path; }) "a path may have letters" [
  "/var/lib/op-dbus/the state.json"
  "/var/lib/op-dbus/%i.json"
  "/etc/operation-dbus/.."
  "/srv/state.json\nd /etc 0777"
]
// each "state" (path: { stateFile = path; }) "it must be a file in /etc/operation-dbus" [
  "/etc/state.json"
  "/etc/other/state.json"
  "/etc/operation-dbus"
  "/etc/operation-dbus/config.toml"
  "/etc//operation-dbus/config.toml"
  "/etc/operation-dbus/plugins"
  "/etc/operation-dbus/plugins/lxc.toml"
  "/etc/operation-dbus/states/state.json"
]
// each "state" (path: { stateFile = path; }) "it is a place that the state is written to" [
  "/dev/state.json"
  "/usr/share/state.json"
  "/run/state.json"
  "/var/lib"
  "/var/lib/op-dbus/"
]
# What has an option has no second place.
// lib.mapAttrs' (setting: options: {
  name = "setting-${setting}";
  value = case "${setting}, which" options;
}) (
  genAttrs [ "log_level" "state_file" "plugins" ] (name: {
    settings.${name} = "info";
  })
  // genAttrs [ "btrfs.enable" "ml.num_threads" "ml.model_path" "daemon.group" ] (name: {
    settings = lib.setAttrByPath (lib.splitString "." name) "4";
  })
  // {
    "numa.node" = {
      numa.enable = true;
      settings.numa.node = "0";
    };
  }
)
// lib.mapAttrs' (variable: _: {
  name = "variable-${variable}";
  value = case "${variable}, which" { extraEnvironment.${variable} = "1"; };
}) (
  genAttrs [
    "OPDBUS_CONFIG"
    "OPDBUS_LOG_LEVEL"
    "OPDBUS_STATE_FILE"
    "OPDBUS_PLUGINS"
    "OPDBUS_BTRFS_BASE_PATH"
    "OPDBUS_BTRFS_SNAPSHOT_RETENTION"
    "OPDBUS_ML_EXECUTION_PROVIDER"
    "OPDBUS_DAEMON_GROUP"
  ] lib.id
)
