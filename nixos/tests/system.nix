# What of a configuration a system gets: its files, and its units as NixOS puts them together. A unit that a
# package brings is extended by a drop-in, <unit>.d/overrides.conf; another is a file of its own.
{ lib, pkgs }:
config:
let
  inherit (config) systemd;

  lines =
    section: values:
    let
      one =
        name: value:
        if lib.isList value then
          map (part: "${name}=${toString part}") value
        else
          [ "${name}=${if lib.isBool value then lib.boolToString value else toString value}" ];
      all = lib.concatLists (lib.mapAttrsToList one values);
    in
    lib.optionalString (all != [ ]) "[${section}]\n${lib.concatMapStrings (line: line + "\n") all}";

  unitSection =
    unit:
    lib.filterAttrs (_: value: value != "" && value != [ ]) {
      Description = unit.description;
      Wants = unit.wants;
      Requires = unit.requires;
      After = unit.after;
      # What it is started again for when it changes; of other programs nobody reads that.
      X-Restart-Triggers = map (trigger: "${trigger}") unit.restartTriggers or [ ];
    }
    // unit.unitConfig;

  serviceSection =
    service:
    let
      variables = lib.mapAttrsToList (name: value: builtins.toJSON "${name}=${value}") service.environment;
    in
    service.serviceConfig // lib.optionalAttrs (variables != [ ]) { Environment = variables; };

  services = lib.mapAttrs' (name: service: {
    name = "${name}.service";
    value = unitSection service // serviceSection service;
  }) (lib.filterAttrs (_: it: it.enable) systemd.services);

  texts =
    lib.mapAttrs' (name: service: {
      name = "${name}.service";
      value = lines "Unit" (unitSection service) + lines "Service" (serviceSection service);
    }) systemd.services
    // lib.mapAttrs' (name: timer: {
      name = "${name}.timer";
      value = lines "Unit" (unitSection timer) + lines "Timer" timer.timerConfig;
    }) systemd.timers;

  wanted =
    suffix: units:
    lib.concatLists (
      lib.mapAttrsToList (name: unit: map (by: "${by}.wants/${name}${suffix}") unit.wantedBy) units
    );

  etc = lib.mapAttrs (_: file: "${file.source}") config.environment.etc;
in
rec {
  "drop-ins" = services;
  inherit (config.boot) kernelParams;
  tmpfiles = systemd.tmpfiles.rules;
  package = map (package: "${package}") systemd.packages;
  plugins = etc."operation-dbus/plugins" or null;
  settings = config.environment.etc."operation-dbus/config.toml".source.settings or null;
  state =
    let
      source = config.environment.etc."operation-dbus/state.json".source or null;
    in
    if source == null then null else builtins.fromJSON source.text;

  # All of it as files: etc/, and users and rules as systemd's own tools read them.
  files =
    pkgs.runCommand "system"
      {
        inherit package;
        # Paths of the store have no such sign.
        units = lib.mapAttrsToList (
          name: text: "${pkgs.writeText (lib.replaceStrings [ "@" ] [ "-" ] name) text}"
        ) texts;
        unitNames = lib.attrNames texts;
        wants = wanted ".service" systemd.services ++ wanted ".timer" systemd.timers;
        etcNames = lib.attrNames etc;
        etcSources = lib.attrValues etc;
        tmpfiles = pkgs.writeText "tmpfiles" (
          lib.concatMapStrings (rule: rule + "\n") systemd.tmpfiles.rules
        );
        sysusers = pkgs.writeText "sysusers" (
          lib.concatStrings (
            lib.mapAttrsToList (name: _: "g ${name} -\n") config.users.groups
            ++ lib.mapAttrsToList (
              name: user: "u ${name} -:${user.group} \"${user.description}\" ${user.home}\n"
            ) config.users.users
          )
        );
      }
      ''
        directory=$out/etc/systemd/system
        mkdir -p $directory $out/etc/systemd/system-generators
        for each in $package; do
          ln -s $each/lib/systemd/system/* $directory
          ln -s $each/lib/systemd/system-generators/* $out/etc/systemd/system-generators
        done
        names=($unitNames)
        for unit in $units; do
          name=''${names[0]} names=("''${names[@]:1}")
          if [ -e $directory/$name ]; then
            mkdir -p $directory/$name.d
            if [ -s $unit ]; then cp $unit $directory/$name.d/overrides.conf; fi
          else
            cp $unit $directory/$name
          fi
        done
        for want in $wants; do
          mkdir -p $directory/''${want%/*}
          ln -s ../''${want##*/} $directory/$want
        done
        names=($etcNames)
        for source in $etcSources; do
          mkdir -p "$(dirname $out/etc/''${names[0]})"
          ln -s $source $out/etc/''${names[0]}
          names=("''${names[@]:1}")
        done
        cp $tmpfiles $out/tmpfiles.conf
        cp $sysusers $out/sysusers.conf
      '';
}
