# Evaluates the module with configurations of all kinds, and says which of what must hold does not. It needs
# nixpkgs' lib alone: the flake's check runs it, and so does tests/nixos.rs on machines without a nixpkgs.
{
  lib,
  pkgs ? import ./stand-ins.nix { inherit lib; },
}:
let
  evaluate = import ./evaluate.nix { inherit lib pkgs; };
  system = import ./system.nix { inherit lib pkgs; };
  of =
    modules:
    let
      judged = evaluate.judged modules;
    in
    judged // { system = system judged.config; };
  service = options: { services.operation-dbus = options; };
  on = options: service ({ enable = true; } // options);

  good = {
    minimal = on { };
    off = { };
    full = ./full.nix;
    dual-socket-gpu = ../examples/dual-socket-gpu.nix;
    single-socket = ../examples/single-socket.nix;
    small = ../examples/small.nix;
    two-nodes = ./two-nodes.nix;
    vm = (import ./vm.nix).nodes.machine;
    tensorrt = ./tensorrt.nix;
    store-on-another-disk = on { btrfs.basePath = "/mnt/disk-1/op-dbus:store/"; };
    store-below-what-many-share = on { btrfs.basePath = "/var/lib/other"; };
    other-name-in-etc = on { stateFile = "/etc/operation-dbus/declared.json"; };
    model-as-a-path = on { ml.modelPath = ./hostname; };
    model-in-the-nix-store = on { ml.modelPath = "/nix/store/model"; };
  };
  bad = import ./bad.nix lib;
  effects = import ./effects.nix lib evaluate.pkgs;

  # What the types refuse, in nixpkgs' words.
  mistyped = {
    provider = on { ml.executionProvider = "gpu"; };
    log-level = on { logLevel = "loud"; };
    plugin-by-name = on { plugins = [ "lxc" ]; };
    model-path-relative = on { ml.modelPath = "models"; };
    variable-as-number = on { extraEnvironment.OPDBUS_CACHE_MAX_SIZE_GB = 16; };
    misspelt = on { numa.nodes = 0; };
    two-answers = {
      imports = [
        (on { ml.numThreads = 1; })
        (on { ml.numThreads = 2; })
      ];
    };
  };

  result = name: holds: problem: { inherit name holds problem; };

  ofGood =
    name: module:
    let
      found = of [ module ];
      all = builtins.deepSeq found.config true;
    in
    result "${name} is good" (all && found.messages == [ ]) (lib.concatStringsSep "\n" found.messages);

  ofBad =
    name: case:
    let
      found = of [
        (on case.options)
        case.system
      ];
    in
    result "${name} is refused" (lib.any (lib.hasInfix case.says) found.messages)
      "${case.says} is not in: ${lib.concatStringsSep "\n" found.messages}";

  ofMistyped =
    name: module:
    result "${name} is refused by its type" (
      !(builtins.tryEval (builtins.deepSeq (of [ module ]).config true)).success
    ) "it is taken";

  ofEffect =
    name: effect:
    let
      path = lib.splitString "." name;
      # As it is unless this option is said.
      unless = of [
        (on (effect.also or { }))
        (effect.system or { })
      ];
      said = of [
        (on (effect.also or { }))
        (effect.system or { })
        (lib.mkOverride 50 (service (lib.setAttrByPath path effect.value)))
      ];
      shown = found: lib.attrByPath effect.shows null found.system;
      json = builtins.toJSON (shown said);
    in
    result "${name} has its effect"
      (
        said.messages == [ ]
        && json != builtins.toJSON (shown unless)
        && (effect ? as -> json == builtins.toJSON effect.as)
      )
      "${lib.concatStringsSep "." effect.shows} is ${json}, and without it ${builtins.toJSON (shown unless)}; ${toString said.messages}";

  # What one option or several modules say, as it comes out.
  outcomes =
    let
      slashes = (of [ (on { btrfs.basePath = "//var/lib/op-dbus//"; }) ]).system;
      state = version: plugins: service { defaultState = version // { inherit plugins; }; };
      parts =
        (of [
          (on { })
          (state { version = "1.0"; } { a.is = 1; })
          (state { } {
            b.is = lib.mkDefault 2;
            a.was = [ 1 ];
          })
        ]).system.state;
      # What a plugin of ours is when an overlay of the user's is another.
      named = name: _: _: { operation-dbus-plugin-lxc = name; };
      overlays =
        (evaluate.judged [
          (on { })
          { nixpkgs.overlays = [ (named "theirs") ]; }
        ]).config.nixpkgs.overlays;
      last = lib.foldl' (all: overlay: all // overlay evaluate.pkgs all) { } overlays;
      readOnly = evaluate.evaluatedIn {
        overlays = {
          internal = true;
          type = lib.types.unique { message = "nixpkgs.overlays is set to read-only"; } lib.types.anything;
        };
      };
      ready = (readOnly [
        (on { })
        { nixpkgs.overlays = [ "given" ]; }
      ]).config;
      # Wherever it is, it is copied; there is none here to copy.
      pathInHome = evaluate.judged [ (on { ml.modelPath = /home/anna/model; }) ];
      percent = (of [ (on { extraEnvironment.SHARE = "50 %h"; }) ]).system;
      plugged = (of [ (on { plugins = [ evaluate.pkgs.operation-dbus-plugin-lxc ]; }) ]).system;
      lxc =
        (of [
          (on { })
          { virtualisation.lxc.enable = true; }
        ]).system;
      is = name: found: wanted: result name (found == wanted) "it is ${builtins.toJSON found}";
    in
    [
      (is "state of two modules is declared together" parts {
        version = "1.0";
        plugins.a.is = 1;
        plugins.a.was = [ 1 ];
        plugins.b.is = 2;
      })
      (is "an overlay of the user's comes after the module's" last.operation-dbus-plugin-lxc "theirs")
      (is "read-only packages are left as they are" ready.nixpkgs.overlays [ "given" ])
      (is "and the module does the rest" ready.services.operation-dbus.enable true)
      (is "slashes too many are left out" slashes.settings.btrfs.base_path "/var/lib/op-dbus")
      (is "and the store is where it would be" (
        slashes.drop-ins."operation-dbus.service" ? ReadWritePaths
      ) false)
      (is "a percent sign is one for systemd"
        (lib.elem ''"SHARE=50 %%h"'' percent.drop-ins."operation-dbus.service".Environment)
        true
      )
      (is "a plugin that runs is started again when plugins change"
        (plugged.drop-ins."op-dbus-plugin@.service".X-Restart-Triggers or null)
        [ plugged.plugins ]
      )
      (is "with LXC there is where its templates keep things" (lib.filter (lib.hasInfix "lxc") lxc.tmpfiles) [
        "d /var/cache/lxc 0700 root root -"
      ])
      (is "and without it there is not" (lib.filter (lib.hasInfix "lxc") plugged.tmpfiles) [ ])
      (is "a model's path in a home is copied" pathInHome.messages [ ])
    ];

  options = map (option: lib.removePrefix "services.operation-dbus." option.name) (
    lib.filter (option: lib.hasPrefix "services.operation-dbus." option.name && !option.internal) (
      lib.optionAttrSetToDocList (evaluate.evaluated [ ]).options
    )
  );
  forgotten =
    lib.subtractLists (lib.attrNames effects) options
    ++ lib.subtractLists options (lib.attrNames effects);

  results =
    lib.mapAttrsToList ofGood good
    ++ lib.mapAttrsToList ofBad bad
    ++ lib.mapAttrsToList ofMistyped mistyped
    ++ lib.mapAttrsToList ofEffect effects
    ++ outcomes
    ++ [
      (result "every option has an effect that is looked at" (forgotten == [ ]) (toString forgotten))
    ];
in
{
  passed = map (it: it.name) (lib.filter (it: it.holds) results);
  failed = map (it: "${it.name}: ${it.problem}") (lib.filter (it: !it.holds) results);
  # Whatever options say of the program's settings.
  settingsOfOptions =
    let
      leaves =
        prefix: value:
        if lib.isAttrs value then
          lib.concatLists (lib.mapAttrsToList (name: leaves (prefix ++ [ name ])) value)
        else
          [ (lib.concatStringsSep "." prefix) ];
      all = of [
        (on {
          ml.modelPath = "/srv/model";
          numa.enable = true;
        })
      ];
    in
    leaves [ ] all.system.settings
    ++ [
      "log_level"
      "plugins"
    ];
  # Of each that is good, what a system would be given.
  systems = lib.mapAttrs (_: module: (of [ module ]).system) good;
  # What the checks of the flake must be refused by, when it is built.
  badly-built = lib.mapAttrs (_: options: (of [ (on options) ]).system.files) (
    import ./badly-built.nix lib evaluate.pkgs
  );
}
