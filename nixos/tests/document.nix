# The table of options in nixos/README.md, as the module declares them.
{
  lib,
  pkgs ? import ./stand-ins.nix { inherit lib; },
}:
let
  evaluate = import ./evaluate.nix { inherit lib pkgs; };
  prefix = "services.operation-dbus.";
  options = lib.filter (option: lib.hasPrefix prefix option.name && !option.internal) (
    lib.optionAttrSetToDocList (evaluate.evaluated [ ]).options
  );
  # A cell is one line, in which a bar would end it.
  cell =
    text:
    lib.replaceStrings [ "|" ] [ "\\|" ] (
      lib.concatStringsSep " " (
        lib.filter (part: part != "" && !lib.isList part) (builtins.split "[ \n]+" text)
      )
    );
  shown = value: if value ? text then value.text else toString value;
  row =
    option:
    "| `${lib.removePrefix prefix option.name}` | ${cell option.type} | `${cell (shown option.default)}` | ${cell option.description} |\n";
in
"| option | type | default | meaning |\n|---|---|---|---|\n" + lib.concatMapStrings row options
