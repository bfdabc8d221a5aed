# Containers of LXC. The system needs virtualisation.lxc.enable, too: the plugin runs LXC's programs.
{
  buildOperationDbusPlugin,
  operation-dbus-program,
}:
buildOperationDbusPlugin {
  name = "lxc";
  inherit (operation-dbus-program) version;
  src = ../../daemon/plugins/lxc;
  programs = [ "${operation-dbus-program}/bin/op-dbus-plugin-lxc" ];
}
