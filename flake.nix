# Operation D-Bus for NixOS. nixos/README.md says how it is used, with flakes and without.
#
# There is no flake.lock: whoever uses this has one, and says there which nixpkgs it is
# (inputs.operation-dbus.inputs.nixpkgs.follows). Its release must have ONNX Runtime 1.24 and Rust 1.92.
{
  description = "Operation D-Bus: state and meaning of a system, asked in plain words";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # What f makes of the packages of each system.
      each = f: lib.genAttrs systems (system: f (nixpkgs.legacyPackages.${system}.extend overlay));
      overlay = import ./nixos/overlay.nix;
    in
    {
      overlays.default = overlay;

      nixosModules.default = ./nixos/modules/operation-dbus.nix;

      packages = each (pkgs: {
        default = pkgs.operation-dbus;
        lxc = pkgs.operation-dbus-plugin-lxc;
        netmaker = pkgs.operation-dbus-plugin-netmaker;
      });

      apps = each (pkgs: {
        default = {
          type = "app";
          program = "${pkgs.operation-dbus}/bin/op-dbus";
          meta.description = "Ask a store, or the service of this system";
        };
      });

      devShells = each (pkgs: {
        default = pkgs.callPackage ./nixos/shell.nix { };
      });

      # Not by callPackage, which adds what is no check.
      checks = each (import ./nixos/tests/checks.nix);

      formatter = each (pkgs: pkgs.nixfmt-tree);
    };
}
