# Evaluates configurations with nixpkgs' lib alone, and says of each what becomes of it.
{
  lib,
  pkgs,
}:
let
  withOverlay = (pkgs.extend (import ../overlay.nix)).extend (pkgs.instead or (_: _: { }));
in
rec {
  pkgs = withOverlay;

  # What evalModules makes of modules beside the project's own.
  evaluated = evaluatedIn { };

  # The same where NixOS says `overlays` of the option of that name.
  evaluatedIn =
    {
      overlays ? {
        type = lib.types.listOf lib.types.raw;
        default = [ ];
      },
    }:
    modules:
    lib.evalModules {
      modules = [
        ./options.nix
        { options.nixpkgs.overlays = lib.mkOption overlays; }
        ../modules/operation-dbus.nix
        { _module.args.pkgs = withOverlay; }
      ]
      ++ modules;
    };

  # The messages of what does not hold, and the configuration.
  judged =
    modules:
    let
      inherit (evaluated modules) config;
    in
    {
      inherit config;
      messages = map (it: it.message) (lib.filter (it: !it.assertion) config.assertions);
    };
}
