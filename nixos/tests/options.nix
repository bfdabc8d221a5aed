# The options of NixOS that the module sets or reads, and that examples use, with their types. NixOS itself
# declares them where there is a whole nixpkgs; a name that is not here is an error, as it would be there.
{ lib, ... }:
let
  inherit (lib) types;
  option = type: default: lib.mkOption { inherit type default; };
  strings = option (types.listOf types.str) [ ];
  # What a line of a unit may be; several of it are several lines.
  unitValue = types.oneOf [
    types.bool
    types.int
    types.str
    types.path
    (types.listOf (
      types.oneOf [
        types.str
        types.path
      ]
    ))
  ];
  unit = {
    enable = option types.bool true;
    description = option types.str "";
    wants = strings;
    requires = strings;
    after = strings;
    wantedBy = strings;
    unitConfig = option (types.attrsOf unitValue) { };
  };
  sub = options: types.attrsOf (types.submodule { inherit options; });
in
{
  options = {
    assertions = option (types.listOf types.unspecified) [ ];
    boot.kernelParams = strings;
    environment.systemPackages = option (types.listOf types.package) [ ];
    environment.etc = option (sub { source = lib.mkOption { type = types.path; }; }) { };
    fileSystems = option (sub {
      device = lib.mkOption { type = types.str; };
      fsType = lib.mkOption { type = types.str; };
      options = strings;
    }) { };
    hardware.graphics.enable = option types.bool false;
    hardware.nvidia.open = option types.bool false;
    nixpkgs.config.allowUnfree = option types.bool false;
    security.polkit.enable = option types.bool false;
    services.dbus.packages = option (types.listOf types.path) [ ];
    services.xserver.videoDrivers = strings;
    systemd.packages = option (types.listOf types.package) [ ];
    systemd.services = option (sub (
      unit
      // {
        restartTriggers = option (types.listOf types.unspecified) [ ];
        environment = option (types.attrsOf (types.nullOr types.str)) { };
        serviceConfig = option (types.attrsOf unitValue) { };
      }
    )) { };
    systemd.timers = option (sub (unit // { timerConfig = option (types.attrsOf unitValue) { }; })) { };
    systemd.tmpfiles.rules = strings;
    # Of machines that tests make.
    virtualisation = option (types.attrsOf types.anything) { };
    users.users = option (sub {
      isSystemUser = option types.bool false;
      isNormalUser = option types.bool false;
      extraGroups = strings;
      group = option types.str "";
      description = option types.str "";
      home = option types.str "/var/empty";
    }) { };
    users.groups = option (sub { members = strings; }) { };
  };
}
