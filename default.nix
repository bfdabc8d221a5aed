# What flake.nix gives, for those without flakes:
#   nix-build -A packages.x86_64-linux.default
#   imports = [ (import ./operation-dbus { }).nixosModules.default ];
# nixpkgs is that of NIX_PATH, or the one that is given.
{
  nixpkgs ? <nixpkgs>,
}:
let
  outputs = (import ./flake.nix).outputs {
    self = outputs // {
      outPath = ./.;
    };
    nixpkgs = {
      lib = import (nixpkgs + "/lib");
      outPath = nixpkgs;
      legacyPackages = {
        x86_64-linux = import nixpkgs { system = "x86_64-linux"; };
        aarch64-linux = import nixpkgs { system = "aarch64-linux"; };
      };
    };
  };
in
outputs
