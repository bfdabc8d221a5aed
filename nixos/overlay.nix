# The packages, by the names that configurations use.
final: prev: {
  operation-dbus-program = final.callPackage ./program.nix { };
  operation-dbus-model = final.callPackage ./model.nix { };
  operation-dbus = final.callPackage ./package.nix { };
  operation-dbus-plugin-lxc = final.callPackage ./plugins/lxc.nix { };
  operation-dbus-plugin-netmaker = final.callPackage ./plugins/netmaker.nix { };
  # Makes a package of a plugin, and validates it.
  buildOperationDbusPlugin = final.callPackage ./plugins/build.nix { };
}
