# Networks of Netmaker. The system needs services.netclient.enable, too: the plugin runs netclient.
{
  buildOperationDbusPlugin,
  operation-dbus-program,
}:
buildOperationDbusPlugin {
  name = "netmaker";
  inherit (operation-dbus-program) version;
  src = ../../daemon/plugins/netmaker;
  programs = [ "${operation-dbus-program}/bin/op-dbus-plugin-netmaker" ];
}
