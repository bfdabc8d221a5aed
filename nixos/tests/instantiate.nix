# Every output of the flake, by way of default.nix, as the derivation that it is: an attribute set of paths.
{
  nixpkgs ? <nixpkgs>,
}:
let
  outputs = import ../.. { inherit nixpkgs; };
  inherit (import (nixpkgs + "/lib")) isDerivation mapAttrs removePrefix;
  path =
    value:
    if isDerivation value then
      value.drvPath
    else if builtins.isAttrs value && value ? program then
      value.program
    else if builtins.isAttrs value then
      mapAttrs (_: path) value
    else if builtins.isFunction value then
      "a function"
    else
      removePrefix "${toString ../..}/" (toString value);
in
path outputs
